"""What the bytes of quantized weights depend on beside the versions: architecture, compiler, and
how products and sums are rounded.

Where a compiler fuses a product and a sum into one instruction, the intermediate result is not
rounded, and a search over scales may prefer another one; see docs/measurements/quantizer-bytes.md.
Nothing in the library says how it was compiled, so its quantizers are asked to work on rows that
tell the two apart.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import re

import numpy as np

from targets.gguf import library
from targets.gguf.kernels import Floats, Kernels, kernels, row_bytes

_ROWS, _COLUMNS = 64, 1024
_ASKED = ("Q4_0", "Q5_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_COMPILERS = re.compile(rb"GCC: \([^)\0]{0,80}\) (?P<gcc>[0-9.]+)|clang version (?P<clang>[0-9.]+)")

ROUNDED = "b635d2663cd9"
"""The digest of quantizers that round every product: the same from every compiler and on every
architecture."""


def toolchain() -> dict[str, str]:
    """Names and values for the manifest's `tools`."""
    known = {"architecture": platform.machine()}
    if not library.installed():
        return known
    digest = arithmetic(kernels())
    rounding = "every product rounded" if digest == ROUNDED else "products and sums fused"
    return known | {"ggml compiler": _compiler(), "ggml arithmetic": f"{rounding} ({digest})"}


@functools.cache
def probe_rows() -> Floats:
    """Rows of numbers about as weights are spread, made of integers alone: the same on every
    machine."""
    numbers = np.arange(4 * _ROWS * _COLUMNS, dtype=np.uint64)
    numbers = (numbers * np.uint64(2862933555777941757) + np.uint64(3037000493)) >> np.uint64(40)
    parts = (numbers % np.uint64(4096)).astype(np.int64).reshape(4, _ROWS, _COLUMNS) - 2048
    # A sum of four is below 2^14, and a power of two keeps it exact.
    return np.ascontiguousarray(parts.sum(axis=0), dtype=np.float32) * np.float32(2.0**-16)


def arithmetic(quantizers: Kernels) -> str:
    """A digest of what the quantizers make of the probe rows."""
    digest, rows = hashlib.sha256(), probe_rows()
    for name in _ASKED:
        out = np.zeros(_ROWS * row_bytes(name, _COLUMNS), dtype=np.uint8)
        quantizers.encode(name, rows, out, None)
        digest.update(out.tobytes())
    return digest.hexdigest()[:12]


@functools.cache
def _compiler() -> str:
    """The compiler by the mark that it leaves in the library; "unknown" where there is none, as in
    libraries for Windows."""
    compiler = _COMPILERS.search(library.base_file().read_bytes())
    if compiler is None:
        return "unknown"
    return " ".join((compiler.lastgroup or "", compiler[compiler.lastgroup or 0].decode()))
