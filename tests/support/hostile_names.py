"""Names that hold whatever a name from outside can, and what a text may do with them."""

from __future__ import annotations

HOSTILE = {
    "a line break": "a\nb",
    "quotes": "q'\"`id`$(id)${x}",
    "an escape": "\x1b[2J\x1b]0;owned\x07",
    "an escape of eight bits": "\x9b2J",
    "marks that turn the direction": "\u202egnp.exe\u2066",
    "255 bytes": "x" * 255,
    "255 bytes of two": "é" * 127,
    "a leading hyphen": "--help",
    "bytes that are no UTF-8": b"\xff\xfe".decode(errors="surrogateescape"),
    "a device of Windows": "con.json",
    "a device of Windows with a blank": "nul .json",
    "a temporary of ours": ".qwen-pack-tmp-0123456789abcdef",
    "marks of paths": "..\\a/b:c",
    "a table, a link and HTML": "|a|[x](http://e)<b>*c*",
    "templates": "%s{{7*7}}{%",
    "only dots": "..",
    "nothing": "",
    "a line break of Unicode": "a\u2028b\u0085c",
}


def shown(text: str) -> bool:
    """Whether a text does nothing but show itself."""
    return all(char.isprintable() or char in "\n\t" for char in text)
