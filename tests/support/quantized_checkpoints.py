"""Quantized checkpoints of a small model, packed number by number after the published layouts, and
what they stand for: written apart from the code that reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from packager.checkpoint import Checkpoint

Array = np.ndarray[Any, Any]
Parts = dict[str, Array]
_MATRICES = ("_proj.weight", "c_attn.weight", "c_proj.weight", "w1.weight", "w2.weight")


def put(words: list[int], place: int, bits: int, value: int) -> None:
    """One number into a run of 32-bit words, at bit `place`."""
    for bit in range(bits):
        if value >> bit & 1:
            words[(place + bit) // 32] |= 1 << (place + bit) % 32


def packed(numbers: Array, bits: int) -> Array:
    """Every row of whole numbers as 32-bit words, lowest bits first."""
    if 32 % bits == 0 and numbers.shape[1] * bits % 32 == 0:
        # None goes over the end of a word.
        each = numbers.astype(np.uint32).reshape(len(numbers), -1, 32 // bits)
        return np.bitwise_or.reduce(each << np.arange(0, 32, bits, np.uint32), 2).view(np.int32)
    rows = []
    for row in numbers.tolist():
        words = [0] * (-(-len(row) * bits // 32))
        for place, value in enumerate(row):
            put(words, place * bits, bits, value)
        rows.append(words)
    return np.array(rows, np.uint32).view(np.int32)


def grouped(
    weight: Array, bits: int, group: int, symmetric: bool, order: Array, coarse: bool = False
) -> tuple[Array, ...]:
    """Numbers, zero points and scales of a matrix (outputs, inputs): input i is of group order[i].

    `coarse` scales have seven significant bits: times a zero point they are still of 16 bits.
    """
    top, groups = (1 << bits) - 1, int(order.max()) + 1
    numbers = np.zeros(weight.shape, np.int64)
    zeros, scales = (np.zeros((groups, len(weight)), kind) for kind in (np.int64, np.float16))
    for number in range(groups):
        part = weight[:, order == number]
        low, high = part.min(1), part.max(1)
        if symmetric:
            high = np.maximum(abs(low), abs(high))
            low = -high
        scales[number] = np.maximum((high - low) / top, 1e-4)
        if coarse:
            scales[number] = (scales[number].view(np.uint16) & 0xFFF0).view(np.float16)
        scale = scales[number].astype(np.float32)
        zeros[number] = (top + 1) // 2 if symmetric else np.clip(np.round(-low / scale), 1, top)
        found = np.round(part / scale[:, None]) + zeros[number][:, None]
        numbers[:, order == number] = np.clip(found, 0, top)
    return numbers, zeros, scales


def stands_for(numbers: Array, zeros: Array, scales: Array, order: Array) -> Array:
    """(number - zero point) * scale, one by one."""
    difference = (numbers - zeros[order].T).astype(np.float32)
    return difference * scales.astype(np.float32)[order].T


def gptq(
    bits: int, group: int, *, act: bool = False, symmetric: bool = True, second: bool = False
) -> Callable[[str, Array], tuple[Parts, Array]]:
    """GPTQ as AutoGPTQ packs it (`second`: as gptq_v2, with whole zero points)."""

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        inputs = weight.shape[1]
        size = inputs if group < 0 else group
        order = np.arange(inputs) // size
        if act:
            order = np.random.default_rng(1).permutation(order)
        numbers, zeros, scales = grouped(weight, bits, size, symmetric, order)
        stored = zeros if second else zeros - 1
        parts = {
            "qweight": np.ascontiguousarray(packed(numbers, bits).T),
            "qzeros": packed(stored, bits),
            "scales": scales,
            "g_idx": order.astype(np.int32),
            # What AutoGPTQ stores beside layers that have none.
            "bias": np.zeros(len(weight), np.float16),
        }
        if name.endswith(("q_proj", "k_proj", "v_proj", "c_attn")):
            del parts["bias"]
        return parts, stands_for(numbers, zeros, scales, order)

    return of


def awq(group: int, *, coarse: bool = False) -> Callable[[str, Array], tuple[Parts, Array]]:
    """AWQ as AutoAWQ's gemm packs it: nibble i of a word is output ORDER[i] of its eight."""
    order_of_nibbles = [0, 2, 4, 6, 1, 3, 5, 7]

    def interleaved(numbers: Array) -> Array:
        eights = numbers.reshape(len(numbers), -1, 8)[:, :, order_of_nibbles]
        return packed(eights.reshape(numbers.shape), 4)

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        order = np.arange(weight.shape[1]) // group
        numbers, zeros, scales = grouped(weight, 4, group, False, order, coarse)
        parts = {
            "qweight": interleaved(np.ascontiguousarray(numbers.T)),
            "qzeros": interleaved(zeros),
            "scales": scales,
        }
        return parts, stands_for(numbers, zeros, scales, order)

    return of


