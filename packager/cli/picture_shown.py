"""The pictures that a question brings, small in the terminal, as the model is given them: upright,
and on white where they are transparent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packager.pictures.small import rows
from packager.pictures.taken import Pixels

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS, _ROWS = 32, 12
_MOST = 4
"""Pictures that are shown: the answer should not be pushed out of the window."""
_COLOURFUL = ("truecolor", "256")


def show(pictures: Sequence[Pixels], console: Console | None = None) -> None:
    """Draw them on stderr where that is a terminal of 256 colours or more; NO_COLOR=1 leaves them
    out."""
    # Late: most commands draw nothing.
    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = console or Console(stderr=True)
    plain = console.no_color or console.color_system not in _COLOURFUL
    if plain or not console.is_terminal:
        return
    for picture in pictures[:_MOST]:
        for row in rows(picture, min(_COLUMNS, console.width), _ROWS):
            line = Text(no_wrap=True)
            for upper, lower in row:
                style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
                line.append("▀", style)
            console.print(line)
