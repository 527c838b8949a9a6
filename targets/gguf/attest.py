"""Does a GGUF follow from a checkpoint with a recipe? The checkpoint is quantized again, and the
two are compared tensor by tensor.

Bytes decide. Where they differ, distances say by how much; see packager.plan.attested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from packager.checkpoint import Checkpoint
from packager.inspection.gguf_header import GgufFile, GgufTensor, Value
from packager.inspection.unsafe import shown
from packager.json_values import JsonObject, at, object_or_empty
from packager.plan.attested import Different, Distances, follows, rows_as_json
from packager.runtime import Report
from targets.gguf import given_types
from targets.gguf.convert import convert, stored_type
from targets.gguf.given import Given, read_given
from targets.gguf.given_shape import shape_of
from targets.gguf.given_types import MIXED
from targets.gguf.kernels import kernels, row_bytes

_AGAIN, _WEIGHTS = "again.gguf", "weights.gguf"
_BLOCK = 1 << 20
"""Numbers that are compared at once."""
_OURS = ("qwen_pack.", "general.", "quantize.", "split.")
"""Keys that describe a file and say nothing of its network or vocabulary."""
_WEIGHED = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")
"""Types that ggml makes with an importance matrix alone. Source: ggml_quantize_requires_imatrix;
IQ1_M has no other way either."""
_FLOATS = {"F32": np.float32, "F16": np.float16}


def attest(
    report: Report,
    *,
    files: list[str],
    checkpoint: str,
    recipe: JsonObject,
    imatrix: str | None,
    out: str,
) -> JsonObject:
    """A job: quantize a checkpoint again into `out`, and compare.

    `recipe` has `weights`, a preset or `mixed` for the types that the file has, and
    `tensor_types`. Returns `follows` (exactly, nearly, another recipe, not), how many tensors are
    `equal`, `different[]` (see Different), and `metadata` as `network` and `description`, each a
    list of `key`, `file` and `recipe`. Raises PackError as the conversion.
    """
    given, home = read_given(Path(files[0])), Path(out)
    home.mkdir(parents=True)
    source = Checkpoint.open(Path(checkpoint))
    name = at(recipe, "weights", str)
    types = given_types.types_of(given)
    asked = object_or_empty(recipe, "tensor_types")
    overrides = {pattern: at(asked, pattern, str) for pattern in asked}
    if name == MIXED:
        name, overrides = "F16", {**_types_of_its_own(given, types), **overrides}
    convert(
        source,
        home / _AGAIN,
        name,
        overrides=overrides or None,
        imatrix=None if imatrix is None else Path(imatrix),
        report=report,
        context=shape_of(given).context,
    )
    again = read_given(home / _AGAIN)
    unequal = [tensor for tensor in again.tensors if not _equal(given, again, tensor)]
    different: list[Different] = []
    if unequal:
        report.note(f"{len(unequal)} of {len(types)} tensors differ: how far they are is computed")
        kept = stored_type(source)
        exact = "F16" if kept == "F16" else "BF16"
        convert(source, home / _WEIGHTS, exact, report=report, context=shape_of(given).context)
        weights = read_given(home / _WEIGHTS)
        for number, tensor in enumerate(unequal):
            different.append(_compared(given, again, weights, tensor))
            report.progress(number + 1, len(unequal), "tensors")
    network, description = _metadata(given.head, again.head)
    return {
        "follows": follows(different),
        "tensors": len(types),
        "equal": len(types) - len(different),
        "different": rows_as_json(different),
        "metadata": {"network": network, "description": description},
        "importance": given_types.imatrix_of(given),
    }


def _types_of_its_own(given: Given, types: Mapping[str, str]) -> dict[str, str]:
    """Every tensor in the type that the file has; those of one row stay as they are."""
    return {
        f"^{name.replace('.', chr(92) + '.')}$": kind
        for name, kind in types.items()
        if kind not in ("F32", "F16") and len(given.tensors[name].shape) > 1
    }


def _equal(given: Given, again: Given, name: str) -> bool:
    first, second = given.tensors[name], again.tensors[name]
    if first.kind != second.kind or first.nbytes != second.nbytes:
        return False
    pairs = zip(_pieces(given, first, _BLOCK), _pieces(again, second, _BLOCK), strict=True)
    return all(one == other for one, other in pairs)


def _pieces(given: Given, tensor: GgufTensor, step: int) -> Iterator[bytes]:
    """The bytes of a tensor, so many at a time."""
    with given.place_of[tensor.name].open("rb") as file:
        file.seek(tensor.offset)
        left = tensor.nbytes
        while left > 0:
            piece = file.read(min(step, left))
            left -= len(piece) or left
            yield piece


def _compared(given: Given, again: Given, weights: Given, name: str) -> Different:
    """How far the file, and the recipe, are from the weights, over all rows of a tensor."""
    first, second = given.tensors[name], again.tensors[name]
    distances, own = Distances(), Distances()
    kind, other = (gguf.GGMLQuantizationType(tensor.kind).name for tensor in (first, second))
    told = kind != other and kind not in _WEIGHED
    parts = (given, again, weights)
    columns = first.shape[-1]
    rows = first.elements // columns
    step = max(1, _BLOCK // columns)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        mine, wanted, exact = (
            _values(part, part.tensors[name], start, count, columns) for part in parts
        )
        distances.add(mine, wanted, exact)
        if told:
            own.add(mine, _as_type(kind, exact), exact)
    share = None
    if first.kind == second.kind and first.nbytes == second.nbytes:
        share = _share_of_bytes(given, again, name)
    usual = own.relative()[2] if told else None
    return Different(name, kind, other, share, *distances.relative(), usual)


def _as_type(kind: str, weights: Any) -> Any:
    """The weights in one of ggml's types, read back."""
    rows, columns = weights.shape
    stored = np.empty(rows * row_bytes(kind, columns), np.uint8)
    kernels().encode(kind, np.ascontiguousarray(weights, np.float32), stored, None)
    return _numbers(stored.reshape(rows, -1), kind)


