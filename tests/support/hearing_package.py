"""A package that writes down what is said: both files of the trained model that listens, its
template, and a manifest written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from targets.gguf.convert import convert
from targets.gguf.projector import convert_audio
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.vision_package import written

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3-asr"
"""It knows digits, dialled or spoken (training/sound.py)."""
SECONDS = 3


class Quiet(Silent):
    """A report that nobody reads."""

    def text(self, piece: str) -> None:
        pass


def write_hearing_package(folder: Path, **changes: Any) -> Path:
    """For a context of 192 and three seconds of sound at once."""
    (folder / "model").mkdir(parents=True)
    convert(TRAINED, folder / "model" / "model.gguf", "BF16")
    convert_audio(TRAINED, folder / "model" / "mmproj.gguf", "Q8_0", report=Quiet())
    tokenizer = json.loads((TRAINED / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").write_text(tokenizer["chat_template"])
    return written(
        folder,
        name="tiny-hearing",
        modality="audio",
        audio={"file": "model/mmproj.gguf", "max_audio_seconds": SECONDS},
        workload={"context": 192, "prompt": 100, "max_audio_seconds": SECONDS},
        **changes,
    )
