"""Bytes, seconds and rates as people read them; every number elsewhere stays in base units."""

from __future__ import annotations

import re

from packager.errors import usage

_STEPS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def human_bytes(count: float) -> str:
    """Decimal units, three significant digits: 1234567 -> "1.23 MB"."""
    for unit, step in _STEPS:
        # 999.5 kB would print as "1000 kB": the next unit takes over from where rounding crosses
        # it.
        if abs(count) >= step * 0.9995:
            value = count / step
            digits = sum(abs(value) < bound for bound in (9.995, 99.95))
            return f"{value:.{digits}f} {unit}"
    return f"{count:.0f} B"


def human_seconds(seconds: float) -> str:
    """0.0123 -> "12 ms", 3.21 -> "3.2 s", 75 -> "1 min 15 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def human_count(count: float) -> str:
    """Parameters as model names print them: 596049920 -> "596M", 7615616512 -> "7.6B"."""
    if count >= 0.9995e12:
        return f"{count / 1e12:.3g}T"
    if count >= 0.9995e9:
        return f"{count / 1e9:.3g}B"
    if count >= 0.9995e6:
        return f"{count / 1e6:.0f}M"
    return f"{count:.0f}"


def human_rate(value: float, digits: int = 3) -> str:
    """Significant digits, and no power of ten: 0.0312 -> "0.0312", 9168.4 -> "9170"."""
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    # Late: every command reads this module, and few meet such a rate.
    from decimal import Decimal

    return f"{Decimal(text):f}"


def human_threads(count: int) -> str:
    """1 -> "1 thread", 4 -> "4 threads"."""
    return "1 thread" if count == 1 else f"{count} threads"


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(?:([kKmMgGtT])(i?))?[bB]?")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """A size as people type it: "2G" and "2GB" are 2 * 10^9, "1.5GiB" is 1.5 * 2^30, "1500" is
    bytes.

    Raises PackError (usage) for anything else, and for a size that is not above zero.
    """
    match = _SIZE.fullmatch(text.strip())
    if match:
        number, letter, binary = match.groups()
        size = int(
            float(number) * (1024 if binary else 1000) ** _POWERS[letter.lower()]
            if letter
            else float(number)
        )
        if size > 0:
            return size
    raise usage(f"{text!r} is not a valid size.", "Write it like 2G, 1500M or 1.5GiB.")
