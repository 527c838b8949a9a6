"""A sound that somebody names, as a file of samples for a session: decoded in a child process that
has bounded memory and is killed when it takes too long."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from packager import limits
from packager.deaths import Died
from packager.errors import bad_input, usage
from packager.json_values import JsonObject, at
from packager.process import value_within
from packager.shape.audio import RATE

SECONDS = 300.0
"""Two hours take a minute on a small board."""

_JOB = "packager.sounds.decode:decode_job"
_SAVE = "Save it again with a sound editor."


@dataclass(frozen=True, slots=True)
class Samples:
    """A decoded sound: a file of `count` float32 samples, 16,000 a second."""

    path: Path
    count: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.count / RATE

    def as_dict(self) -> JsonObject:
        """JSON form, as jobs take it."""
        return {"path": str(self.path), "count": self.count}


def take(path: Path, folder: Path, log: Path) -> Samples:
    """The sound in a file, as one in `folder`, which is there. `log` takes what the decoder prints.

    Raises PackError: exit code 2 where there is no such file or the extra is not installed, 6 for a
    file that is no sound, is damaged or too long.
    """
    # Asked before it is opened: a pipe would keep us waiting.
    if not stat.S_ISREG(path.stat().st_mode):
        raise bad_input(f"{path} is not a file.", "Name a WAV, FLAC, Ogg or MP3 file.")
    return _decoded(path, str(path), folder, log, limits.SOUND_SECONDS)


def take_data(sound: bytes, folder: Path, log: Path) -> Samples:
    """The same for a sound that came in a request; sentences speak of it as `the sound`."""
    path = folder / "given"
    path.write_bytes(sound)
    try:
        return _decoded(path, "the sound", folder, log, limits.SERVED_SOUND_SECONDS)
    finally:
        path.unlink(missing_ok=True)


def _decoded(path: Path, name: str, folder: Path, log: Path, seconds: int) -> Samples:
    missing = [name for name in ("soundfile", "soxr") if find_spec(name) is None]
    if missing:
        raise usage(
            f"{' and '.join(missing)} are needed to read sound and not installed.",
            "Install them: pip install 'qwen-pack[sound]'.",
        )
    out = folder / "sound.f32"
    arguments: JsonObject = {
        "path": str(path.absolute()),
        "name": name,
        "out": str(out),
        "seconds": seconds,
    }
    try:
        made = value_within(_JOB, arguments, log, SECONDS)
    except Died as death:
        if not death.death.crashed:
            raise
        raise bad_input(f"{name} makes the decoder of sounds crash.", _SAVE) from None
    if made is None:
        raise bad_input(f"{name} cannot be decoded within {SECONDS:.0f} seconds.", _SAVE)
    return Samples(out, at(made, "samples", int))
