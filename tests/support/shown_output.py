"""Output that a page shows: held against what its command prints, or brought up to date with it.

A block ```text after a block ```sh shows the output of that block's last command, `...` where some is left
out. Figures, dates, and the folder of a path may differ; line breaks and widths of columns do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BLOCK = re.compile(r"^```sh\n((?:(?!```).)*?)```\n+```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FIGURE = (
    r"(?<![\w.+-])(?:\d{4}-\d\d-\d\d|[+-]?\d[\d.,]*\d|[+-]?\d)(?:%|\s+(?:[kMGT]?B(?:/s)?|ms|s|min|%))?"
    r"(?![\w-])"
)
_RUN = re.compile(rf"{_FIGURE}(?:\s+{_FIGURE})*")
_PATH = re.compile(r"(?<=\s)/\S*/(?=\S)")
_ANY_PATH = r"/\S*/"


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(command, the output shown) in order; a remark after `#` is no part of the command."""
    for commands, output in _BLOCK.findall(page):
        yield commands.strip().splitlines()[-1].split("#")[0].strip(), output


def differences(shown: str, printed: str) -> list[str]:
    """The pieces between `...` that were not printed, in this order; [] where all were."""
    missing, at = [], 0
    for piece in _pieces(shown):
        match = _pattern(piece).search(printed, at)
        if match is None:
            missing.append(piece)
        else:
            at = match.end()
    return missing


def up_to_date(shown: str, printed: str) -> str:
    """The same with the figures that were printed. Raises ValueError for a piece that was not."""
    missing = differences(shown, printed)
    if missing:
        raise ValueError(f"Not printed:\n{missing[0]}")
    at = 0
    for piece in _pieces(shown):
        match = _pattern(piece).search(printed, at)
        assert match is not None
        at = match.end()
        figures = iter(match.groups())
        shown = shown.replace(piece, _RUN.sub(lambda _: next(figures), piece))  # noqa: B023
    return shown


def _pieces(shown: str) -> list[str]:
    return [
        piece.strip("\n") for piece in re.split(r"^\.\.\.\n", shown, flags=re.M) if piece.strip()
    ]


def _pattern(piece: str) -> re.Pattern[str]:
    """The piece as an expression with a group for each run of figures."""
    parts, at = [], 0
    for run in _RUN.finditer(piece):
        parts += [_words(piece[at : run.start()]), f"({_RUN.pattern})"]
        at = run.end()
    return re.compile("".join([*parts, _words(piece[at:])]))


def _words(text: str) -> str:
    """The text as an expression: any white space for white space, any folder for a folder."""
    marked = _PATH.sub("\0", text)
    escaped = r"\s+".join(re.escape(word) for word in re.split(r"\s+", marked))
    return escaped.replace(re.escape("\0"), _ANY_PATH).replace("\0", _ANY_PATH)
