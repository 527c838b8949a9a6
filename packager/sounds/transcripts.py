"""Recordings and what is said in them, as somebody wrote it down: one JSON object per line with
`audio`, a file below the folder of the list, and `text`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError, bad_input, usage
from packager.foreign import file_below, parse_json

_MOST_BYTES = 16 << 20
_MOST_ROWS = 10_000
_KEYS = {"audio", "text"}
_LINE = 'A line is {"audio": "a.wav", "text": "what is said"}.'


@dataclass(frozen=True, slots=True)
class Recording:
    """A sound's file, and the words in it."""

    audio: Path
    text: str


def read(path: Path) -> tuple[Recording, ...]:
    """The recordings of a list. Raises PackError: exit code 2 where it cannot be read, 6 with the
    line for what is not one."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise usage(
            f"{path} cannot be read: {error.strerror}.", "Name a file with one JSON object a line."
        ) from None
    rows = [
        _recording(line, f"{path}, line {number}", path.absolute().parent)
        for number, line in enumerate(data.split(b"\n"), 1)
        if line.strip()
    ]
    if not rows or len(rows) > _MOST_ROWS or len(data) > _MOST_BYTES:
        raise bad_input(
            f"{path} holds {len(rows)} recordings in {len(data):,} bytes.",
            f"Write 1 to {_MOST_ROWS:,}, in at most {_MOST_BYTES:,} bytes.",
        )
    return tuple(rows)


def _recording(line: bytes, where: str, folder: Path) -> Recording:
    row = parse_json(line, where, _LINE)
    texts = isinstance(row, dict) and set(row) == _KEYS
    if not texts or not all(isinstance(row[key], str) and row[key].strip() for key in _KEYS):
        raise _wrong(where, "is not an object of two texts, 'audio' and 'text'")
    try:
        return Recording(file_below(folder, row["audio"]), row["text"])
    except ValueError as error:
        raise _wrong(where, str(error)) from None


def _wrong(where: str, why: str) -> PackError:
    return bad_input(f"{where} {why}.", _LINE)
