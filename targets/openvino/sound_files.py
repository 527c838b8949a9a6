"""The files of an artifact that takes sound, looked at before the engine reads them; and what its
preprocessor_config.json says: features that are Whisper's and nothing else."""

from __future__ import annotations

from pathlib import Path

from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.files import write_json
from packager.foreign import parse_json
from packager.json_values import JsonObject, as_object
from packager.shape import Shape
from packager.shape.audio import FRAME, HOP, MELS, RATE, AudioTower, audio_tower_of
from targets.openvino import hearing

FILE = "preprocessor_config.json"
_COMPUTED = {"feature_size": MELS, "sampling_rate": RATE, "hop_length": HOP, "n_fft": FRAME}
_LARGEST = 1 << 20
_PADDED = 30
"""Seconds up to which Whisper's own applications fill a sound; ASRPipeline does not."""


def write(out: Path) -> None:
    """Write the file into the folder `out`."""
    samples = _PADDED * RATE
    more = {"chunk_length": _PADDED, "n_samples": samples, "nb_max_frames": samples // HOP}
    write_json(out / FILE, {**_COMPUTED, **more})


def check(artifact: Path) -> None:
    """Raise PackError (bad input) where the file is not there, or says that something else is
    computed: the engine makes room by it, and features that the encoder does not know."""
    path = artifact / FILE
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise bad_input(f"{artifact} holds no {FILE}.", "Build the package again.")
    try:
        table: JsonObject = as_object(
            parse_json(path.read_bytes(), str(path), "Build it again."), FILE
        )
    except TypeError as error:
        raise bad_input(f"{path} is not as it was built: {error}.", "Build it again.") from None
    for key, only in _COMPUTED.items():
        value = table.get(key)
        if isinstance(value, bool) or value != only:
            raise bad_input(
                f"{path} is not as it was built: {key} is {value!r} in place of {only}.",
                "Build it again.",
            )


def refuse_half(artifact: Path) -> None:
    """Raise PackError (bad input) where one of the two graphs is missing."""
    for name in (hearing.ENCODER, hearing.DECODER):
        if not (artifact / name).is_file():
            raise bad_input(f"{artifact} holds no {name}.", "Build the package again.")


def tower_in(artifact: Path) -> AudioTower:
    """The encoder that the artifact's config.json describes. Raises PackError (bad input), also for
    one whose windows the engine would cut otherwise."""
    path = artifact / "config.json"
    if not path.is_file():
        raise bad_input(f"{artifact} holds no config.json.", "Build the package again.")
    config = read_json(path)
    return audio_tower_of(config, Shape.from_config(config, str(path)), str(path))
