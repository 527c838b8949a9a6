"""The nearest name to a misspelt one, and a plain one for a folder that is called anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 96  # bytes: a recipe and the ending of an archive fit behind it on every disk
_MOST_BYTES = 255
_RESERVED = frozenset('<>:"/\\|?*')
# Blanks before the ending do not help: Windows takes them away first.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE
)

_TEMPORARY = re.compile(r"\.qwen-pack-tmp-")
"""As temporaries of ours begin, see packager.scratch."""


def plain_name(text: str) -> str:
    """A name that is one in a path of any system, on a command line, in a table and in a sentence,
    as near to `text` as can be.

    Letters and digits of any script, spaces and `._+=@,()-` stay; everything else becomes `_`. It
    begins with no hyphen, ends in no dot, is no device of Windows and no temporary of ours, and has
    at most 96 bytes in UTF-8.
    """
    known = unicodedata.normalize("NFC", text)
    kept = "".join(char if char.isalnum() or char in " ._+=@,()-" else "_" for char in known)
    short = (
        kept.lstrip(" -")
        .encode("utf-8", "replace")[:_LONGEST]
        .decode("utf-8", "ignore")
        .rstrip(" .")
    )
    if not short.strip("._ "):
        return "weights"
    return f"_{short}" if _DEVICES.fullmatch(short) or _TEMPORARY.match(short) else short


def fits_everywhere(name: str) -> bool:
    """Whether a name of a file is one on every system: no device of Windows, no character that it
    keeps for itself, no end that it takes away, and no more bytes than a disk holds."""
    return not (
        _DEVICES.fullmatch(name)
        or name.endswith((".", " "))
        or _RESERVED & set(name)
        or len(name.encode("utf-8", "surrogatepass")) > _MOST_BYTES
    )


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` known names that look like `name`, case aside, best first."""
    # Late: it is only for who mistypes.
    from difflib import get_close_matches

    by_fold = {candidate.casefold(): candidate for candidate in known}
    return [by_fold[fold] for fold in get_close_matches(name.casefold(), by_fold, count, 0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "a" or "b"?`, or an empty string when nothing is near."""
    near = nearest(name, known)
    return f" Did you mean {' or '.join(repr(candidate) for candidate in near)}?" if near else ""
