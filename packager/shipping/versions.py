"""Versions of packages, as far as it takes to say which of two is older."""

from __future__ import annotations

import re

from packager.errors import usage


def ordered(version: str) -> tuple[int, ...]:
    """`1.10.2` as numbers that compare. Raises PackError (usage) for what is no such version."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,3}", version):
        raise usage(
            f"{version!r} is not a valid version.",
            "Write one to four numbers with dots between them, like 1.4.0.",
        )
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (4 - len(numbers)))
