"""Draw architecture.svg from the import rules in pyproject.toml: run this file.

Every row is a floor of packager/, every box a folder or module on it; a box imports only from the
rows below.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE = HERE / "architecture.svg"
WAY = ("plan", "sources", "checkpoint", "pipeline", "measure", "quality", "package")
"""The rooms that a build passes through, in this order; they are numbered."""
_WIDTH, _ROW, _GAP, _LEFT, _TOP = 980, 38, 8, 16, 132
_FONT = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13"'


def floors() -> list[list[str]]:
    """The folders of every floor of packager/, the highest first."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = rules["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["packager"])
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def box(x: float, y: float, width: float, text: str, kind: str) -> str:
    """One room."""
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="28" rx="4"/>'
        f'<text x="{x + width / 2:g}" y="{y + 19:g}" text-anchor="middle">{escape(text)}</text>'
    )


def row(y: float, names: list[str]) -> list[str]:
    """Rooms side by side, all as wide as the floor allows."""
    width = (_WIDTH - 2 * _LEFT - _GAP * (len(names) - 1)) / len(names)
    width = min(width, 220)
    start = (_WIDTH - len(names) * width - (len(names) - 1) * _GAP) / 2
    parts = []
    for place, name in enumerate(names):
        step = f"{WAY.index(name) + 1} " if name in WAY else ""
        kind = "way" if step else "room"
        parts.append(box(start + place * (width + _GAP), y, width, step + name, kind))
    return parts


def drawn() -> str:
    """The whole picture."""
    stories = floors()
    height = _TOP + _ROW * len(stories) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="The folders of qwen-pack by floors" {_FONT}>',
        "<style>text{fill:#24292f}rect{stroke:#57606a}.room{fill:#f6f8fa}.way{fill:#ddf4ff}"
        ".out{fill:#fff8c5}.back{fill:#ffffff;stroke:none}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height}"/>',
        *(
            box(_LEFT + place * 322, 16, 304, text, "out")
            for place, text in enumerate(
                ("tui: screens over packager", "targets: devices, runtimes", "plug-ins: runtimes")
            )
        ),
        f'<text x="{_LEFT}" y="72">tui and targets import packager, never the other way; '
        "only packager/cli imports both.</text>",
        f'<text x="{_LEFT}" y="92">packager/: a box imports only from the rows below it. '
        "Numbers: the way of a build.</text>",
        f'<line x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="108" y2="108" stroke="#57606a"/>',
    ]
    for number, names in enumerate(stories):
        parts += row(_TOP - 14 + number * _ROW, names)
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(drawn(), encoding="utf-8")
    sys.exit(0)
