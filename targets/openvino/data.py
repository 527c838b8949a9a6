"""The recipes and the engine's costs, read from the TOML files beside this module and checked."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import msgspec

from packager.json_values import JsonObject, at, at_or_none, object_at, object_or_empty, texts_at
from packager.predict.memory import Footprint
from packager.recipe import Recipe, repacked_group
from packager.remembered import last_answer
from packager.shape import Shape
from packager.shape.audio import CHUNK_TOKENS, WINDOW_CHUNKS
from packager.shape.tower import MERGE, WINDOWED
from targets.openvino import audio_sizes, hearing, seeing, sizes, tower_sizes
from targets.openvino.sizes import Compression

_FOLDER = Path(__file__).parent

LIGHT = ("qwen2", "qwen3")
"""Model types whose graph openvino-genai makes itself; the others are exported by optimum-intel,
which takes torch."""


@cache
def _read(name: str) -> JsonObject:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every recipe with the default cache type, best quality first."""
    kv, bits = next(iter(kv_bits().items()))
    weights = object_at(_read("recipes.toml"), "weights")
    rows = {name: object_at(weights, name) for name in weights}
    return tuple(
        Recipe(
            *("openvino", "openvino", name, kv, bits, at(row, "summary", str)),
            settings={"compression": row.get("compression")},
            grade=f"{re.findall('[0-9]+', name)[0]}-bit",
        )
        for name, row in rows.items()
    )


@last_answer
def compression_of(recipe: Recipe) -> Compression | None:
    """The settings of a recipe for OVWeightQuantizationConfig, or the ggml type whose blocks are
    taken over; with `repack` the columns of a checkpoint's groups that are. None where nothing is
    compressed."""
    compression = object_or_empty(recipe.settings, "compression")
    group = repacked_group(recipe)
    return {**compression, "repack": group} if group else compression or None


@cache
def refused() -> dict[str, str]:
    """Types of ggml that are not built, and why."""
    reasons = object_at(_read("recipes.toml"), "refused")
    return {name: reason for reason in reasons for name in texts_at(reasons, reason)}


def blocks(recipe: Recipe) -> str | None:
    """The ggml type whose blocks openvino-genai takes over; None where NNCF compresses, or
    nobody."""
    return at_or_none(compression_of(recipe) or {}, "blocks", str)


@cache
def kv_bits() -> dict[str, float]:
    """Cache types and their bits per element, scales counted, the default first."""
    types = object_at(_read("recipes.toml"), "kv")
    return {name: at(object_at(types, name), "bits", float) for name in types}