def fp8(block: tuple[int, int] | None) -> Callable[[str, Array], tuple[Parts, Array]]:
    """FP8 as Qwen publishes it, with a scale for every block; None: one scale for all."""

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        rows, columns = block or weight.shape
        scales = np.zeros((-(-weight.shape[0] // rows), -(-weight.shape[1] // columns)), np.float32)
        stored = np.zeros(weight.shape, ml_dtypes.float8_e4m3fn)
        found = np.zeros(weight.shape, np.float32)
        for row, column in np.ndindex(scales.shape):
            where = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
            scales[row, column] = abs(weight[where]).max() / 448
            stored[where] = (weight[where] / scales[row, column]).astype(stored.dtype)
            found[where] = stored[where].astype(np.float32) * scales[row, column]
        if block is None:
            return {"weight": stored, "weight_scale": scales.reshape(1)}, found
        return {"weight": stored, "weight_scale_inv": scales}, found

    return of


def by_rows(kind: Any) -> Callable[[str, Array], tuple[Parts, Array]]:
    """Numbers of 8 bits with a scale for every row, as compressed-tensors' int-quantized (int8) and
    float-quantized (float8) store them, and FP8 with a scale for a channel."""
    largest = 127 if np.dtype(kind) == np.int8 else 448

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        scales = (abs(weight).max(1, keepdims=True) / largest).astype(np.float32)
        scaled = weight / scales
        stored = (np.round(scaled) if largest == 127 else scaled).astype(kind)
        return {"weight": stored, "weight_scale": scales}, stored.astype(np.float32) * scales

    return of


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)
"""Quantiles of the normal distribution. Source: Dettmers et al. 2023, QLoRA, appendix E."""


def nf4(block: int, *, double: bool = False) -> Callable[[str, Array], tuple[Parts, Array]]:
    """NF4 as bitsandbytes saves it; `double` with magnitudes of 8 bits, 256 of them to a scale."""
    table = np.array(NF4, np.float32)

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        flat = weight.reshape(-1)
        count = -(-flat.size // block)
        padded = np.pad(flat, (0, count * block - flat.size)).reshape(count, block)
        largest = np.maximum(abs(padded).max(1), 1e-6).astype(np.float32)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": block, "dtype": "float32"}
        state["shape"] = list(weight.shape)
        parts: Parts = {"weight.absmax": largest}
        if double:
            offset = float(largest.mean())
            steps = np.linspace(-1, 1, 256, dtype=np.float32)
            runs = np.arange(count) // 256
            centred = largest - np.float32(offset)
            scales = np.array([abs(centred[runs == run]).max() for run in range(runs[-1] + 1)])
            scales = np.maximum(scales, 1e-9).astype(np.float32)
            numbers = abs(steps[None] - (centred / scales[runs])[:, None]).argmin(1)
            largest = (steps[numbers] * scales[runs] + np.float32(offset)).astype(np.float32)
            parts = {"weight.absmax": numbers.astype(np.uint8), "weight.nested_absmax": scales}
            parts["weight.nested_quant_map"] = steps
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
        codes = abs(table - (padded / largest[:, None])[..., None]).argmin(2)
        found = (table[codes] * largest[:, None]).reshape(-1)[: flat.size].reshape(weight.shape)
        codes = codes.reshape(-1)[: flat.size].astype(np.uint8)
        parts["weight"] = (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1)
        parts["weight.quant_map"] = table
        text = json.dumps(state).encode()
        parts["weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8)
        return parts, found.astype(np.float32)

    return of


def compressed(
    bits: int, group: int, symmetric: bool
) -> Callable[[str, Array], tuple[Parts, Array]]:
    """compressed-tensors, pack-quantized: rows packed along inputs, zero points along outputs."""

    def of(name: str, weight: Array) -> tuple[Parts, Array]:
        order = np.arange(weight.shape[1]) // group
        numbers, zeros, scales = grouped(weight, bits, group, symmetric, order)
        parts = {
            "weight_packed": packed(numbers, bits),
            "weight_scale": np.ascontiguousarray(scales.T),
            "weight_shape": np.array(weight.shape, np.int64),
        }
        if not symmetric:
            # Packed along outputs: a column of words for every group.
            parts["weight_zero_point"] = np.ascontiguousarray(packed(zeros, bits).T)
        return parts, stands_for(numbers, zeros, scales, order)

    return of


def write(
    source: Path,
    folder: Path,
    quantize: Callable[[str, Array], tuple[Parts, Array]],
    described: dict[str, Any],
    dtype: str = "float16",
) -> dict[str, Array]:
    """The checkpoint of `source` with its layers' matrices quantized; returns what every tensor
    stands for, before it is rounded to the type that the model computes in."""
    opened = Checkpoint.open(source)
    folder.mkdir()
    for name, path in opened.files.items():
        if not name.startswith("model"):
            shutil.copy(path, folder / name)
    tensors: Parts = {}
    expected: dict[str, Array] = {}
    kind: Any = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    for name in opened.tensors:
        stored = opened.array(name)
        if not name.endswith(_MATRICES) or "lm_head" in name:
            tensors[name] = stored
            expected[name] = stored.astype(np.float32)
            continue
        module = name.removesuffix(".weight")
        parts, found = quantize(module, stored.astype(np.float32))
        tensors |= {
            f"{module}.{part}": np.ascontiguousarray(value) for part, value in parts.items()
        }
        expected[name] = found.astype(kind).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"quantization_config": described, "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config))
    return expected
