"""How a package that takes sound is run without qwen-pack: Markdown for its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from packager.json_values import texts_at
from packager.recipe import Recipe
from targets.openvino import hearing


def takes_sound(workload: Mapping[str, Any]) -> bool:
    """Whether the files of a package are those of a model with its audio encoder."""
    names = {PurePosixPath(path).name for path in texts_at(workload, "files")}
    return hearing.ENCODER in names


def how_to_run(recipe: Recipe, workload: Mapping[str, Any], capped: str) -> str:
    """Markdown with commands that need openvino-genai, soundfile and soxr alone; `capped` are lines
    of Python that come before."""
    most = workload.get("max_audio_seconds") or 30
    return f"""With Python, `pip install openvino-genai soundfile soxr`:

```python
{capped}import openvino_genai
import soundfile
import soxr

pipeline = openvino_genai.ASRPipeline("model", "CPU", KV_CACHE_PRECISION="{recipe.kv}")
samples, rate = soundfile.read("sound.wav", dtype="float32", always_2d=True)
sound = soxr.resample(samples.mean(axis=1), rate, 16000)
answer = pipeline.generate(sound.tolist(), max_new_tokens=200)
print(answer.texts[0], answer.languages[0])
```

`context="Ada Lovelace, Babbage"` names what occurs in the sound, and `language="English"` says
what is spoken. `ASRPipeline` encodes up to 20 minutes at once, with 8 MB of memory for each
second: give it pieces of at most {most} seconds, cut in pauses.
"""