@dataclass(frozen=True, slots=True)
class Costs:
    """What the engine costs beside the weights, in bytes; the fields are the tables of
    costs.toml."""

    graph: dict[str, dict[str, int]]
    graph_per_matrix: dict[str, int]
    tokenizer: dict[str, float]
    overhead: dict[str, int]
    compute: dict[str, float]
    retrieval: dict[str, float]
    tower: dict[str, float]
    audio: dict[str, float]
    build: dict[str, dict[str, float]]

    def graph_bytes(self, shape: Shape, compression: Compression | None) -> int:
        """Size of openvino_model.xml."""
        kind = "" if shape.task == "generate" else "_retrieval"
        row = self.graph[f"{shape.model_type}{kind}"]
        modes = sizes.totals(shape, compression).modes
        return (
            row["base"]
            + row["per_layer"] * shape.layers
            + sum(self.graph_per_matrix[mode] * count for mode, count in modes.items())
        )

    def seeing_bytes(self, shape: Shape, compression: Compression | None) -> int:
        """Size of an artifact with a vision tower: decoder, embedding, tower, tokenizer."""
        text, tower = seeing.decoder_of(shape), tower_sizes.beside(shape, compression)
        stored = tower_sizes.decoder_bytes(text, compression) + tower.embedding + tower.tower
        return stored + self.seeing_graphs(shape, compression) + self.tokenizer_bytes(text.vocab)

    def seeing_graphs(self, shape: Shape, compression: Compression | None) -> int:
        """Sizes of the graphs of an artifact with a vision tower."""
        vision, row = shape.vision, self.tower
        assert vision is not None
        text, beside = seeing.decoder_of(shape), tower_sizes.beside(shape, compression)
        blocks = row[f"graph_per_layer_{vision.generation}"] * vision.depth
        mergers = row["graph_per_merger"] * (1 + len(vision.deepstack))
        compressed = 0
        if compression is not None:
            eight = tower_sizes.eight_bits(compression)
            mode = "int8_sym" if eight["sym"] else "int8_asym"
            # The embedding is one more.
            compressed = self.graph_per_matrix[mode] * (beside.matrices + 1)
        around = row["graph"] + blocks + mergers + compressed
        return self.graph_bytes(text, compression) + ceil(around)

    def hearing_bytes(self, shape: Shape, compression: Compression | None) -> int:
        """Size of an artifact with an audio encoder: decoder, encoder, tokenizer."""
        assert shape.audio is not None
        text = hearing.decoder_of(shape)
        stored = sizes.totals(text, compression).stored
        stored += audio_sizes.encoder(shape.audio, compression).stored
        return stored + self.hearing_graphs(shape, compression) + self.tokenizer_bytes(text.vocab)

    def hearing_graphs(self, shape: Shape, compression: Compression | None) -> int:
        """Sizes of the graphs of an artifact with an audio encoder."""
        assert shape.audio is not None
        row, own = self.audio, audio_sizes.encoder(shape.audio, compression)
        encoder = row["graph"] + row["graph_per_layer"] * shape.audio.depth
        if compression is not None:
            eight = tower_sizes.eight_bits(compression)
            mode = "int8_sym" if eight["sym"] else "int8_asym"
            encoder += self.graph_per_matrix[mode] * own.matrices
        return self.graph_bytes(hearing.decoder_of(shape), compression) + ceil(encoder)

    def tokenizer_bytes(self, vocab: int) -> int:
        """Size of the tokenizer, the detokenizer and the small JSON files."""
        return ceil(self.tokenizer["fixed"] + self.tokenizer["per_token"] * vocab)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes when the whole context is answered.

        The plug-in repacks every matrix at the first token, and the mapped file it came from stays
        resident beside it.
        """
        compression = compression_of(recipe)
        if shape.task != "generate":
            return self._of_whole_texts(shape, compression, context)
        if shape.vision is not None:
            return self._seeing(shape, recipe, context)
        if shape.audio is not None:
            return self._hearing(shape, recipe, context)
        compute = self.compute
        kv_width = shape.kv_heads * shape.head_dim
        chunk = min(context, compute["chunk_tokens"]) * _width(shape) * compute["per_intermediate"]
        unpacked = context * (
            compute["per_context_token"] + compute["per_context_kv_element"] * kv_width
        )
        return Footprint(
            weights=2 * sizes.totals(shape, compression).stored,
            kv_cache=sizes.cache_bytes(shape, recipe.kv, context),
            compute=ceil(chunk + unpacked),
            overhead=self._overhead(shape, compression),
        )

    def _seeing(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Of a decoder with its vision tower, which the pipeline opens together, and a picture of
        `image_tokens`: the mask of all its patches against all, what stands between the layers of
        the tower, and what the decoder is given."""
        vision, row, compression = shape.vision, self.tower, compression_of(recipe)
        assert vision is not None
        text = self.footprint(seeing.decoder_of(shape), recipe, context)
        beside = tower_sizes.beside(shape, compression)
        decoder = tower_sizes.decoder_bytes(seeing.decoder_of(shape), compression)
        patches = shape.image_tokens * MERGE * MERGE
        masks = 2 if vision.generation in WINDOWED else 1
        per_width = row["per_patch_and_width"]
        per_width += row["per_position_and_width"] if vision.positions else 0
        picture = (
            row["per_pair_of_patches"] * masks * patches**2
            + per_width * vision.hidden * patches
            + row["per_pixel"] * shape.image_tokens * vision.pixels_per_token**2
        )
        overhead = row["overhead_per_layer"] * vision.depth
        overhead += row["overhead_per_deepstack"] * len(vision.deepstack)
        overhead += self.overhead["per_matrix"] * beside.matrices
        overhead += self.overhead["per_scale"] * beside.scales
        overhead += self.overhead["per_zero_point"] * beside.zero_points
        return Footprint(
            weights=2 * (decoder + beside.tower),
            kv_cache=text.kv_cache,
            compute=text.compute + ceil(picture),
            overhead=text.overhead + ceil(overhead),
        )

    def _hearing(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Of a decoder with its audio encoder, which a session opens with the first sound: planes
        of the convolutions and scores of a window, and the states of a prompt as long as the
        context, which the decoder computes at once."""
        tower, row, compression = shape.audio, self.audio, compression_of(recipe)
        assert tower is not None
        decoder = hearing.decoder_of(shape)
        text = self.footprint(decoder, recipe, context)
        own = audio_sizes.encoder(tower, compression)
        seconds = min(shape.audio_seconds, WINDOW_CHUNKS)
        tokens = CHUNK_TOKENS * seconds
        window = (
            row["per_channel_and_second"] * tower.channels * seconds
            + row["per_width"] * tower.hidden * tokens
            + row["per_pair_of_tokens"] * tower.heads * tokens**2
        )
        prompt = context * decoder.intermediate * row["per_intermediate"]
        overhead = row["overhead"] + row["overhead_per_layer"] * tower.depth
        overhead += self.overhead["per_matrix"] * own.matrices
        overhead += self.overhead["per_scale"] * own.scales
        overhead += self.overhead["per_zero_point"] * own.zero_points
        return Footprint(
            weights=text.weights + 2 * own.stored,
            kv_cache=text.kv_cache,
            compute=text.compute + ceil(window + prompt),
            overhead=text.overhead + ceil(overhead),
        )

    def _of_whole_texts(
        self, shape: Shape, compression: Compression | None, context: int
    ) -> Footprint:
        """Of an embedder or a reranker: no cache, and a text as long as the context computed at
        once. The embedding is looked up in the mapped file: few of its pages are ever read."""
        row = self.retrieval
        width = (
            shape.hidden + shape.intermediate + shape.head_dim * (shape.heads + 2 * shape.kv_heads)
        )
        between = context * width * row["per_width"] + context**2 * row["per_pair_of_tokens"]
        embedding = sizes.embedding_bytes(shape, compression)
        return Footprint(
            weights=2 * (sizes.totals(shape, compression).stored - embedding),
            kv_cache=0,
            compute=ceil(between),
            overhead=self._overhead(shape, compression) + ceil(row["overhead"]),
        )

    def _overhead(self, shape: Shape, compression: Compression | None) -> int:
        row = self.overhead
        total = row["base"] + row["libraries"] + row["per_layer"] * shape.layers
        totals = sizes.totals(shape, compression)
        total += row["per_matrix"] * sum(totals.modes.values())
        return total + row["per_scale"] * totals.scales + row["per_zero_point"] * totals.zero_points

    def build_memory(self, shape: Shape, recipe: Recipe, artifact: int) -> int:
        """Peak resident bytes of the conversion."""
        compression = compression_of(recipe)
        way = "nncf" if compression and "bits" in compression else "plain"
        if shape.vision is not None:
            shape = seeing.decoder_of(shape)
        if shape.audio is not None:
            shape = hearing.decoder_of(shape)
        if shape.model_type not in LIGHT:
            way = "optimum"
        elif blocks(recipe):
            way = "blocks"
        row = self.build[way]
        largest = max(part.spec.elements for part in sizes.parts(shape))
        return ceil(
            row["base"]
            + row["per_checkpoint_byte"] * 2 * shape.parameters()
            + row["per_artifact_byte"] * artifact
            + row["per_largest"] * largest
        )


def _width(shape: Shape) -> int:
    """Values that a token takes between the two halves of a feed-forward layer: those of all active
    experts."""
    experts = shape.experts
    return (
        shape.intermediate
        if experts is None
        else experts.active * experts.intermediate + (experts.shared_intermediate or 0)
    )


@cache
def costs() -> Costs:
    """The costs.toml beside this module."""
    return msgspec.convert(_read("costs.toml"), Costs)
