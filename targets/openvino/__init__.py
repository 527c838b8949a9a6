"""OpenVINO: weights compressed by NNCF or as ggml's blocks, run by openvino-genai on the CPU.
Importing this imports no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packager.errors import usage
from packager.json_values import JsonObject, at_or_none
from packager.names import did_you_mean
from packager.need.usecases import use_case
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.recipe import Recipe, repacked_recipe
from packager.runtime import BuildNeeds, Ladder, Tools
from packager.shape import FIRST_GENERATION, Shape, as_qwen2
from targets.openvino import data, hearing, seeing, sizes, speed

if TYPE_CHECKING:
    from packager.plan.adopted import Adopted
    from packager.records.contents import Minimum

# What optimum-intel 2.1 exports with the transformers versions that qwen-pack installs with it; its
# other Qwen exporters want older ones. Source: MIN/MAX_TRANSFORMERS_VERSION in
# optimum/exporters/openvino/model_configs.py.
_BUILDABLE = (*data.LIGHT, "qwen2_moe", "qwen3_moe")

_NO_PICTURES = (
    "OpenVINO takes pictures of {known} here, whose graphs qwen-pack writes; this one is {other}. "
    "llama.cpp takes pictures."
)
"""Why and what it would take: docs/decisions/openvino-pictures.md."""

_NO_SOUND = "OpenVINO writes down sound with {known} here, whose graphs qwen-pack writes; this one is {other}."

RETRIEVAL_TYPES = ("qwen3",)
"""Model types whose embedders and rerankers are built: published embedders of the others look both
ways."""

_TOOLS = Tools("openvino", ("openvino", "openvino-genai", "openvino-tokenizers", "nncf", "gguf"))
_EXPORTER = Tools(
    "openvino-optimum",
    (*_TOOLS.distributions, "optimum-intel", "transformers", "torch"),
    serves="mixtures of experts, by optimum-intel",
)


class OpenVino:
    """The adapter that the registry finds; see packager.runtime.Runtime."""

    name = "openvino"
    prefix = "openvino"
    extra = _TOOLS.extra
    distributions = _TOOLS.distributions
    more_tools = (_EXPORTER,)
    no_drafts = (
        "as it is started here the engine says other tokens where it checks several at once, with a "
        "cache in 8 bits and in 16"
    )
    build_job = "targets.openvino.convert:convert"
    session = "targets.openvino.session:OpenVinoSession"
    projector = seeing.MERGER
    vision_session = "targets.openvino.vision:VisionSession"
    pictures_on = ("cpu",)
    image_limit_in_artifact = True
    audio_projector = hearing.ENCODER
    audio_session = "targets.openvino.audio:AudioSession"
    sounds_on = ("cpu",)
    retrieval_session = "targets.openvino.retrieval:Session"
    adapter_job = "targets.openvino.adapter:build"
    adapter_file = "adapter_model.safetensors"
    context_in_artifact = False
    warm_start: Literal["file", "process"] = "process"

    def __init__(self, repack: bool = False, group: int | None = None) -> None:
        self._repack, self._group = repack, group
        # What is tried of an engine is made of a model of its own, which is not quantized.
        self.engine: OpenVino = OpenVino() if repack else self

    def with_repack(self, group: int | None = None) -> OpenVino:
        """An adapter whose recipes take over what a checkpoint stores in groups of 4 bits, `group`
        columns each where that is known."""
        return OpenVino(repack=True, group=group)

    def adapter_obstacle(self, settings: JsonObject, modality: str) -> str | None:
        """See packager.package.adapters.TakesSome."""
        reasons = {"vision": seeing.NO_ADAPTER, "audio": hearing.NO_ADAPTER}
        return reasons.get(modality)

    def ladder(self) -> Ladder:
        """See packager.runtime.Laddered."""
        return _ladder()

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """See packager.package.floor.HasFloor."""
        # Late, as the other readers of TOML that `fit` does without.
        from targets.openvino import floor

        return floor.minimum(artifact, shape)

    def adopt(self, place: Path) -> Adopted | None:
        """See packager.plan.adopted.Adopts."""
        # Late: most builds adopt nothing.
        from packager.plan.converted import folder_of
        from packager.process import resolve

        folder = folder_of(place, "openvino_model.xml")
        if folder is None:
            return None
        # By its name: it stands on this adapter.
        model: Adopted = resolve("targets.openvino.adopted:adopt")(folder)
        return model

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the default cache type, best quality first."""
        return [self._carried(recipe) for recipe in data.recipes()]

    def _carried(self, recipe: Recipe) -> Recipe:
        return repacked_recipe(recipe, self._group) if self._repack else recipe

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the
        nearest."""
        known = {recipe.weights: recipe for recipe in data.recipes()}
        refused = data.refused().get(weights.lower())
        if refused is not None:
            raise usage(
                f"OpenVINO does not build {weights!r}: {refused}.",
                f"Take q4_0, q8_0 or another of {', '.join(known)}.",
            )
        if weights not in known:
            raise usage(
                f"OpenVINO has no recipe {weights!r}.{did_you_mean(weights, known)}",
                f"Known: {', '.join(known)}.",
            )
        if kv is None or kv == known[weights].kv:
            return self._carried(known[weights])
        bits = data.kv_bits()
        if kv not in bits:
            raise usage(
                f"OpenVINO has no cache type {kv!r}.{did_you_mean(kv, bits)}",
                f"Known: {', '.join(bits)}.",
            )
        return self._carried(known[weights].with_kv(kv, bits[kv]))

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        if shape.vision is not None:
            return self._no_pictures(shape, recipe)
        if shape.audio is not None:
            return self._no_sound(shape, recipe)
        if as_qwen2(shape).model_type not in _BUILDABLE:
            known = ", ".join((FIRST_GENERATION, *_BUILDABLE))
            return (
                f"OpenVINO builds {known} with the versions qwen-pack installs; this one is "
                f"{shape.model_type}."
            )
        if shape.task != "generate" and shape.model_type not in RETRIEVAL_TYPES:
            return (
                f"OpenVINO makes vectors and scores of {', '.join(RETRIEVAL_TYPES)}; this one is "
                f"{shape.model_type}."
            )
        if self._repack and (
            as_qwen2(shape).model_type not in data.LIGHT or shape.task != "generate"
        ):
            known = ", ".join((FIRST_GENERATION, *data.LIGHT))
            return f"--repack takes the text models {known} alone with OpenVINO."
        if self._repack and data.blocks(recipe):
            return f"{recipe.weights} takes over ggml's blocks, and no groups of a checkpoint."
        if data.blocks(recipe):
            if as_qwen2(shape).model_type not in data.LIGHT:
                return (
                    f"openvino-genai reads ggml's blocks of {' and '.join(data.LIGHT)} alone; "
                    f"this one is {shape.model_type}."
                )
            if shape.hidden % sizes.GGML_BLOCK or shape.intermediate % sizes.GGML_BLOCK:
                return (
                    f"{recipe.weights} keeps blocks of {sizes.GGML_BLOCK}, which do not divide "
                    "the rows of this shape."
                )
        return None

    def _no_pictures(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why a vision tower cannot be built that way; None when it can."""
        if shape.model_type not in seeing.DECODERS:
            known = ", ".join(seeing.DECODERS)
            return _NO_PICTURES.format(known=known, other=shape.model_type)
        if data.blocks(recipe):
            return (
                f"{recipe.weights} keeps ggml's blocks, which OpenVINO reads of text models alone."
            )
        if self._repack:
            return "--repack takes text models alone with OpenVINO."
        return None

    def _no_sound(self, shape: Shape, recipe: Recipe) -> str | None:
        """The same of an audio encoder."""
        if shape.model_type not in hearing.DECODERS:
            return _NO_SOUND.format(known=", ".join(hearing.DECODERS), other=shape.model_type)
        if data.blocks(recipe):
            return (
                f"{recipe.weights} keeps ggml's blocks, which OpenVINO reads of text models alone."
            )
        if self._repack:
            return "--repack takes text models alone with OpenVINO."
        return None

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """Dense models need no torch; the others are exported by optimum-intel."""
        towers = shape.vision is not None or shape.audio is not None
        light = towers or as_qwen2(shape).model_type in data.LIGHT
        return _TOOLS if light else _EXPORTER

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """Weights to the byte, the graph and the tokenizers within a few kilobytes."""
        shape, compression, costs = as_qwen2(shape), data.compression_of(recipe), data.costs()
        if shape.vision is not None:
            return costs.seeing_bytes(shape, compression)
        if shape.audio is not None:
            return costs.hearing_bytes(shape, compression)
        return (
            sizes.totals(shape, compression).stored
            + costs.graph_bytes(shape, compression)
            + costs.tokenizer_bytes(shape.vocab)
        )

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes with the whole context answered: weights mapped from the file and repacked
        beside, blocks of cache."""
        return data.costs().footprint(as_qwen2(shape), recipe, context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Weights once and the cache once; nothing is decoded for a vector or a score."""
        cache = 0 if shape.task != "generate" else sizes.cache_bytes(shape, recipe.kv, context)
        text = as_qwen2(shape) if shape.vision is None else seeing.decoder_of(shape)
        text = text if shape.audio is None else hearing.decoder_of(shape)
        return sizes.totals(text, data.compression_of(recipe)).read + cache

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """By the width of the weights."""
        return speed.speed(shape, recipe, isa)

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """What stands in between: nothing, a GGUF and the graph made of it, or optimum-intel's
        graph in 16 bits; a rewritten checkpoint."""
        artifact = self.artifact_bytes(shape, recipe)
        checkpoint = 2 * shape.parameters()
        rewritten = checkpoint if shape.model_type == FIRST_GENERATION else 0
        shape = as_qwen2(shape)
        between = 0
        towers = shape.vision is not None or shape.audio is not None
        if not towers and shape.model_type not in data.LIGHT:
            between = checkpoint
        elif data.blocks(recipe):
            between = 2 * artifact
        return BuildNeeds(
            data.costs().build_memory(shape, recipe, artifact), artifact + between + rewritten
        )

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """All weights are one file."""
        return self.artifact_bytes(shape, recipe)

    def how_to_run(self, recipe: Recipe, workload: Mapping[str, Any]) -> str:
        """Markdown with commands that need openvino-genai alone."""
        variables = _variables(workload)
        capped = _capped(variables)
        task = use_case(at_or_none(workload, "use_case", str) or "chat").task
        if task != "generate":
            # Late: what a checkpoint says of its prompts is for a package's README alone.
            from targets.openvino import how_to_retrieve

            return how_to_retrieve.how_to_run(workload, task, capped)
        # Late as well.
        from targets.openvino import how_to_hear, how_to_see

        if how_to_hear.takes_sound(workload):
            return how_to_hear.how_to_run(recipe, workload, capped)
        before = "".join(f"{name}={value} " for name, value in variables.items())
        if how_to_see.takes_pictures(workload):
            return how_to_see.how_to_run(recipe, workload, capped, before)
        return f"""With Python, `pip install openvino-genai`:

```python
{capped}import openvino_genai

scheduler = openvino_genai.SchedulerConfig()
scheduler.enable_prefix_caching = False
scheduler.num_kv_blocks = {sizes.cache_blocks(workload["context"])}  # {workload["context"]} tokens
pipeline = openvino_genai.LLMPipeline("model", "CPU", scheduler_config=scheduler, KV_CACHE_PRECISION="{recipe.kv}")
print(pipeline.generate(["What is the capital of France?"], max_new_tokens=200).texts[0])
```

`LLMPipeline.generate` applies the chat template itself. As a server that speaks OpenAI's protocol, the folder
serves as it is with OpenVINO Model Server: `{before}ovms --rest_port 8000 --model_name qwen --model_path model --task text_generation`.
"""

    def how_to_add(self, models: Sequence[str], adapter: str, workload: JsonObject) -> str:
        """See packager.package.adapters.Adapts."""
        return f"""With Python, `pip install openvino-genai`:

```python
{_capped(_variables(workload))}import openvino_genai

adapters = openvino_genai.AdapterConfig(openvino_genai.Adapter("{adapter}"))
pipeline = openvino_genai.LLMPipeline("BASE/model", "CPU", adapters=adapters)
print(pipeline.generate(["What is the capital of France?"], max_new_tokens=200).texts[0])
```"""


def _variables(workload: Mapping[str, Any]) -> Mapping[str, str]:
    """The variables with which the engine is started."""
    return dict((workload.get("settings") or {}).get("variables", {}))


def _capped(variables: Mapping[str, str]) -> str:
    """Lines of Python that set them; nothing where there are none."""
    lines = "".join(f'os.environ["{name}"] = "{value}"\n' for name, value in variables.items())
    return f"import os\n\n{lines.rstrip()}  # before the engine is loaded\n\n" if lines else ""


@cache
def _ladder() -> Ladder:
    from packager.engine_check.ladder import read

    return read(Path(__file__).with_name("ladder.toml"))
