"""Does an OpenVINO folder follow from a checkpoint with a recipe? Every matrix is quantized again
by NNCF, or into ggml's blocks, and compared; see packager.plan.attested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import rows_of
from packager.errors import usage
from packager.json_values import JsonDict, JsonObject, at
from packager.plan import attested, attested_texts
from packager.plan.attested import Again, Matrix, Numbers, StoredTensor, Weights, each
from packager.recipe import Recipe
from packager.runtime import Report
from packager.shape import TensorSpec
from targets.openvino import OpenVino, adopted, data, light, sizes
from targets.openvino.given import FLOATS
from targets.openvino.sizes import GGML_BLOCK, Storage
from targets.openvino.stored import StoredWeights, weights_of

_GRAPH = "matrix.xml"
_MATRIX = "model.layers.{}.mlp.up_proj.weight"
"""Names that are read back, for the matrices of a graph that has no other."""
_LEAST_FLOAT = 16
_LEAST_STACKED = 10_000
"""Numbers of a matrix below which NNCF computes in another way."""
_FOUR_BITS: Mapping[str, Any] = {
    "ratio": 1.0,
    "all_layers": True,
    "backup_precision": "int8_asym",
    "sensitivity_metric": "weight_quantization_error",
    "scale_estimation": False,
    "gptq": False,
    "lora_correction": False,
    "group_size_fallback": "adjust",
}


def attest(
    report: Report,
    *,
    files: list[str],
    checkpoint: str,
    recipe: JsonObject,
    imatrix: str | None,
    out: str,
) -> JsonObject:
    """A job, see packager.plan.adopted.Adopted.attest; `out` takes what is temporary.

    `recipe.weights` is the folder's own or another of OpenVINO's. Returns what
    packager.plan.attested.compare does, with `metadata` and `importance`, which is None.
    Raises PackError: exit code 2 for groups of 8 bits that nothing here makes, 6 for weights that
    cannot be compared.
    """
    own = adopted.read_folder(Path(files[0]).parent)
    source = Checkpoint.open(Path(checkpoint))
    ours, name = adopted.recipe_of(own), at(recipe, "weights", str)
    taken = own.known if name == ours.weights else OpenVino().recipe(name)
    work = Path(out)
    work.mkdir(parents=True)
    if own.graph.info.get("nncf/weight_compression/awq") == "True":
        report.note("NNCF says that it scaled channels (AWQ): such matrices are not near.")
    again = _Again(work, taken, given=name == ours.weights)
    tensors = [again.of(row, source) for row in weights_of(own.files[adopted.MAIN])]
    without = frozenset(_of_no_effect(source))
    if own.graph.pools:
        without |= {attested.OUTPUT}
    facts = attested.compare(report, tensors, source, without)
    return {
        **facts,
        "metadata": attested_texts.texts_that_differ(own.files, source),
        "importance": None,
    }


@dataclass(frozen=True)
class _Again:
    """How tensors are quantized again, in the folder `work`: as the `recipe` says, or, where none
    was named or recognised, in the type in which each is `given`."""

    work: Path
    recipe: Recipe | None
    given: bool

    def of(self, row: StoredWeights, source: Checkpoint) -> StoredTensor:
        """A tensor with the ways to make it."""
        own = _storage_of(row)
        wanted, type_ = own, _name(own, row)
        if not self.given and row.rows > 1:
            spec = TensorSpec(row.name, (row.rows, row.columns))
            compression = None if self.recipe is None else data.compression_of(self.recipe)
            wanted = sizes.storage(spec, compression)
        return StoredTensor(
            parts=tuple(attested.place_of(name, source) for name in row.parts),
            rows=row.rows,
            columns=row.columns,
            type=type_,
            wanted=type_ if wanted == own else _name(wanted, row),
            values=row.values,
            again=self._ways(wanted, row),
            own=self._ways(own, row)[0][1],
        )

    def _ways(self, how: Storage, row: StoredWeights) -> tuple[tuple[str, Again], ...]:
        if how.bits >= _LEAST_FLOAT:
            kind = row.data.kind if row.data.kind in FLOATS else "bf16"
            return (("", attested.as_float(kind)),)
        if how.ggml:
            return (("ggml", each(partial(_by_ggml, how.mode))),)
        if how.bits == 8 and how.group:
            raise usage(
                f"{row.name} is stored in groups of 8 bits, which neither NNCF nor ggml makes.",
                "Compare what both answer: `adopt FOLDER --target NAME --against CHECKPOINT`.",
            )
        return (("nncf", _ByNncf(self.work, how)),)


def _of_no_effect(source: Checkpoint) -> Iterator[str]:
    """Vectors that change nothing: no graph of ggml's blocks has a norm of ones or a bias of
    zeros."""
    for name, info in source.tensors.items():
        if len(info.shape) == 1:
            neutral = 0 if name.endswith(".bias") else 1
            if (rows_of(info).rows(0, 1) == neutral).all():
                yield name


def _storage_of(row: StoredWeights) -> Storage:
    """How the folder stores a tensor."""
    kind, per_scale = row.data.kind, row.per_scale
    if kind in FLOATS:
        return Storage(16 if row.rows > 1 else FLOATS[kind], None, False)
    zeros = row.zeros is not None and row.zeros.elements > 1
    bits = int(kind[1:])
    if zeros and per_scale == GGML_BLOCK and row.middle() == 1 << (bits - 1):
        # ggml's blocks have no zero points: the reader gives each the middle.
        return Storage(bits, per_scale, False, ggml=True)
    return Storage(bits, None if per_scale == row.columns else per_scale, zeros)


def _name(how: Storage, row: StoredWeights) -> str:
    """Of a type, as `adopt` names it."""
    if how.bits >= _LEAST_FLOAT:
        return row.data.kind if row.data.kind in FLOATS else "bf16"
    return how.mode if how.group is None or how.ggml else f"{how.mode}_g{how.group}"


def _by_ggml(kind: str, weights: Weights, _dtype: str) -> Numbers:
    """Rows in ggml's blocks, read back."""
    # Late: packages without such blocks need nothing of it.
    import gguf

    from targets.gguf.kernels import kernels, row_bytes

    rows, columns = weights.shape
    name = kind.upper()
    stored = np.empty(rows * row_bytes(name, columns), np.uint8)
    kernels().encode(name, np.ascontiguousarray(weights, np.float32), stored, None)
    blocks = stored.reshape(rows, -1)
    values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
    return np.asarray(values.astype(np.float64))


