"""An OpenVINO folder that somebody else wrote, offered as it is: its own types, its own bytes.

Importing this imports no engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packager.checkpoint.folder import read_json
from packager.checkpoint.kinds import check_config
from packager.errors import bad_input, usage
from packager.escapes import line
from packager.json_values import JsonDict, JsonObject, at_or_none
from packager.plan.adopted import Adopted, grade_of, mixture_of
from packager.plan.converted import TEXTS, files_of, has_template
from packager.plan.converted_folder import CopiesAFolder, SizedByFiles, describe_converted
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.recipe import Recipe
from packager.runtime import Report
from packager.shape import Shape, TensorSpec
from targets.openvino import OpenVino, data, given, sizes
from targets.openvino.given import Graph

MAIN = "openvino_model.xml"
_WEIGHTS = "openvino_model.bin"
_NEEDED = (
    *(MAIN, _WEIGHTS, "config.json"),
    *(
        f"openvino_{part}.{ending}"
        for part in ("tokenizer", "detokenizer")
        for ending in ("xml", "bin")
    ),
)
MIXED = "mixed"
_GET_AGAIN = "Get the folder again, or export the checkpoint with `build`."
_LONGEST = 200


@dataclass(frozen=True)
class Given(SizedByFiles):
    """A folder that was looked at: its files by name, the decoder that config.json describes, its
    graph, and the recipe that every matrix follows, None for a mixture of its own."""

    folder: Path
    files: Mapping[str, Path]
    shape: Shape
    graph: Graph
    known: Recipe | None

    @property
    def weights(self) -> int:
        """Bytes of the constants."""
        return self.files[_WEIGHTS].stat().st_size

    @property
    def types(self) -> dict[str, int]:
        """Matrices by how they are stored, the most frequent first."""
        least = min(spec.elements for spec in _expected(self.shape))
        large = [row.mode for row in self.graph.matrices if row.elements >= least]
        return dict(Counter(large).most_common())

    @property
    def bits_per_weight(self) -> float:
        """Of the whole model."""
        return 8 * self.weights / self.shape.parameters()


@dataclass(frozen=True, slots=True)
class _Constant:
    """A matrix that the shape calls for: all its numbers, how it is stored for a recipe, and how
    many there are."""

    elements: int
    columns: int
    spec: TensorSpec
    count: int


def adopt(folder: Path) -> Adopted:
    """The model in that folder. Raises PackError as packager.plan.adopted.Adopts."""
    own = read_folder(folder)
    runtime: Any = AdoptedOpenVino(own)
    return Adopted(
        runtime=runtime,
        recipe=recipe_of(own),
        shape=own.shape,
        files=tuple(own.files.values()),
        name=folder.name,
        kind="openvino",
        describe="targets.openvino.adopted:describe_folder",
        attest="targets.openvino.attest:attest",
        model_types=(own.shape.model_type,),
        chats=has_template(own.files),
        says=_says(own.graph.info, read_json(own.files["config.json"])),
        types=own.types,
        # Without an output matrix a graph does not tell whether its checkpoint has one.
        untold=frozenset(["tied"] if own.graph.pools else []),
    )


def describe_folder(report: Report, *, files: list[str], out: str) -> JsonObject:
    """A job: write the texts of a checkpoint into `out`, see packager.plan.converted.describe."""
    own = read_folder(Path(files[0]).parent)
    config = read_json(own.files["config.json"])
    return describe_converted(own, config, {}, report, Path(out))


def read_folder(folder: Path) -> Given:
    """Look at a folder. Raises PackError (exit code 6) for what is no model, and for what no engine
    should be shown."""
    files = files_of(folder, _NEEDED, TEXTS, "openvino")
    config = read_json(files["config.json"])
    check_config(files["config.json"], config)
    shape = Shape.from_config(config, str(files["config.json"]))
    if OpenVino().obstacle(shape, data.recipes()[0]) is not None:
        raise bad_input(
            f"{folder} is a {shape.model_type}, which OpenVINO does not run here.", _GET_AGAIN
        )
    graph = given.read(files[MAIN])
    if graph.pools:
        # Vectors and scores alike: nothing is left of an output matrix.
        shape = shape.for_task("embed")
    else:
        _refuse_stateless(folder, shape, graph)
    _refuse_another(folder, shape, graph)
    return Given(folder, files, shape, graph, _known(shape, graph))


def _expected(shape: Shape) -> list[_Constant]:
    """All but those of one row, which some recipes store as vectors: the gate of a shared
    expert."""
    return [
        _Constant(
            part.spec.elements * part.copies // part.constants,
            part.spec.shape[-1],
            part.spec,
            part.constants,
        )
        for part in sizes.parts(shape)
        if part.is_matrix and part.spec.shape[0] > 1
    ]


def _refuse_stateless(folder: Path, shape: Shape, graph: Graph) -> None:
    """Raise PackError (exit code 6) for a graph that makes text and that no session here can
    run."""
    if not {"input_ids", "attention_mask", "beam_idx"} <= graph.inputs or not graph.states:
        raise bad_input(
            f"{folder / MAIN} keeps no cache in its states, which openvino-genai needs.",
            "Export it as text-generation-with-past, with its state; build an embedder or a "
            "reranker from its checkpoint.",
        )
    if graph.states != 2 * shape.layers:
        raise bad_input(
            f"{folder / MAIN} has a cache of {graph.states // 2} layers, and config.json describes "
            f"{shape.layers}.",
            _GET_AGAIN,
        )


def _refuse_another(folder: Path, shape: Shape, graph: Graph) -> None:
    """Raise PackError (exit code 6) for a graph that is not the decoder of config.json."""
    wanted = Counter[int]()
    for constant in _expected(shape):
        wanted[constant.elements] += constant.count
    there = graph.by_elements
    short = next((size for size, count in wanted.items() if there.get(size, 0) < count), None)
    if short is not None:
        raise bad_input(
            f"{folder / MAIN} does not hold the decoder that config.json describes: it has "
            f"{there.get(short, 0)} matrices of {short} numbers instead of {wanted[short]}.",
            _GET_AGAIN,
        )
    # The embedding of a tied decoder may be stored twice; a matrix of one row is not counted.
    twice = shape.vocab * shape.hidden if shape.tied else None
    quantized = {row.elements for row in graph.matrices if row.per_scale} - {twice, shape.hidden}
    more = next((size for size in sorted(quantized) if there[size] > wanted[size]), None)
    if more is not None:
        raise bad_input(
            f"{folder / MAIN} holds more than the decoder that config.json describes: "
            f"{there[more]} matrices of {more} numbers instead of {wanted[more]}.",
            _GET_AGAIN,
        )


def _known(shape: Shape, graph: Graph) -> Recipe | None:
    """The recipe that every matrix follows, whatever the folder says of itself."""
    expected = _expected(shape)
    sizes_wanted = {constant.elements for constant in expected}
    have = Counter(
        (row.elements, row.bits, row.per_scale, row.zero_points)
        for row in graph.matrices
        if row.elements in sizes_wanted
    )
    kinds = {row.kind for row in graph.matrices if row.elements in sizes_wanted}
    for recipe in data.recipes():
        compression = data.compression_of(recipe)
        would = Counter[tuple[int, int | None, int, bool]]()
        for constant in expected:
            how = sizes.storage(constant.spec, compression)
            group = 0 if how.bits == 16 else how.group or constant.columns
            row = (constant.elements, how.bits, group, how.zero_points or how.ggml)
            would[row] += constant.count
        if have == would and not (compression is None and kinds - {"bf16", "f16"}):
            return recipe
    return None


def recipe_of(own: Given) -> Recipe:
    """The folder's own: one of those that are built here, or its own mixture."""
    settings: JsonDict = {
        "adopted": True,
        "types": own.types,
        "bits_per_weight": round(own.bits_per_weight, 4),
    }
    if own.known is not None:
        settings["compression"] = own.known.settings.get("compression")
        return replace(own.known, settings=settings)
    kv, bits = next(iter(data.kv_bits().items()))
    return Recipe(
        *("openvino", "openvino", MIXED, kv, bits, mixture_of(own.types)),
        settings=settings,
        grade=grade_of(own.bits_per_weight),
    )


