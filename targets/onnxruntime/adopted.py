"""A folder of onnxruntime-genai that somebody else wrote, offered as it is: its own types, its own
bytes.

Importing this imports onnx.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packager.checkpoint.folder import read_json
from packager.errors import bad_input, usage
from packager.inspection.unsafe import shown
from packager.json_values import JsonDict, JsonObject, at_or_none, object_at, object_or_empty
from packager.limits import LAYERS
from packager.plan.adopted import Adopted, grade_of, mixture_of
from packager.plan.converted import TEXTS, files_of, has_template
from packager.plan.converted_folder import CopiesAFolder, SizedByFiles, describe_converted
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint, kv_bits
from packager.recipe import Recipe
from packager.runtime import Report
from packager.shape import Shape
from targets.onnxruntime import OnnxRuntime, data, given, obstacles, providers, sizes
from targets.onnxruntime.distributions import engine_distributions
from targets.onnxruntime.given import Graph, Matrix
from targets.onnxruntime.quantization import PRECISIONS, PROVIDERS, Settings

MAIN = "genai_config.json"
GRAPH, _WEIGHTS = "model.onnx", "model.onnx.data"
_NEEDED = (MAIN, GRAPH, _WEIGHTS)
_OWN = frozenset(TEXTS) - {"config.json", "generation_config.json"}
"""Texts that the engine reads; its configuration stands for the others."""
MIXED = "mixed"
_MOST = (1 << 31) - 1
_GET_AGAIN = "Get the folder again, or build it from the checkpoint."


@dataclass(frozen=True)
class Given(SizedByFiles):
    """A folder that was looked at: its files by name, genai_config.json, the decoder, its graph,
    the provider that it asks for, and the recipe that every matrix follows, None for a mixture of
    its own."""

    folder: Path
    files: Mapping[str, Path]
    config: JsonObject
    shape: Shape
    graph: Graph
    provider: str
    known: Recipe | None

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.files[_WEIGHTS].stat().st_size

    @property
    def types(self) -> dict[str, int]:
        """Matrices by how they are stored, the most frequent first."""
        own = [self.graph.embedding] if self.graph.embedding else []
        return dict(Counter(row.mode for row in (*self.graph.products, *own)).most_common())

    @property
    def bits_per_weight(self) -> float:
        """Of the matrices of products, scales and zero points counted."""
        weights = sum(row.rows * row.columns for row in self.graph.products)
        return _product_bits(self.graph) / weights


def adopt(folder: Path) -> Adopted:
    """The model in that folder. Raises PackError as packager.plan.adopted.Adopts."""
    own = read_folder(folder)
    runtime: Any = AdoptedOnnx(own)
    return Adopted(
        runtime=runtime,
        recipe=recipe_of(own),
        shape=own.shape,
        files=tuple(own.files.values()),
        name=folder.name,
        kind="onnx",
        describe="targets.onnxruntime.adopted:describe_folder",
        attest="targets.onnxruntime.attest:attest",
        model_types=(own.shape.model_type,),
        chats=has_template(own.files),
        says={"provider": own.provider, "precision": own.graph.precision},
        types=own.types,
        # A builder may leave a tied decoder with an embedding of its own.
        untold=frozenset() if own.shape.tied else frozenset(["tied"]),
    )


def describe_folder(report: Report, *, files: list[str], out: str) -> JsonObject:
    """A job: write the texts of a checkpoint into `out`, see packager.plan.converted.describe."""
    own = read_folder(Path(files[0]).parent)
    config: JsonDict = dict(own.shape.to_config())
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        config.pop(key, None)
    return describe_converted(own, config, _generation(own), report, Path(out))


def read_folder(folder: Path) -> Given:
    """Look at a folder. Raises PackError (exit code 6) for what is no model, and for what no engine
    should be shown."""
    files = files_of(folder, _NEEDED, sorted(_OWN), "onnxruntime")
    config = read_json(files[MAIN])
    path = files[MAIN]
    try:
        provider = providers.of(config)
        decoder = object_at(object_at(config, "model"), "decoder")
    except (KeyError, TypeError, ValueError):
        raise bad_input(f"{path} is not a configuration of a decoder.", _GET_AGAIN) from None
    if at_or_none(decoder, "filename", str) != GRAPH:
        raise bad_input(
            f"{path} names {shown(decoder.get('filename'))} as its graph, not {GRAPH}.",
            "Give the graph that name, as the model builder does.",
        )
    if provider not in PROVIDERS:
        raise bad_input(
            f"{path} asks for the provider {shown(provider)}, which is not built for here.",
            f"Known: {', '.join(PROVIDERS)}.",
        )
    graph = given.read(files[GRAPH])
    if graph.precision not in PRECISIONS:
        raise bad_input(
            f"{files[GRAPH]} computes in {graph.precision}, which no session here reads.",
            f"Known: {', '.join(PRECISIONS)}.",
        )
    shape = _shape(path, object_at(config, "model"), decoder, graph)
    obstacle = obstacles.of_shape(shape)
    if obstacle is not None:
        raise bad_input(f"{folder} cannot be run: {obstacle}", "Take another model.")
    _refuse_another(files[GRAPH], shape, graph)
    return Given(folder, files, config, shape, graph, provider, _known(shape, graph, provider))


def _shape(path: Path, model: JsonObject, decoder: JsonObject, graph: Graph) -> Shape:
    """The decoder that genai_config.json describes; what it leaves out is told by the graph."""

    def number(table: JsonObject, key: str, most: int = _MOST) -> int:
        value = table.get(key)
        if type(value) is not int or not 0 < value <= most:
            raise bad_input(
                f"{path} has {shown(value)} as {key}, where a positive whole number belongs.",
                _GET_AGAIN,
            )
        return value

    kind = str(model.get("type"))
    if kind not in ("qwen2", "qwen3"):
        raise bad_input(f"{path} describes a {shown(kind)}, which is not a Qwen2 or a Qwen3.")
    down = next((row for row in graph.products if "/mlp/down_proj/" in row.name), None)
    if down is None:
        raise bad_input(f"{path.with_name(GRAPH)} has no feed-forward layers.", _GET_AGAIN)
    return Shape(
        model_type=kind,
        hidden=number(decoder, "hidden_size"),
        layers=number(decoder, "num_hidden_layers", LAYERS),
        heads=number(decoder, "num_attention_heads"),
        kv_heads=number(decoder, "num_key_value_heads"),
        head_dim=number(decoder, "head_size"),
        intermediate=down.columns,
        vocab=number(model, "vocab_size"),
        tied=graph.embedding is None,
        qkv_bias=graph.qkv_bias,
        qk_norm=graph.qk_norm,
        context=number(model, "context_length"),
    )


def _refuse_another(path: Path, shape: Shape, graph: Graph) -> None:
    """Raise PackError (exit code 6) for a graph that is not the decoder of genai_config.json."""
    own = Counter[int | None]()
    for row in graph.products:
        own[row.layer] += row.rows * row.columns
    layer = sum(rows * columns for _, rows, columns in sizes.matrices(shape))
    outer = shape.vocab * shape.hidden
    wanted: dict[int | None, int] = {None: outer, **dict.fromkeys(range(shape.layers), layer)}
    wrong = [key for key in {**wanted, **own} if own[key] != wanted.get(key, 0)]
    if wrong:
        where = "its output" if wrong[0] is None else f"layer {wrong[0]}"
        raise bad_input(
            f"{path} does not hold the decoder that genai_config.json describes: {where} has "
            f"{own[wrong[0]]} weights instead of {wanted.get(wrong[0], 0)}.",
            _GET_AGAIN,
        )
    embedding = graph.embedding
    if embedding is not None and embedding.rows * embedding.columns != outer:
        raise bad_input(
            f"{path} looks tokens up in {embedding.rows} rows of {embedding.columns}, not in "
            f"{shape.vocab} of {shape.hidden}.",
            _GET_AGAIN,
        )


def _known(shape: Shape, graph: Graph, provider: str) -> Recipe | None:
    """The recipe that every matrix follows. How the numbers of a block were found, by rounding or
    by a search, no graph tells: of two such recipes it is the one that rounds."""
    for recipe in sorted(data.recipes(), key=_searches):
        settings = data.settings_of(recipe)
        if (settings.provider, settings.precision) == (provider, graph.precision) and all(
            _follows(shape, row, settings) for row in graph.products
        ):
            return recipe if _looks_up(shape, graph.embedding, settings) else None
    return None


def _searches(recipe: Recipe) -> bool:
    quantization = data.settings_of(recipe).quantization
    return quantization is not None and quantization.method != "rtn"


def _follows(shape: Shape, row: Matrix, settings: Settings) -> bool:
    how = settings.quantization
    if how is None:
        return row.kind == settings.precision
    bits = how.bits_of(shape.layers, row.layer, row.matrix)
    return (row.bits, row.block, row.zero_points, row.accuracy_level) == (
        *(bits, how.block, how.zero_points, how.accuracy_level),
    )


def _looks_up(shape: Shape, embedding: Matrix | None, settings: Settings) -> bool:
    if embedding is None:
        return sizes.shares_embedding(shape)
    how = settings.quantization
    if how is None or not sizes.quantizes_embedding(settings):
        return embedding.kind == settings.precision
    return (embedding.bits, embedding.block, embedding.zero_points) == (
        *(4, how.block, how.zero_points),
    )


def _bits(row: Matrix, precision: str) -> float:
    """Of one weight, with its share of scale and zero point."""
    if not row.block:
        return row.bits
    scale = 8 * PRECISIONS[precision]
    return row.bits + (scale + (row.bits if row.zero_points else 0)) / row.block


def _product_bits(graph: Graph) -> float:
    return sum(_bits(row, graph.precision) * row.rows * row.columns for row in graph.products)


def recipe_of(own: Given) -> Recipe:
    """The folder's own: one of those that are built here, or its own mixture."""
    near = _near(own)
    settings: JsonDict = {
        **near.settings,
        "provider": own.provider,
        "precision": own.graph.precision,
        "adopted": True,
        "types": own.types,
        "bits_per_weight": round(own.bits_per_weight, 4),
    }
    if settings["quantization"] is not None:
        quantization = object_at(settings, "quantization")
        settings["quantization"] = {
            key: value for key, value in quantization.items() if key != "method"
        }
    if own.known is not None:
        return replace(near, settings=settings)
    kv = "f32" if PRECISIONS[own.graph.precision] == 4 else "f16"
    return Recipe(
        *(data.NAME, data.PREFIX, MIXED, kv, kv_bits(kv), mixture_of(own.types)),
        settings=settings,
        provider=own.provider,
        grade=grade_of(own.bits_per_weight),
    )


