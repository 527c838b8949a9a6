"""Why a file of a package is not opened."""

from __future__ import annotations


class Unsafe(Exception):
    """One reason, as what follows the name of the file: "names a library", "holds a tensor of an
    unknown type"."""


def shown(text: object) -> str:
    """A text from inside a file, for a sentence: short, and without effect on a terminal."""
    words = str(text)
    return ascii(words if len(words) <= 80 else f"{words[:77]}...")
