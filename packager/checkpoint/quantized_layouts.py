"""The layouts in which checkpoints hold quantized weights: which tensors make one matrix, and
whether they fit together.

Their tensors are taken together under the names that the unquantized checkpoint has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from packager.checkpoint import blockwise
from packager.checkpoint.dequantize import Awq, Gptq, Packed, Scaled
from packager.checkpoint.header import ITEM_BYTES, Rows, TensorInfo
from packager.checkpoint.numbers import read
from packager.errors import PackError, bad_input

_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_EIGHT_BITS = ("F8_E4M3", "F8_E5M2", "I8")
_WAY_ON = "Name the unquantized repository or folder that it was made from."
_OWN_BIAS = re.compile(r"(q_proj|k_proj|v_proj|c_attn)$")
"""Layers that have a bias in some generations."""
_MAIN = {
    "gptq": "qweight",
    "awq": "qweight",
    "fp8": "weight",
    "compressed-tensors": r"weight(_packed)?",
    "bitsandbytes": "weight",
}
_BESIDE = (
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight",
    "weight_scale",
    "weight_scale_inv",
    "input_scale",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "activation_scale",
    *blockwise.BESIDE,
)


Made = tuple[Rows, tuple[int, ...], str]
"""A matrix, its shape, and its layout in words."""


class Layouts:
    """The quantized tensors of one checkpoint, by the method that its config.json names."""

    def __init__(
        self,
        path: Path,
        method: str,
        table: Mapping[str, Any],
        stored: Mapping[str, TensorInfo],
        config: Mapping[str, Any],
    ) -> None:
        self._path, self._method, self._table = path, method, table
        self._stored, self._dtype = stored, _dtype(config)
        self._layouts: set[str] = set()

    def unquantized(self) -> tuple[dict[str, TensorInfo], str | None]:
        """Every quantized matrix as one tensor and the rest as it is, and the layouts in words.

        Raises PackError (exit code 6) naming the first tensor that does not fit.
        """
        main = re.compile(rf"(?P<module>.+)\.{_MAIN[self._method]}")
        tensors: dict[str, TensorInfo] = {}
        taken: set[str] = set()
        for name, tensor in self._stored.items():
            matched = main.fullmatch(name)
            module = matched["module"] if matched else None
            made = self._made(module, tensor) if module is not None else None
            if made is None or module is None:
                tensors[name] = tensor
                continue
            rows, shape, layout = made
            self._layouts.add(layout)
            taken |= {f"{module}.{part}" for part in _BESIDE}
            nbytes = prod(shape) * ITEM_BYTES[self._dtype]
            tensors[f"{module}.weight"] = TensorInfo(
                f"{module}.weight", self._dtype, shape, tensor.file, 0, nbytes, rows
            )
        if not self._layouts:
            return dict(self._stored), None
        kept = {
            name: tensor
            for name, tensor in tensors.items()
            if tensor.made is not None or (name not in taken and not self._idle_bias(name, taken))
        }
        return kept, " and ".join(sorted(self._layouts))

    def _idle_bias(self, name: str, taken: set[str]) -> bool:
        """Whether it is a bias of zeros beside a quantized matrix, which GPTQ tools add to layers
        that have none."""
        module, _, kind = name.rpartition(".")
        return (
            kind == "bias"
            and f"{module}.qweight" in taken
            and _OWN_BIAS.search(module) is None
            and not read(self._stored[name]).any()
        )

    def _made(self, module: str, tensor: TensorInfo) -> Made | None:
        match self._method:
            case "gptq":
                return self._gptq(module, tensor)
            case "awq":
                return self._awq(module, tensor)
            case "fp8":
                return self._scaled(module, tensor, "FP8")
            case "bitsandbytes":
                return blockwise.of(module, tensor, self._stored, self._refuse)
            case _ if tensor.name.endswith("_packed"):
                return self._packed(module, tensor)
            case _:
                return self._scaled(module, tensor, "compressed-tensors")

    def _gptq(self, module: str, qweight: TensorInfo) -> Made:
        bits = self._number("bits", (2, 3, 4, 8))
        inputs, outputs = self._words(qweight, bits)
        zeros, scales = self._beside(module, "qzeros"), self._beside(module, "scales")
        groups = self._groups(qweight, scales, outputs)
        self._fits(zeros, (groups, outputs * bits // 32))
        index = self._stored.get(f"{module}.g_idx")
        group = self._group_size(inputs, groups, indexed=index is not None)
        if index is not None:
            self._fits(index, (inputs,))
            self._index(index, groups)
        old = self._table.get("checkpoint_format") != "gptq_v2"
        rows = Gptq(qweight, zeros, scales, index, bits, group, old)
        return rows, (outputs, inputs), f"GPTQ, {bits} bits, {_groups_of(group, inputs)}"

    def _awq(self, module: str, qweight: TensorInfo) -> Made:
        self._number("bits", (4,))
        version = str(self._table.get("version", "gemm")).lower()
        if version != "gemm":
            raise self._wrong(f"has the AWQ layout {version!r}, and only gemm is known")
        inputs, packed = self._two(qweight)
        outputs = packed * 8
        zeros, scales = self._beside(module, "qzeros"), self._beside(module, "scales")
        groups = self._groups(qweight, scales, outputs)
        self._fits(zeros, (groups, packed))
        group = self._group_size(inputs, groups)
        rows = Awq(qweight, zeros, scales, group)
        return rows, (outputs, inputs), f"AWQ, 4 bits, {_groups_of(group, inputs)}"

    def _scaled(self, module: str, weight: TensorInfo, words: str) -> Made | None:
        if weight.dtype not in _EIGHT_BITS:
            return None
        scale = self._stored.get(f"{module}.weight_scale_inv") or self._beside(
            module, "weight_scale"
        )
        if len(weight.shape) < 2:
            raise self._wrong(f"stores {weight.name!r} with the shape {list(weight.shape)}")
        zero = self._stored.get(f"{module}.weight_zero_point")
        if zero is not None and read(zero).any():
            raise self._wrong(
                f"has zero points for {weight.name!r}, which are not known for 8 bits"
            )
        rows, size = weight.shape[-2], prod(scale.shape)
        kind = "8 bits" if weight.dtype == "I8" else weight.dtype
        if size == 1 or size == prod(weight.shape[:-1]):
            how = "one scale" if size == 1 else "a scale for every row"
            return Scaled(weight, scale), weight.shape, f"{words}, {kind}, {how}"
        block = self._block()
        wanted = (
            *weight.shape[:-2],
            -(-rows // block[0]),
            -(-weight.shape[-1] // block[1]),
        )
        self._fits(scale, wanted)
        how = f"blocks of {block[0]} x {block[1]}"
        return Scaled(weight, scale, block), weight.shape, f"{words}, {kind}, {how}"

    def _packed(self, module: str, packed: TensorInfo) -> Made:
        shape = read(self._beside(module, "weight_shape")).reshape(-1).tolist()
        scale = self._beside(module, "weight_scale")
        if len(shape) != 2 or len(packed.shape) != 2 or packed.dtype != "I32":
            raise self._wrong(f"stores {packed.name!r} in a way that is not known")
        outputs, inputs = shape
        bits = self._packed_bits(packed, inputs)
        groups = scale.shape[1] if len(scale.shape) == 2 else 0
        self._fits(packed, (outputs, -(-inputs * bits // 32)))
        self._fits(scale, (outputs, groups))
        index = self._stored.get(f"{module}.weight_g_idx")
        group = self._group_size(inputs, groups, indexed=True)
        if index is not None:
            self._index(index, groups)
        elif inputs % max(1, groups):
            raise self._wrong(f"has {groups} groups for {inputs} columns of {packed.name!r}")
        zero = self._stored.get(f"{module}.weight_zero_point")
        if zero is not None:
            self._fits(zero, (-(-outputs * bits // 32), groups))
        rows = Packed(packed, scale, zero, index, bits, inputs)
        return (
            rows,
            (outputs, inputs),
            f"compressed-tensors, {bits} bits, {_groups_of(group, inputs)}",
        )

    def _packed_bits(self, packed: TensorInfo, inputs: int) -> int:
        """The bits of the group of layers that the config describes; several kinds are told apart
        by the size of the tensor."""
        groups = self._table.get("config_groups")
        kinds = [
            row["weights"].get("num_bits")
            for row in (groups.values() if isinstance(groups, dict) else ())
            if isinstance(row, dict) and isinstance(row.get("weights"), dict)
        ]
        for bits in kinds:
            if type(bits) is int and 2 <= bits <= 8 and packed.shape[1] == -(-inputs * bits // 32):
                return bits
        raise self._wrong(f"does not say how many bits {packed.name!r} has")

    def _block(self) -> tuple[int, int]:
        block = self._table.get("weight_block_size")
        if block is None:
            groups = self._table.get("config_groups")
            for row in groups.values() if isinstance(groups, dict) else ():
                weights = row.get("weights") if isinstance(row, dict) else None
                block = block or (weights.get("block_structure") if weights else None)
        if (
            not isinstance(block, list)
            or len(block) != 2
            or not all(type(size) is int and size > 0 for size in block)
        ):
            raise self._wrong(f"says weight_block_size {block!r}")
        return block[0], block[1]

    def _number(self, key: str, known: tuple[int, ...]) -> int:
        value = self._table.get(key)
        if type(value) is not int or value not in known:
            raise self._wrong(f"says {key} {value!r}, and {', '.join(map(str, known))} are known")
        return value

    def _words(self, qweight: TensorInfo, bits: int) -> tuple[int, int]:
        packed, outputs = self._two(qweight)
        if packed * 32 % bits or (bits == 3 and outputs % 32):
            raise self._wrong(f"stores {qweight.name!r} with the shape {list(qweight.shape)}")
        return packed * 32 // bits, outputs

    def _two(self, qweight: TensorInfo) -> tuple[int, int]:
        if len(qweight.shape) != 2 or qweight.dtype != "I32":
            raise self._wrong(
                f"stores {qweight.name!r} as {qweight.dtype} {list(qweight.shape)}, which is not a "
                "packed matrix"
            )
        return qweight.shape[0], qweight.shape[1]

    def _groups(self, qweight: TensorInfo, scales: TensorInfo, outputs: int) -> int:
        if len(scales.shape) != 2 or scales.shape[1] != outputs or not scales.shape[0]:
            raise self._wrong(
                f"has the scales {scales.name!r} of the shape {list(scales.shape)} for "
                f"{qweight.name!r} of {list(qweight.shape)}"
            )
        return scales.shape[0]

    def _group_size(self, inputs: int, groups: int, *, indexed: bool = False) -> int:
        declared = self._table.get("group_size")
        size = declared if type(declared) is int and declared > 0 else -(-inputs // max(1, groups))
        size = min(size, max(1, inputs))  # it is counted with in 64 bits
        if not indexed and -(-inputs // size) != groups:
            raise self._wrong(
                f"says group_size {declared!r} and has {groups} groups for {inputs} inputs"
            )
        return size

    def _index(self, index: TensorInfo, groups: int) -> None:
        numbers = read(index)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= groups):
            raise self._wrong(f"has groups in {index.name!r} that are not there")

    def _beside(self, module: str, part: str) -> TensorInfo:
        tensor = self._stored.get(f"{module}.{part}")
        if tensor is None:
            raise self._wrong(f"has no {f'{module}.{part}'!r}")
        return tensor

    def _fits(self, tensor: TensorInfo, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape:
            raise self._wrong(
                f"has {tensor.name!r} of the shape {list(tensor.shape)} instead of {list(shape)}"
            )

    def _refuse(self, what: str) -> NoReturn:
        raise self._wrong(what)

    def _wrong(self, what: str) -> PackError:
        return bad_input(
            f"{self._path.parent} is already quantized ({self._method}) and {what}.", _WAY_ON
        )


def _groups_of(size: int, inputs: int) -> str:
    return "a group for every row" if size >= inputs else f"groups of {size}"


def _dtype(config: Mapping[str, Any]) -> str:
    """The type that the model computes in, by its own words; it names that of the numbers."""
    nested = config.get("text_config")
    inner = nested if isinstance(nested, Mapping) else {}
    for table in (config, inner):
        for key in ("torch_dtype", "dtype"):
            if table.get(key) in _DTYPES:
                return _DTYPES[table[key]]
    return "BF16"
