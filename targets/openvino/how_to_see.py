"""How a package that takes pictures is run without qwen-pack: Markdown for its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from packager.json_values import texts_at
from packager.recipe import Recipe
from targets.openvino import seeing, sizes
from targets.openvino.pixels import FILE

_SERVER = (
    "As a server that speaks OpenAI's protocol, the folder serves as it is with OpenVINO Model "
    "Server:"
)
_OVMS = (
    "ovms --rest_port 8000 --model_name qwen --model_path model --task text_generation "
    "--pipeline_type VLM_CB"
)


def takes_pictures(workload: Mapping[str, Any]) -> bool:
    """Whether the files of a package are those of a model with its vision tower."""
    names = {PurePosixPath(path).name for path in texts_at(workload, "files")}
    return seeing.MERGER in names


def how_to_run(recipe: Recipe, workload: Mapping[str, Any], capped: str, before: str) -> str:
    """Markdown with commands that need openvino-genai and Pillow alone; `capped` are lines of
    Python that come before, `before` what stands before a command of the shell.

    Source of the server's flags: docs/parameters.md of OpenVINO Model Server.
    """
    blocks, context = sizes.cache_blocks(workload["context"]), workload["context"]
    most = workload.get("max_image_tokens")
    limit = (
        f"A picture takes {most} tokens at most: it is made smaller where it would take more. "
        f"`max_pixels` in `model/{FILE}` says so.\n"
        if most
        else ""
    )
    return f"""With Python, `pip install openvino-genai pillow`:

```python
{capped}import numpy
import openvino
import openvino_genai
from PIL import Image

scheduler = openvino_genai.SchedulerConfig()
scheduler.enable_prefix_caching = False
scheduler.num_kv_blocks = {blocks}  # {context} tokens
pipeline = openvino_genai.VLMPipeline(
    "model", "CPU", scheduler_config=scheduler, KV_CACHE_PRECISION="{recipe.kv}"
)
pixels = numpy.array(Image.open("picture.jpg").convert("RGB"))
picture = openvino.Tensor(pixels[None])
answer = pipeline.generate("What is in this picture?", images=[picture], max_new_tokens=200)
print(answer.texts[0])
```

`VLMPipeline.generate` applies the chat template itself. {limit}{_SERVER}
`{before}{_OVMS}`.
"""