def _near(own: Given) -> Recipe:
    """The recipe built here that the folder follows, or that has about as many bits."""
    if own.known is not None:
        return own.known
    same = [row for row in data.recipes() if row.provider == own.provider]

    def distance(recipe: Recipe) -> float:
        how = data.settings_of(recipe).quantization
        bits = 8 * data.settings_of(recipe).number_bytes if how is None else how.bits
        return abs(bits - own.bits_per_weight)

    return min(same or data.recipes(), key=distance)


class AdoptedOnnx(CopiesAFolder, OnnxRuntime):
    """The adapter with the one recipe of one folder; sizes are those of its files."""

    build_job = "packager.plan.converted:take"
    context_in_artifact = False

    def __init__(self, own: Given) -> None:
        super().__init__()
        self.engine = OnnxRuntime()
        self.distributions = (*engine_distributions(), "onnx")
        self.own = own

    def recipes(self) -> Sequence[Recipe]:
        """The folder's own."""
        return [recipe_of(self.own)]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The folder's own. Raises PackError (usage) for another one."""
        own = recipe_of(self.own)
        if weights != own.weights or kv not in (None, own.kv):
            raise usage(
                f"{self.own.folder.name} is {own.id} with a cache of {own.kv}.",
                "Leave --recipe and the cache type out: the folder is taken as it is.",
            )
        return own

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """No other shape."""
        own = replace(self.own.shape, context=0, tied=shape.tied)
        if replace(shape, context=0) != own:
            return f"{self.own.folder.name} holds another decoder."
        return None

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Of the recipe that is nearest, with the weights of the file."""
        near = _near(self.own)
        found = super().footprint(shape, near, context)
        more = self.own.weights - sizes.weight_bytes(shape, data.settings_of(near))
        return replace(found, weights=max(found.weights + more, self.own.weights))

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """The matrices of products once, and the cache."""
        weights = _product_bits(self.own.graph) / 8
        return int(weights) + data.cache_bytes(shape, recipe, context)

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """Of the recipe that is nearest."""
        return super().speed(shape, _near(self.own), isa)


_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def _generation(own: Given) -> JsonObject:
    """What ends a turn, and the sampling where the folder asks for any, as generation_config.json
    has them."""
    model, search = object_at(own.config, "model"), object_or_empty(own.config, "search")
    ends = model.get("eos_token_id")
    if ends is None:
        raise bad_input(f"{own.files[MAIN]} names no end of a turn.", _GET_AGAIN)
    told: JsonDict = {"eos_token_id": ends}
    if search.get("do_sample") is True:
        told |= {"do_sample": True} | {key: search[key] for key in _SAMPLING if key in search}
    return told
