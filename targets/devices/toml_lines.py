"""The line on which a key of a TOML file stands; tomllib keeps values only."""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[\[?\s*([^\]#]+?)\s*\]\]?")
_KEY = re.compile(
    r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=(.*)"""
)
_LONG_TEXT = re.compile(r'"""|\'\'\'')


def lines_of_keys(text: str) -> dict[str, int]:
    """Dotted key or table name -> line number from 1, the first where a name stands twice.

    Reads lines, not grammar: good enough to point at a place in a file that tomllib has read.
    """
    lines: dict[str, int] = {}
    table = ""
    closing: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if closing is not None:
            if closing in line:
                closing = None
            continue
        if header := _TABLE.match(line):
            table = _plain(header[1])
            lines.setdefault(table, number)
        elif pair := _KEY.match(line):
            key = _plain(pair[1])
            lines.setdefault(f"{table}.{key}" if table else key, number)
            if (opening := _LONG_TEXT.search(pair[2])) and pair[2].count(opening[0]) == 1:
                closing = opening[0]
    return lines


def _plain(name: str) -> str:
    """`source . "cores"` -> `source.cores`."""
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
