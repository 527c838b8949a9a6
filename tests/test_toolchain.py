"""The toolchain behind quantized weights: what the manifest says of it."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from targets.gguf import library
from targets.gguf.kernels import GgmlKernels, kernels
from targets.gguf.toolchain import ROUNDED, arithmetic, probe_rows, toolchain

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not library.installed(), reason="llama-cpp-python is not installed"),
]


def test_the_rows_that_tell_quantizers_apart_are_exact_and_no_two_are_alike() -> None:
    rows = probe_rows()
    assert np.array_equal(rows * 2.0**16, np.round(rows * 2.0**16)) and np.abs(rows).max() < 0.13
    assert len(np.unique(rows, axis=0)) == len(rows) and 0.01 < rows.std() < 0.1


def test_a_plain_install_on_x86_rounds_every_product_and_says_so() -> None:
    known = toolchain()
    assert known["architecture"] == platform.machine()
    assert known["ggml compiler"].split()[0] in ("gcc", "clang", "unknown")
    assert known["ggml arithmetic"].endswith(f"({arithmetic(kernels())})")
    # The base of x86-64 has no instruction that fuses, whatever the processor has.
    assert platform.machine() != "x86_64" or ROUNDED in known["ggml arithmetic"]


def test_quantizers_that_round_otherwise_have_another_digest() -> None:
    class Fused(GgmlKernels):
        def encode(self, name: str, rows: object, out: object, imatrix: object) -> None:
            super().encode(name, rows, out, imatrix)  # type: ignore[arg-type]
            out[7] ^= name == "Q2_K"  # type: ignore[index]

    assert arithmetic(Fused()) != arithmetic(GgmlKernels())
