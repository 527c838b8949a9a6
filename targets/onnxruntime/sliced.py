"""ONNX Runtime's weight quantizers in slices: the same bytes with half the memory and a word of
progress.

The library works on a whole matrix at once and keeps a dozen copies of it meanwhile; for an output
matrix of 151,936 rows that alone takes 5 GB. Blocks do not depend on each other, so slices of rows
give the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from packager.cores import cores
from packager.runtime import Report

SLICE = 1 << 12
"""Blocks per slice: the copies of one slice stay within a processor's cache, which takes 40 % off
the time as well."""

_Array = np.ndarray[Any, Any]
Quantizer = Callable[..., tuple[_Array, _Array, _Array]]


def install(report: Report, weights: int) -> None:
    """Let the quantizers of this process work in slices and report their progress; `weights` is how
    many there are in all."""
    from onnxruntime.quantization.neural_compressor import weight_only

    rtn, k_quant = originals()
    done = 0

    def in_slices(quantizer: Quantizer) -> Quantizer:
        def quantize(
            data: _Array, num_bits: int = 4, group_size: int = 32, *how: Any
        ) -> tuple[_Array, _Array, _Array]:
            nonlocal done
            parts = sliced(quantizer, data, num_bits, group_size, *how)
            done += data.size
            report.progress(done, weights, "weights")
            return parts

        return quantize

    weight_only.quant_tensor = in_slices(rtn)
    # The name is that of the entry point. Left alone it takes a GPU where it finds one, which
    # rounds differently.
    weight_only.quant_tensor_k_quant_cuda = in_slices(k_quant)


@cache
def originals() -> tuple[Quantizer, Quantizer]:
    """The library's own functions, as they were before the first `install` of this process."""
    from onnxruntime.quantization.neural_compressor import weight_only

    return weight_only.quant_tensor, weight_only.quant_tensor_k_quant_cpu


def sliced(
    quantizer: Quantizer, data: _Array, bits: int, block: int, *how: Any
) -> tuple[_Array, _Array, _Array]:
    """What `quantizer` makes of all blocks: weights [blocks, block] as uint8, scales and zero
    points [blocks, 1]."""
    rows = np.reshape(data, (-1, block))

    def one(start: int) -> tuple[_Array, _Array, _Array]:
        weights, scales, zero_points = quantizer(rows[start : start + SLICE], bits, block, *how)
        return weights.astype(np.uint8), scales, zero_points

    with ThreadPoolExecutor(cores().at_once) as pool:
        parts = list(pool.map(one, range(0, len(rows), SLICE)))
    weights, scales, zero_points = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return weights, scales, zero_points
