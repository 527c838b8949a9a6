"""Rows of float32 become rows of a ggml type: numpy's kernels give the bytes of ggml's own, so a
light install writes the same files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from packager.errors import ExitCode, PackError
from targets.gguf.kernels import GgmlKernels, NumpyKernels, block, row_bytes, type_id

pytestmark = pytest.mark.engine

# Below 1e-30 numpy's reciprocal of a block's scale overflows; no weight is that small.
FLOATS = st.floats(-60000, 60000, width=32).map(
    lambda value: value if abs(value) > 1e-30 else value * 0
)
ROWS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4).map(
        lambda sides: (sides[0], 32 * sides[1])
    ),
    elements=FLOATS,
)


def encoded(kernels: Any, name: str, rows: np.ndarray[Any, Any]) -> bytes:
    out = np.empty(rows.shape[0] * row_bytes(name, rows.shape[1]), np.uint8)
    kernels.encode(name, rows, out, None)
    return out.tobytes()


@pytest.mark.parametrize("name", NumpyKernels.types)
@given(rows=ROWS)
@settings(max_examples=50, deadline=None)
def test_numpy_and_ggml_give_the_same_bytes(name: str, rows: np.ndarray[Any, Any]) -> None:
    assert encoded(NumpyKernels(), name, rows) == encoded(GgmlKernels(), name, rows)


@pytest.mark.parametrize("name", NumpyKernels.types)
def test_numpy_and_ggml_give_the_same_bytes_for_weights_as_models_have_them(name: str) -> None:
    rows = (np.random.default_rng(3).standard_normal((512, 896)) * 0.02).astype(np.float32)
    assert encoded(NumpyKernels(), name, rows) == encoded(GgmlKernels(), name, rows)


@pytest.mark.parametrize("name", NumpyKernels.types)
def test_both_round_what_lies_in_the_middle_alike(name: str) -> None:
    """Blocks of halves and quarters of their own largest step, at every scale a weight may have."""
    random = np.random.default_rng(7)
    steps = random.integers(-512, 513, (400, 256)) / 4
    rows = (steps * 2.0 ** random.integers(-60, 8, (400, 1))).astype(np.float32)
    assert encoded(NumpyKernels(), name, rows) == encoded(GgmlKernels(), name, rows)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_both_read_stored_numbers_alike(dtype: str) -> None:
    raw = np.random.default_rng(5).standard_normal(64, dtype=np.float32)
    stored = {
        "F32": raw.view(np.uint8),
        "F16": raw.astype(np.float16).view(np.uint8),
        "BF16": (raw.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
    }[dtype]
    found = []
    for kernels in (GgmlKernels(), NumpyKernels()):
        out = np.empty((2, 32), np.float32)
        kernels.to_f32(dtype, stored, out)
        found.append(out.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_both_see_what_is_no_number(bad: float) -> None:
    for kernels in (GgmlKernels(), NumpyKernels()):
        values = np.ones((2, 32), np.float32)
        assert kernels.finite(values)
        values[1, 31] = bad
        assert not kernels.finite(values)


def test_a_row_takes_whole_blocks() -> None:
    assert block("Q4_K") == (256, 144)
    assert row_bytes("Q8_0", 896) == 28 * 34


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(PackError, match="'Q9_Z'") as caught:
        type_id("Q9_Z")
    assert caught.value.exit_code == ExitCode.USAGE


def test_types_that_only_ggml_knows_are_refused_without_it() -> None:
    with pytest.raises(PackError, match="not installed"):
        encoded(NumpyKernels(), "Q4_K", np.ones((1, 256), np.float32))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is loaded")
def test_ggml_is_loaded_once_however_it_is_reached() -> None:
    pytest.importorskip("llama_cpp")
    script = """
from targets.gguf import library
for load in ORDER:
    getattr(library, load)()
lines = open("/proc/self/maps").read().splitlines()
print(*sorted({line.split()[-1] for line in lines if "ggml-base" in line}))
"""
    for order in (["ggml_base", "llama"], ["llama", "ggml_base"]):
        words = [sys.executable, "-P", "-c", script.replace("ORDER", repr(order))]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        loaded = done.stdout.split()
        assert len(loaded) == 1, loaded
