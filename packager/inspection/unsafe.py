"""Why a file of a package is not opened."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[0-9]{1,19}")


class Unsafe(Exception):
    """One reason, as what follows the name of the file: "names a library", "holds a tensor of an
    unknown type"."""


def whole(text: str) -> int | None:
    """The number that every engine reads in these digits; None for what Python or an engine alone
    takes for one: signs, blanks, underscores, more than 63 bits."""
    return int(text) if _WHOLE.fullmatch(text) and int(text) < 1 << 63 else None


def shown(text: object) -> str:
    """A text from inside a file, for a sentence: short, and without effect on a terminal."""
    words = str(text)
    return ascii(words if len(words) <= 80 else f"{words[:77]}...")
