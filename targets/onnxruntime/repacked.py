"""A matrix that a checkpoint stores in groups of 4 bits, as a MatMulNBits of the same numbers.

Source of the layout: ONNX Runtime, docs/ContribOperators.md (com.microsoft.MatMulNBits): the
numbers of a block in rows of the output, two a byte, the lower half first; one scale a block; zero
points two a byte, a row of blocks padded to whole bytes, and 8 where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import codes
from packager.errors import bad_input, usage

_MATRIX = re.compile(r"/model/layers\.(?P<layer>\d+)/(?P<block>attn|mlp)/(?P<name>\w+)/MatMul")
_BLOCKS = {"attn": "self_attn", "mlp": "mlp"}
_JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
"""Matrices of a checkpoint that the builder makes one of, one above the other."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The inputs of a MatMulNBits: `weights` (rows, blocks, block / 2), `scales` (rows * blocks),
    `zeros` (rows * bytes of a row of blocks), None where all are 8."""

    weights: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.uint8] | None
    rows: int
    columns: int
    block: int


def stored(parts: list[codes.Part]) -> Stored:
    """Matrices of one width, one above the other, in blocks of the smallest group among them."""
    block = min(part.group for part in parts)
    each = [part.codes() for part in parts]
    repeats = [matrix.group // block for matrix in each]
    numbers = np.concatenate([matrix.numbers for matrix in each])
    scales, zeros = (
        np.concatenate([np.repeat(getattr(matrix, name), times, 1) for matrix, times in pairs])
        for name, pairs in (
            (name, list(zip(each, repeats, strict=True))) for name in ("scales", "zeros")
        )
    )
    rows, columns = numbers.shape
    weights = _pairs(numbers).reshape(rows, columns // block, block // 2)
    centred = bool((zeros == codes.MIDDLE).all())
    packed = None if centred else _pairs(zeros).reshape(-1)
    return Stored(weights, scales.reshape(-1), packed, rows, columns, block)


def _pairs(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Numbers of 4 bits, two a byte, the lower half first; every row in whole bytes."""
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    return np.ascontiguousarray(values[:, 0::2] | values[:, 1::2] << 4)


@dataclass(slots=True)
class Groups:
    """What is taken over, by the checkpoint's name in Qwen2 form, and what of it the builder has
    asked for."""

    taken: Mapping[str, codes.Part]
    used: set[str] = field(default_factory=set)

    def parts_of(self, node: str) -> list[codes.Part]:
        """The matrices that make the product `node` of the builder; none where none of them is
        taken over. Raises PackError (usage) where only some are."""
        matched = _MATRIX.fullmatch(node)
        if matched is None:
            return []
        head = f"model.layers.{matched['layer']}.{_BLOCKS[matched['block']]}"
        inner = _JOINED.get(matched["name"], (matched["name"],))
        names = [f"{head}.{name}.weight" for name in inner]
        there = [name for name in names if name in self.taken]
        if there and len(there) < len(names):
            missing = next(name for name in names if name not in self.taken)
            raise usage(
                f"{there[0]!r} cannot be taken over by ONNX Runtime as it is: it is one matrix "
                f"with {missing!r} there, which is not stored in groups of 4 bits.",
                "Leave --repack out: it is dequantized then, and quantized again.",
            )
        self.used |= set(there)
        return [self.taken[name] for name in there]

    def refuse_unused(self) -> None:
        """Raise PackError (bad input) for a matrix that the builder has not asked for: it would
        have been quantized a second time."""
        for name in self.taken:
            if name not in self.used:
                raise bad_input(
                    f"The graph of the model builder has no place for {name!r} as it is stored.",
                    "Leave --repack out: it is dequantized then, and quantized again.",
                )


def install(builders_base: Any, taken: Mapping[str, codes.Part], accuracy_level: int) -> Groups:
    """Let the builder (its module `builders.base`) write what is taken over in place of a product
    with a matrix of floats."""
    groups, model = Groups(taken), builders_base.Model
    plain = model.make_matmul_float

    def make(self: Any, matmul: Any, name: str, root_input: str, **more: Any) -> Any:
        parts = groups.parts_of(name)
        if not parts:
            return plain(self, matmul, name, root_input, **more)
        matrix, prefix = stored(parts), name[1:].replace("/", ".")
        inputs = [root_input, f"{prefix}.weight_Q4", f"{prefix}.weight_scales"]
        self.make_initializer(matrix.weights, inputs[1])
        # The recipe's precision was seen to hold them.
        self.make_initializer(matrix.scales, inputs[2], to=self.io_dtype)
        if matrix.zeros is not None:
            inputs.append(f"{prefix}.weight_zero_points")
            self.make_initializer(matrix.zeros, inputs[3])
        output = f"{name}/output_0"
        self.make_node(
            "MatMulNBits",
            inputs=inputs,
            outputs=[output],
            name=f"{name}_Q4",
            domain="com.microsoft",
            accuracy_level=accuracy_level,
            bits=codes.BITS,
            block_size=matrix.block,
            K=matrix.columns,
            N=matrix.rows,
        )
        # A run of tokens of a batch, as wide as the matrix has rows.
        tokens = more.get("seq_dim", "sequence_length")
        shape = self.make_hidden_state_shape(seq_dim=tokens, last_dim=matrix.rows)
        self.make_value(output, self.io_dtype, shape=shape)
        return name

    model.make_matmul_float = make
    return groups
