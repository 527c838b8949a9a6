"""The nearest name to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` known names that look like `name`, case aside, best first."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    return [by_fold[fold] for fold in get_close_matches(name.casefold(), by_fold, count, 0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "a" or "b"?`, or an empty string when nothing is near."""
    found = nearest(name, known)
    return f" Did you mean {' or '.join(repr(candidate) for candidate in found)}?" if found else ""