def _values(part: Given, tensor: GgufTensor, start: int, count: int, columns: int) -> Any:
    """Rows of a tensor as float64 numbers."""
    kind = gguf.GGMLQuantizationType(tensor.kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    row = columns // elements * size
    with part.place_of[tensor.name].open("rb") as file:
        file.seek(tensor.offset + start * row)
        data = np.frombuffer(file.read(count * row), np.uint8).reshape(count, row)
    return _numbers(data, kind.name)


def _numbers(data: Any, kind: str) -> Any:
    if kind in _FLOATS:
        return data.view(_FLOATS[kind]).astype(np.float64)
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]).astype(np.float64)


def _share_of_bytes(given: Given, again: Given, name: str) -> float:
    unequal = total = 0
    tensors = given.tensors[name], again.tensors[name]
    for one, other in zip(
        _pieces(given, tensors[0], _BLOCK), _pieces(again, tensors[1], _BLOCK), strict=True
    ):
        total += len(one)
        unequal += int((np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)).sum())
    return round(unequal / max(1, total), 6)


def _metadata(file: GgufFile, again: GgufFile) -> tuple[list[JsonObject], list[JsonObject]]:
    """Keys that differ: those of network and vocabulary, and those that describe the file."""
    network: list[JsonObject] = []
    description: list[JsonObject] = []
    for key in sorted({*file.keys, *again.keys}):
        mine, other = file.keys.get(key), again.keys.get(key)
        if mine == other:
            continue
        row = {"key": key, "file": _shown(mine), "recipe": _shown(other)}
        (description if key.startswith(_OURS) else network).append(row)
    return network, description


def _shown(value: Value | None) -> str | None:
    """A value as it fits into a line: a list by its length."""
    if value is None:
        return None
    return f"{len(value)} items" if isinstance(value, tuple) else shown(value)
