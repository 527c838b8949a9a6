"""Does a folder for ONNX Runtime follow from a checkpoint with a recipe? Every matrix is quantized
again, by the quantizers that the model builder drives, and compared; see packager.plan.attested.

No graph tells by which of them a block was made, so each that makes such blocks is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.json_values import JsonObject, at
from packager.plan import attested, attested_texts
from packager.plan.attested import Again, Numbers, StoredTensor, Weights, each
from packager.runtime import Report
from targets.onnxruntime import OnnxRuntime, adopted, data, model_builder, sizes
from targets.onnxruntime.quantization import Quantization, Settings
from targets.onnxruntime.stored import Blocks, StoredWeights, unpacked, weights_of

_PLAIN = {"f32": "fp32", "f16": "fp16"}
_WIDTHS: dict[str, type[np.floating[Any]]] = {"fp32": np.float32, "fp16": np.float16}


def attest(
    report: Report,
    *,
    files: list[str],
    checkpoint: str,
    recipe: JsonObject,
    imatrix: str | None,
    out: str,
) -> JsonObject:
    """A job, see packager.plan.adopted.Adopted.attest.

    `recipe.weights` is the folder's own or another of ONNX Runtime's. Returns what
    packager.plan.attested.compare does, with `metadata` and `importance`, which is None.
    Raises PackError (exit code 6) for weights that cannot be compared.
    """
    own = adopted.read_folder(Path(files[0]).parent)
    source = Checkpoint.open(Path(checkpoint))
    name = at(recipe, "weights", str)
    named = None
    if name != adopted.recipe_of(own).weights:
        named = data.settings_of(OnnxRuntime().recipe(name))
    model_builder.stay_at_home()
    tensors = [
        _tensor(row, source, own.graph.precision, named)
        for row in weights_of(own.files[adopted.GRAPH])
    ]
    return {
        **attested.compare(report, tensors, source),
        "metadata": attested_texts.texts_that_differ(own.files, source),
        "importance": None,
    }


def _tensor(
    row: StoredWeights, source: Checkpoint, precision: str, named: Settings | None
) -> StoredTensor:
    """A tensor with the ways to make it: those of its own type, or the one of the recipe that is
    named."""
    parts = tuple(attested.place_of(name, source) for name in row.parts)
    type_, ways = _own(row, precision)
    wanted, own = type_, ways[0][1]
    if named is not None and row.rows > 1:
        wanted, ways = _of_recipe(row, source, named)
    return StoredTensor(parts, row.rows, row.columns, type_, wanted, row.values, tuple(ways), own)


def _own(row: StoredWeights, precision: str) -> tuple[str, list[tuple[str, Again]]]:
    how = row.blocks
    if how is None:
        return _PLAIN[row.kind], [("", attested.as_float(row.kind))]
    zeros = how.zeros is not None
    again = list(_ways(how.bits, how.block, zeros, precision, how.looked_up))
    return _name(how.bits, how.block, zeros), again


def _of_recipe(
    row: StoredWeights, source: Checkpoint, settings: Settings
) -> tuple[str, list[tuple[str, Again]]]:
    """The type that a recipe gives a matrix, and the one way in which it makes it."""
    how = settings.quantization
    looked_up = row.blocks.looked_up if row.blocks else row.parts[0] == attested.EMBEDDING
    if how is None or (looked_up and not sizes.quantizes_embedding(settings)):
        kind = settings.precision
        return kind, [("", attested.as_float(kind.replace("fp", "f")))]
    bits = 4 if looked_up else how.bits_of(source.shape.layers, *_place(row))
    every = dict(_ways(bits, how.block, how.zero_points, settings.precision, looked_up))
    way = _method(how, looked_up)
    return _name(bits, how.block, how.zero_points), [(way, every[way])]


def _place(row: StoredWeights) -> tuple[int | None, str]:
    """The layer of a matrix, None for the output matrix, and the builder's name of it."""
    if row.parts[0] == attested.OUTPUT:
        return None, ""
    *_, layer, _, name, _ = row.parts[0].split(".")
    return int(layer), "qkv_proj" if len(row.parts) > 1 else name


