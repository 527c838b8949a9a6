"""What a terminal shows after what was written to it: only the cells that changed are written, so
words on the screen need not stand together in the stream."""

from __future__ import annotations

import codecs
import re

from rich.cells import cell_len

_PIECE = re.compile(
    r"\x1b\[(?P<codes>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[^\[\]]"
    r"|(?P<character>[^\x1b])"
)


class TerminalCells:
    """Understands moves of the cursor, styles, clearing, and characters of one or two columns; all
    else is read past. `cells` maps (column, row) to a character and the codes of its style."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self._x = self._y = 0
        self._style = self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Bytes as they come, which may end within a character or a sequence."""
        self.write(self._decoder.decode(data))

    def write(self, text: str) -> None:
        """Text with control sequences; what is not whole yet waits for the rest."""
        text, at = self._rest + text, 0
        while (match := _PIECE.match(text, at)) is not None:
            at = match.end()
            if match["character"]:
                self._put(match["character"])
            elif match["final"] == "H":
                row, _, column = match["codes"].partition(";")
                self._x, self._y = int(column or 1) - 1, int(row or 1) - 1
            elif match["final"] == "m":
                self._style = match["codes"].removeprefix("0").removeprefix(";")
            elif match["final"] == "J":
                self.cells.clear()
        self._rest = text[at:]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._x = 0
        elif character == "\n":
            self._y += 1
        elif character >= " ":
            self.cells[self._x, self._y] = (character, self._style)
            width = cell_len(character)
            if width == 2:
                self.cells[self._x + 1, self._y] = ("", self._style)
            self._x += width

    @property
    def text(self) -> str:
        """The screen, line by line."""
        rows = max((y for _, y in self.cells), default=-1) + 1
        columns = max((x for x, _ in self.cells), default=-1) + 1
        return "\n".join(
            "".join(self.cells.get((x, y), (" ", ""))[0] for x in range(columns))
            for y in range(rows)
        )
