"""ONNX Runtime's k_quant in slices: the same bytes with half the memory.

The library searches the scales of a whole matrix at once and keeps a dozen copies of it meanwhile; for an output matrix
of 151,936 rows that alone takes 5 GB. Blocks do not depend on each other, so slices of rows give the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from packager.runtime import Report

SLICE = 1 << 14
"""Blocks per slice: the working copies stay within a few megabytes."""

_Parts = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
Quantizer = Callable[..., _Parts]


def install(report: Report, weights: int) -> None:
    """Let the quantizer of this process work in slices and report its progress; `weights` is how many there are in all."""
    from onnxruntime.quantization.neural_compressor import weight_only

    done = 0

    def quantize(data: np.ndarray[Any, Any], num_bits: int = 4, group_size: int = 32) -> _Parts:
        nonlocal done
        parts = sliced(weight_only.quant_tensor_k_quant_cpu, data, num_bits, group_size)
        done += data.size
        report.progress(done, weights, "weights")
        return parts

    # The name is that of the entry point; it would fall back to the CPU, or use a GPU, whose rounding differs.
    weight_only.quant_tensor_k_quant_cuda = quantize


def sliced(quantizer: Quantizer, data: np.ndarray[Any, Any], bits: int, block: int) -> _Parts:
    """What `quantizer` makes of all blocks: weights [blocks, block] as uint8, scales and zero points [blocks, 1]."""
    rows = np.reshape(data, (-1, block))

    def one(start: int) -> _Parts:
        weights, scales, zero_points = quantizer(rows[start : start + SLICE], bits, block)
        return weights.astype(np.uint8), scales, zero_points

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(one, range(0, len(rows), SLICE)))
    weights, scales, zero_points = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return weights, scales, zero_points