def _method(how: Quantization, looked_up: bool) -> str:
    if looked_up:
        return "default"
    return how.method if how.bits == 8 else model_builder.method(how)


def _name(bits: int, block: int, zeros: bool) -> str:
    """Of a type, as `adopt` names it."""
    return f"int{bits}_{'asym' if zeros else 'sym'}_b{block}"


def _ways(
    bits: int, block: int, zeros: bool, precision: str, looked_up: bool
) -> Iterator[tuple[str, Again]]:
    """The quantizers that make such blocks of weights in that precision, by the builder's
    names."""
    width = _WIDTHS[precision]
    if looked_up:
        yield "default", each(partial(_looked_up, block, zeros, width))
        return
    default = ("default", each(partial(_by_kernel, bits, block, zeros, width)))
    rounded = ("rtn", each(partial(_in_blocks, bits, block, "asym" if zeros else "sym", width)))
    if not zeros:
        yield from (default, rounded)
        return
    searched = ("k_quant", each(partial(_in_blocks, bits, block, None, width)))
    yield from (rounded, searched, default)


def _padded(weights: Weights, block: int, width: Any) -> Any:
    """Rows in whole blocks, in the precision of the graph."""
    rest = -weights.shape[1] % block
    return np.pad(weights.astype(width), ((0, 0), (0, rest)))


def _in_blocks(
    bits: int, block: int, scheme: str | None, width: Any, weights: Weights, _dtype: str
) -> Numbers:
    """Rounded to nearest, or, without a scheme, with scale and minimum searched."""
    # Late: it loads ONNX Runtime.
    from targets.onnxruntime import sliced

    rounding, searching = sliced.originals()
    whole = _padded(weights, block, width)
    how: tuple[Any, ...] = () if scheme is None else (scheme, "uint", 1)
    quantizer = searching if scheme is None else rounding
    numbers, scales, zeros = sliced.sliced(quantizer, whole, bits, block, *how)
    exact = scales.astype(width).astype(np.float64)
    values = (numbers.astype(np.float64) - zeros.astype(np.float64)) * exact
    return np.asarray(values.reshape(whole.shape)[:, : weights.shape[1]])


def _by_kernel(
    bits: int, block: int, zeros: bool, width: Any, weights: Weights, _dtype: str
) -> Numbers:
    """By ONNX Runtime's own kernel."""
    from onnxruntime.quantization import matmul_nbits_quantizer as library

    settings = library.DefaultWeightOnlyQuantConfig(block, is_symmetric=not zeros, bits=bits)
    quantizer = library.DefaultWeightOnlyQuantizer(settings)
    rows, columns = weights.shape
    turned = np.ascontiguousarray(weights.astype(width).T)
    packed, scales, middles = quantizer.qbits_block_quant(turned)
    how = Blocks(bits, block, scales, middles if zeros else None, 1 << bits - 1)
    return StoredWeights((), rows, columns, packed, f"int{bits}", how).values(0, rows)


def _looked_up(block: int, zeros: bool, width: Any, weights: Weights, _dtype: str) -> Numbers:
    """An embedding in 4 bits, as the library quantizes what tokens are looked up in."""
    from onnxruntime.quantization import matmul_nbits_quantizer as library

    data = weights.astype(width)
    packed, scales, middles = library.DefaultWeightOnlyQuantizer.quantize_ndarray(
        data, 1, block, not zeros
    )
    rows, columns = data.shape
    numbers = unpacked(packed.reshape(rows, -1), 4).astype(np.float64)
    per_row = ceil(columns / block)
    if zeros:
        spread = unpacked(middles.reshape(1, -1), 4)[0, : rows * per_row].reshape(rows, per_row)
        numbers -= np.repeat(spread, block, 1)[:, :columns]
    else:
        numbers = np.where(numbers > 7, numbers - 16, numbers)
    return np.asarray(numbers * np.repeat(scales.astype(np.float64), block, 1)[:, :columns])
