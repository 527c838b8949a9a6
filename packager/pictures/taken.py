"""Pictures that somebody names, as files of pixels for a session: decoded in a child process that
has bounded memory and is killed when it takes too long."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from packager import limits
from packager.deaths import Died
from packager.errors import bad_input, usage
from packager.json_values import JsonObject, at, texts_at
from packager.process import value_within

SECONDS = 60.0
"""The largest picture takes three seconds on a laptop and fifteen on a small board."""

_JOB = "packager.pictures.decode:decode_job"
_SAVE = "Save it again with an image editor."


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: a file of `width` times `height` times 3 bytes, red, green and blue, row
    by row from the top; `notes` are sentences on what was left out of it."""

    path: Path
    width: int
    height: int
    notes: tuple[str, ...] = ()

    def as_dict(self) -> JsonObject:
        """JSON form, as sessions take it."""
        return {"path": str(self.path), "width": self.width, "height": self.height}


def take(paths: Sequence[Path], folder: Path, log: Path) -> list[Pixels]:
    """The pictures in these files, in `folder`, which is there. `log` takes what the decoder
    prints.

    Raises PackError: exit code 2 where there is no such file, there are too many or Pillow is not
    installed, 6 for a file that is no picture, is damaged or too large.
    """
    if len(paths) > limits.PICTURES:
        raise usage(f"{len(paths)} pictures are more than {limits.PICTURES}.", "Give fewer.")
    for path in paths:
        # Asked before it is opened: a pipe would keep us waiting.
        if not stat.S_ISREG(path.stat().st_mode):
            raise bad_input(f"{path} is not a file.", "Name a PNG, JPEG or WebP file.")
    return _decoded([(path, str(path)) for path in paths], folder, log)


def take_data(pictures: Sequence[bytes], folder: Path, log: Path) -> list[Pixels]:
    """The same for pictures that came as bytes; they are spoken of as `picture 1` and so on."""
    files = []
    for number, data in enumerate(pictures, 1):
        path = folder / f"{number}.given"
        path.write_bytes(data)
        files.append((path, f"picture {number}"))
    try:
        return _decoded(files, folder, log)
    finally:
        for path, _ in files:
            path.unlink(missing_ok=True)


def _decoded(files: Sequence[tuple[Path, str]], folder: Path, log: Path) -> list[Pixels]:
    if find_spec("PIL") is None:
        raise usage("Pillow is not installed.", "Install it: pip install 'qwen-pack[vision]'.")
    # One process each: what kills it is known to be this picture.
    return [
        _decoded_apart(path, name, folder / f"{number}.rgb", log)
        for number, (path, name) in enumerate(files, 1)
    ]


def _decoded_apart(path: Path, name: str, out: Path, log: Path) -> Pixels:
    arguments = {"path": str(path.absolute()), "name": name, "out": str(out)}
    try:
        made = value_within(_JOB, arguments, log, SECONDS)
    except Died as death:
        if not death.death.crashed:
            raise
        raise bad_input(f"{name} makes the decoder of pictures crash.", _SAVE) from None
    if made is None:
        raise bad_input(f"{name} cannot be decoded within {SECONDS:.0f} seconds.", _SAVE)
    width, height = (at(made, key, int) for key in ("width", "height"))
    return Pixels(out, width, height, tuple(texts_at(made, "notes")))