class AdoptedOpenVino(CopiesAFolder, OpenVino):
    """The adapter with the one recipe of one folder; sizes are those of its files."""

    build_job = "packager.plan.converted:take"

    def __init__(self, own: Given) -> None:
        super().__init__()
        self.engine = OpenVino()
        self.own = own

    def recipes(self) -> Sequence[Recipe]:
        """The folder's own."""
        return [recipe_of(self.own)]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The folder's own, with that cache type. Raises PackError (usage) for another one."""
        own = recipe_of(self.own)
        if weights != own.weights:
            raise usage(
                f"{self.own.folder.name} is {own.id}, not openvino:{weights}.",
                "Leave --recipe out: the folder is taken as it is.",
            )
        if kv is None or kv == own.kv:
            return own
        known = super().recipe(data.recipes()[0].weights, kv)
        return own.with_kv(kv, known.kv_bits)

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """No other shape."""
        if replace(shape, context=0) != replace(self.own.shape, context=0):
            return f"{self.own.folder.name} holds another decoder."
        return None

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Of the recipe that is nearest, with the weights of the file."""
        near = super().footprint(shape, self._near(recipe), context)
        return replace(near, weights=2 * self.own.weights)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """The file once, but for the rows of an embedding that are not looked up; and the cache."""
        near = sizes.totals(shape, data.compression_of(self._near(recipe)))
        read = self.own.weights * near.read // near.stored
        return read + sizes.cache_bytes(shape, recipe.kv, context)

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """Of the recipe that is nearest."""
        return super().speed(shape, self._near(recipe), isa)

    def _near(self, recipe: Recipe) -> Recipe:
        """The recipe built here whose size is nearest to the file's, with that cache type."""
        if self.own.known is not None:
            near = self.own.known
        else:
            shape, weights = self.own.shape, self.own.weights
            near = min(
                data.recipes(),
                key=lambda row: abs(sizes.totals(shape, data.compression_of(row)).stored - weights),
            )
        return near if recipe.kv == near.kv else near.with_kv(recipe.kv, recipe.kv_bits)


_SAID = {
    "nncf": "nncf/version",
    "optimum_intel": "optimum/optimum_intel_version",
    "openvino": "Runtime_version",
    "mode": "nncf/weight_compression/mode",
    "group_size": "nncf/weight_compression/group_size",
    "ratio": "nncf/weight_compression/ratio",
    "awq": "nncf/weight_compression/awq",
    "gptq": "nncf/weight_compression/gptq",
    "scale_estimation": "nncf/weight_compression/scale_estimation",
}


def _says(info: Mapping[str, str], config: JsonObject) -> JsonObject:
    """The folder's own words about itself: what NNCF and optimum-intel wrote into the graph."""
    told = {name: info.get(key) for name, key in _SAID.items()}
    name = at_or_none(config, "_name_or_path", str)
    # A name of the hub, and no path of the machine that exported it.
    if name is not None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        told["repo"] = name
    return {key: line(text)[:_LONGEST] for key, text in told.items() if text is not None}