@dataclass(frozen=True)
class _ByNncf:
    """Matrices in one graph of their own, each with an input and an output, compressed by NNCF and
    read back. No row depends on another, so those of like rows are one matrix: for every matrix
    NNCF compiles what it computes with, and for every graph it looks for patterns."""

    work: Path
    how: Storage

    def __call__(self, matrices: Sequence[Matrix]) -> Iterator[Numbers]:
        # Late: it loads the engine.
        import openvino

        stacks: dict[tuple[int, str, int], list[int]] = {}
        for number, (weights, dtype) in enumerate(matrices):
            alone = number if weights.size < _LEAST_STACKED else -1
            stacks.setdefault((weights.shape[1], dtype, alone), []).append(number)
        products, inputs = zip(
            *(
                _product(name, [matrices[number][0] for number in stack], dtype)
                for name, ((_, dtype, _), stack) in enumerate(stacks.items())
            ),
            strict=True,
        )
        how = self.how
        settings: JsonDict = {
            **(_FOUR_BITS if how.bits == 4 else {"ratio": 1.0}),
            "bits": how.bits,
            "sym": not how.zero_points,
            "group_size": how.group or -1,
        }
        model = light.compress(openvino.Model(list(products), list(inputs)), settings)
        openvino.save_model(model, self.work / _GRAPH, compress_to_fp16=False)
        made = {row.name: row for row in weights_of(self.work / _GRAPH)}
        places: dict[int, tuple[StoredWeights, int]] = {}
        for name, stack in enumerate(stacks.values()):
            above = 0
            for number in stack:
                places[number] = made[_MATRIX.format(name)], above
                above += len(matrices[number][0])
        for number, (weights, _) in enumerate(matrices):
            row, above = places[number]
            rows, columns = weights.shape
            whole = replace(row, rows=row.data.elements // columns, columns=columns)
            yield whole.values(above, above + rows)


def _product(name: int, stack: Sequence[Weights], dtype: str) -> tuple[Any, Any]:
    """Operators: what matrices, one above the other, make of an input, and that input."""
    # Late: they load the engine.
    import openvino
    from openvino import opset13 as operators

    kind = openvino.Type.f16 if dtype == "F16" else openvino.Type.bf16
    narrow = np.float16 if dtype == "F16" else ml_dtypes.bfloat16
    stored = np.concatenate([weights.astype(narrow) for weights in stack])
    tokens = operators.parameter([-1, stored.shape[1]], np.float32, name=f"tokens.{name}")
    values = stored.view(np.uint16).reshape(-1)
    tensor = openvino.Tensor(values, openvino.Shape(list(stored.shape)), kind)
    constant = openvino.op.Constant(tensor, shared_memory=False)
    constant.set_friendly_name(_MATRIX.format(name))
    wide = operators.convert(constant, np.float32)
    return operators.matmul(tokens, wide, False, True), tokens
