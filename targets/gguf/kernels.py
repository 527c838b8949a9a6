"""The arithmetic: rows of float32 become rows of a ggml type.

Two implementations give the same bytes. ggml's own kernels know every type; the gguf package's
numpy ones know those that openvino-genai reads (F16, Q8_0, Q4_0) and need no engine.
"""

from __future__ import annotations

from typing import Any, Protocol

import gguf
import numpy as np
import numpy.typing as npt

from packager.errors import usage
from targets.gguf import library

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per element of what checkpoints store."""


def type_id(name: str) -> int:
    """ggml's number of a type. Raises PackError (usage) for an unknown name."""
    try:
        return int(gguf.GGMLQuantizationType[name.upper()])
    except KeyError:
        known = ", ".join(kind.name for kind in gguf.GGMLQuantizationType)
        raise usage(f"ggml has no type {name!r}.", f"Known: {known}.") from None


def block(name: str) -> tuple[int, int]:
    """(elements, bytes) of one block of a type."""
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_id(name))]
    return int(elements), int(size)


def row_bytes(name: str, columns: int) -> int:
    """Bytes of a row; `columns` is a multiple of the block."""
    elements, size = block(name)
    return columns // elements * size


class Kernels(Protocol):
    """Converts blocks of rows. All arrays are contiguous; methods may run in several threads at
    once."""

    def to_f32(self, dtype: str, raw: Bytes, out: Floats) -> None:
        """Bytes of BF16, F16, F32 or F64 numbers as float32."""

    def finite(self, values: Floats) -> bool:
        """Whether there is neither NaN nor infinity."""

    def encode(self, name: str, rows: Floats, out: Bytes, imatrix: Floats | None) -> None:
        """`rows` (rows x columns) as `name`; `imatrix` weighs the columns."""


class GgmlKernels:
    """ggml's kernels through ctypes."""

    def __init__(self) -> None:
        self._ggml = library.ggml_base()
        self._to_f32 = {
            "BF16": self._ggml.ggml_bf16_to_fp32_row,
            "F16": self._ggml.ggml_fp16_to_fp32_row,
        }
        self._from_f32 = {
            "BF16": self._ggml.ggml_fp32_to_bf16_row,
            "F16": self._ggml.ggml_fp32_to_fp16_row,
        }

    def to_f32(self, dtype: str, raw: Bytes, out: Floats) -> None:
        """See Kernels."""
        if dtype == "F32":
            out.reshape(-1).view(np.uint8)[:] = raw
        elif dtype == "F64":
            out.reshape(-1)[:] = _from_f64(raw)
        else:
            self._to_f32[dtype](raw.ctypes.data, out.ctypes.data, out.size)

    def finite(self, values: Floats) -> bool:
        """See Kernels."""
        # Six times as fast as ggml_validate_row_data, on rows that are in the cache.
        return bool(np.isfinite(values).all())

    def encode(self, name: str, rows: Floats, out: Bytes, imatrix: Floats | None) -> None:
        """See Kernels."""
        if name == "F32":
            out[:] = rows.reshape(-1).view(np.uint8)
        elif name in self._from_f32:
            self._from_f32[name](rows.ctypes.data, out.ctypes.data, rows.size)
        else:
            weights = imatrix.ctypes.data if imatrix is not None else None
            self._ggml.ggml_quantize_chunk(
                type_id(name),
                rows.ctypes.data,
                out.ctypes.data,
                0,
                rows.shape[0],
                rows.shape[1],
                weights,
            )


class NumpyKernels:
    """The gguf package's kernels: no engine needed, fewer types, no importance matrix."""

    types = ("F32", "F16", "BF16", "Q8_0", "Q4_0")

    def to_f32(self, dtype: str, raw: Bytes, out: Floats) -> None:
        """See Kernels."""
        flat = out.reshape(-1)
        if dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            np.left_shift(raw.view(np.uint16), 16, out=flat.view(np.uint32), dtype=np.uint32)
        elif dtype == "F64":
            flat[:] = _from_f64(raw)
        else:
            flat[:] = raw.view("<f2" if dtype == "F16" else "<f4")

    def finite(self, values: Floats) -> bool:
        """See Kernels."""
        return bool(np.isfinite(values).all())

    def encode(self, name: str, rows: Floats, out: Bytes, imatrix: Floats | None) -> None:
        """See Kernels."""
        if name not in self.types or imatrix is not None:
            raise library.missing()
        # Adding zero makes -0 to +0: ggml takes the sign of a block of zeros from +0, numpy's Q4_0
        # from what is there.
        numbers = rows + np.float32(0) if name == "Q4_0" else rows
        quantized: Any = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name])
        out[:] = quantized.reshape(-1).view(np.uint8)


def _from_f64(raw: Bytes) -> Floats:
    # What float32 cannot hold becomes infinity, which is refused afterwards by name.
    with np.errstate(over="ignore"):
        return raw.view("<f8").astype(np.float32)


def kernels() -> Kernels:
    """ggml's where it is installed, numpy's otherwise."""
    return GgmlKernels() if library.installed() else NumpyKernels()
