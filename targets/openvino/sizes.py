"""Exact bytes of an OpenVINO artifact from a shape and a recipe's settings: what NNCF stores per
matrix, and the files around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any, TypeAlias

from packager.json_values import JsonObject, at
from packager.remembered import last_answer
from packager.shape import Shape, TensorSpec
from packager.shape.tensors import layer_tensors, outer_tensors

Compression: TypeAlias = JsonObject
"""Keyword arguments of optimum.intel.OVWeightQuantizationConfig, as recipes.toml has them; or
`blocks`, a type of ggml."""

GGML_BLOCK = 32
"""Weights that share a scale in ggml's Q4_0 and Q8_0."""

BLOCK = 32
"""Tokens of one block of the cache in openvino-genai's CPU back end."""

# NNCF's AdvancedCompressionParameters.min_adjusted_group_size (nncf 3.4).
SMALLEST_GROUP = 32

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
_ENDS = (EMBEDDING, OUTPUT)

_Settings: TypeAlias = tuple[tuple[str, Any], ...]
"""A Compression that can be looked up in a cache."""

_SCALE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Storage:
    """How a matrix is stored: bits per weight, weights per scale (None: one scale per row), whether
    zero points are kept."""

    bits: int
    group: int | None
    zero_points: bool
    ggml: bool = False

    @property
    def mode(self) -> str:
        """NNCF's name of the mode, e.g. `int4_sym`, or ggml's of the type."""
        if self.ggml:
            return f"q{self.bits}_0"
        return f"int{self.bits}_{'asym' if self.zero_points else 'sym'}"

    def bytes(self, rows: int, columns: int) -> int:
        """Bytes of the weights, their f16 scales, and zero points as wide as a weight."""
        if self.bits == 16:
            return rows * columns * 2
        scales = self.scales(rows, columns)
        zero_points = ceil(scales * self.bits / 8) if self.zero_points else 0
        return rows * columns * self.bits // 8 + scales * _SCALE_BYTES + zero_points

    def scales(self, rows: int, columns: int) -> int:
        """How many scales the matrix has: one per row, or one per group."""
        return rows * (1 if self.group is None else columns // self.group)


_PLAIN = Storage(16, None, False)


def storage(spec: TensorSpec, compression: Compression | None) -> Storage:
    """How NNCF stores one tensor of a checkpoint under these settings of
    OVWeightQuantizationConfig.

    Norms and biases stay in the checkpoint's 16 bits; the embedding and the output matrix take the
    backup precision of a 4-bit recipe, as does a matrix whose rows no group divides.
    """
    return _stored_as(
        len(spec.shape) > 1, spec.name in _ENDS, spec.shape[-1], _settings(compression)
    )


def _settings(compression: Compression | None) -> _Settings | None:
    return None if compression is None else tuple(compression.items())


@cache
def _stored_as(matrix: bool, end: bool, columns: int, settings: _Settings | None) -> Storage:
    """`storage` by what it depends on: whether the tensor is a matrix, and one of the two ends of
    the model, and how long its rows are."""
    if settings is None or not matrix:
        return _PLAIN
    compression = dict(settings)
    if "repack" in compression and not end:
        return Storage(4, at(compression, "repack", int), True)
    if "bits" not in compression and "blocks" not in compression:
        return _PLAIN
    if "blocks" in compression:
        narrow = compression["blocks"] == "Q4_0" and not end
        return Storage(4 if narrow else 8, GGML_BLOCK, False, ggml=True)
    if compression["bits"] == 8:
        return Storage(8, None, not compression["sym"])
    backup = Storage(8, None, compression["backup_precision"] == "int8_asym")
    if not compression["all_layers"] and end:
        return backup
    group = fitting_group(columns, at(compression, "group_size", int))
    return (
        backup
        if group is None
        else Storage(at(compression, "bits", int), group, not compression["sym"])
    )


def fitting_group(columns: int, wanted: int) -> int | None:
    """The group NNCF takes for rows of that length: the wanted one, or the largest power of two
    that divides the row; None below 32."""
    if columns % wanted == 0:
        return wanted
    power = columns & -columns
    return power if power >= SMALLEST_GROUP else None


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors of one name and shape: how many the checkpoint has, constants they form in the graph,
    and how many a token reads."""

    spec: TensorSpec
    copies: int
    constants: int
    read: float

    @property
    def is_matrix(self) -> bool:
        """Whether it is compressed at all: norms and biases are not."""
        return len(self.spec.shape) == 2


@cache
def parts(shape: Shape) -> tuple[Part, ...]:
    """The model as distinct tensors: all layers are alike, and the experts of a layer are stacked
    to one constant per projection."""
    rows = []
    for spec in outer_tensors(shape):
        # Of an embedding that is no output matrix a token reads one row.
        lookup = spec.name == EMBEDDING and (not shape.tied or shape.task != "generate")
        rows.append(Part(spec, 1, 1, 1 / shape.vocab if lookup else 1))
    for spec in layer_tensors(shape, 0):
        if shape.experts is None or ".experts." not in spec.name:
            rows.append(Part(spec, shape.layers, shape.layers, shape.layers))
        elif ".experts.0." in spec.name:
            rows.append(
                Part(
                    spec,
                    shape.layers * shape.experts.count,
                    shape.layers,
                    shape.layers * shape.experts.active,
                )
            )
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole model: bytes stored, bytes a token reads, scales, zero points, and
    matrices by mode."""

    stored: int
    read: int
    scales: int
    zero_points: int
    modes: dict[str, int]


@last_answer
def totals(shape: Shape, compression: Compression | None) -> Totals:
    """The sums for a shape under these settings; counted once, as `fit` asks for each several
    times."""
    return _totals(shape, _settings(compression))


@cache
def _totals(shape: Shape, settings: _Settings | None) -> Totals:
    stored = scales = zero_points = 0
    read = 0.0
    # The reader gives every matrix a zero point per block, all of them equal: those of one length
    # are stored once.
    middles: set[tuple[int, int]] = set()
    modes: dict[str, int] = {}
    for part in parts(shape):
        how = _stored_as(part.is_matrix, part.spec.name in _ENDS, part.spec.shape[-1], settings)
        # Bytes of one of them in openvino_model.bin.
        size = how.bytes(*part.spec.shape) if part.is_matrix else part.spec.elements * 2
        stored += part.copies * size
        # Of an untied embedding a token reads one row, of experts the active ones.
        read += part.read * size
        if part.is_matrix and how.bits < 16:
            of_one = how.scales(*part.spec.shape)
            count = part.copies * of_one
            if how.ggml:
                middles.add((how.bits, of_one))
            scales += count
            zero_points += count if how.zero_points or how.ggml else 0
            modes[how.mode] = modes.get(how.mode, 0) + part.constants
    stored += sum(bits * count // 8 for bits, count in middles)
    # The rows of yes and no, one less the other, in float32.
    stored += 4 * shape.hidden if shape.task == "rerank" else 0
    return Totals(stored, ceil(read), scales, zero_points, modes)


def embedding_bytes(shape: Shape, compression: Compression | None) -> int:
    """Bytes of the matrix that tokens are looked up in."""
    table = next(part.spec for part in parts(shape) if part.spec.name == EMBEDDING)
    return storage(table, compression).bytes(*table.shape)


def cache_blocks(context: int) -> int:
    """Blocks allocated for `context` tokens: openvino-genai wants one more than they fill."""
    return ceil(context / BLOCK) + 1


def cache_bytes(shape: Shape, kv: str, context: int) -> int:
    """Bytes of the key and value blocks allocated for `context` tokens.

    In u8 a scale and a zero point of 4 bytes each stand beside the cache: for keys per channel of a
    block, for values per token and head.
    """
    tokens = cache_blocks(context) * BLOCK
    elements = shape.attention_layers * shape.kv_heads * shape.head_dim * tokens
    if kv == "f16":
        return 2 * 2 * elements
    return 2 * elements + 8 * elements // BLOCK + 8 * elements // shape.head_dim
