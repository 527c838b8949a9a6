"""A checkpoint of which only the texts are there: what a model says of itself that somebody else
has converted already. Its weights are in the converted file alone.

Only this program writes such a folder, for the stages of a build that adopts a model.
"""

from __future__ import annotations

from pathlib import Path

from packager.errors import usage
from packager.files import write_json

FILE = "described.json"


def mark(folder: Path, kind: str) -> None:
    """Say that a folder describes a model of that kind, whose weights are elsewhere."""
    write_json(folder / FILE, {"kind": kind})


def is_described(folder: Path) -> bool:
    """Whether only the texts of a checkpoint are there."""
    return (folder / FILE).is_file()


def refuse_by_hand(folder: Path) -> None:
    """Raise PackError (usage) for such a folder that somebody names as a checkpoint."""
    if (folder / FILE).exists():
        raise usage(
            f"{folder} is what a build keeps of a model that it adopted ({FILE}).",
            "Name the model's own file, or the folder of a checkpoint.",
        )
