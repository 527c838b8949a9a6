"""OpenVINO: weights compressed by NNCF, run by openvino-genai on the CPU. Importing this imports no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packager.errors import usage
from packager.memory import Footprint
from packager.names import did_you_mean
from packager.recipe import Recipe
from packager.runtime import BuildNeeds
from packager.shape import Shape
from targets.openvino import data, sizes

# What optimum-intel 2.1 exports with the transformers versions that qwen-pack installs with it; its other Qwen exporters
# want older ones. Source: MIN/MAX_TRANSFORMERS_VERSION in optimum/exporters/openvino/model_configs.py.
_BUILDABLE = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")


class OpenVino:
    """The adapter that the registry finds; see packager.runtime.Runtime."""

    name = "openvino"
    prefix = "openvino"
    extra = "openvino"
    distributions = ("openvino", "openvino-genai", "openvino-tokenizers", "optimum-intel", "nncf", "transformers", "torch")
    build_job = "targets.openvino.convert:convert"
    session = "targets.openvino.session:OpenVinoSession"
    context_in_artifact = False

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the default cache type, best quality first."""
        return data.recipes()

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the nearest."""
        known = {recipe.weights: recipe for recipe in data.recipes()}
        if weights not in known:
            raise usage(f"OpenVINO has no recipe {weights!r}.{did_you_mean(weights, known)}", f"Known: {', '.join(known)}.")
        if kv is None or kv == known[weights].kv:
            return known[weights]
        bits = data.kv_bits()
        if kv not in bits:
            raise usage(f"OpenVINO has no cache type {kv!r}.{did_you_mean(kv, bits)}", f"Known: {', '.join(bits)}.")
        return known[weights].with_kv(kv, bits[kv])

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        if shape.model_type in _BUILDABLE:
            return None
        return f"The OpenVINO exporter builds {', '.join(_BUILDABLE)} with the versions qwen-pack installs; this one is {shape.model_type}."

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """Weights to the byte, the graph and the tokenizers within a few kilobytes."""
        compression = recipe.settings["compression"]
        costs = data.costs()
        return sizes.totals(shape, compression).stored + costs.graph_bytes(shape, compression) + costs.tokenizer_bytes(shape.vocab)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes with the whole context answered: weights mapped from the file and repacked beside, blocks of cache."""
        return data.costs().footprint(shape, recipe, context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Weights once and the cache once."""
        cache = sizes.cache_bytes(shape, recipe.kv, context)
        return sizes.totals(shape, recipe.settings["compression"]).read + cache

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """The export holds the checkpoint and the traced graph at once, and writes the graph in 16 bits before it compresses it."""
        checkpoint = 2 * shape.parameters()
        return BuildNeeds(data.costs().build_memory(checkpoint), checkpoint + self.artifact_bytes(shape, recipe))

    def how_to_run(self, recipe: Recipe, workload: Mapping[str, Any]) -> str:
        """Markdown with commands that need openvino-genai alone."""
        return f"""With Python, `pip install openvino-genai`:

```python
import openvino_genai

scheduler = openvino_genai.SchedulerConfig()
scheduler.enable_prefix_caching = False
scheduler.num_kv_blocks = {sizes.cache_blocks(workload["context"])}  # {workload["context"]} tokens
pipeline = openvino_genai.LLMPipeline("model", "CPU", scheduler_config=scheduler, KV_CACHE_PRECISION="{recipe.kv}")
print(pipeline.generate(["What is the capital of France?"], max_new_tokens=200).texts[0])
```

`LLMPipeline.generate` applies the chat template itself. As a server that speaks OpenAI's protocol, the folder
serves as it is with OpenVINO Model Server: `ovms --rest_port 8000 --model_name qwen --model_path model --task text_generation`.
"""
