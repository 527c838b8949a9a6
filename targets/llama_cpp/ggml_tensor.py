"""A tensor of ggml as it lies in memory: which matrix a node of the graph multiplies with what.

The library has functions for a tensor's name and data, none for its sources, so its layout
(ggml/include/ggml.h) is needed. It is never trusted: `checked_layout` makes a product of two
matrices and compares what it reads of that with what it made.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from packager.errors import usage
from targets.gguf import library
from targets.gguf.kernels import Floats

F32, I32 = 0, 26
"""Numbers of ggml's types: part of the GGUF format, so they do not move."""


class Tensor(ctypes.Structure):
    """The fields of `struct ggml_tensor` up to its name. `ne` are sizes, innermost first, `nb`
    strides in bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )

    def source(self, number: int) -> Tensor:
        """A source that is there."""
        return at(self.src[number])

    def array(self) -> Floats:
        """A view of float32 or int32 numbers that lie in this process's memory, outermost dimension
        first."""
        kind: Any = np.float32 if self.type == F32 else np.int32
        sizes, strides = tuple(self.ne)[::-1], tuple(self.nb)[::-1]
        last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        assert self.data is not None
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * (last + 4)).from_address(self.data))
        return np.ndarray(sizes, kind, raw, 0, strides)


class Operations:
    """Numbers of the two operations that multiply with weights; they move from release to
    release."""

    def __init__(self, product: int, chosen_product: int) -> None:
        self.product, self.chosen_product = product, chosen_product


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def at(address: int | None) -> Tensor:
    """The tensor at that address."""
    assert address is not None
    return Tensor.from_address(address)


@functools.cache
def checked_layout() -> Operations:
    """Make two products, read them back through `Tensor`, and return the numbers of their
    operations.

    Raises PackError (usage) when the installed library lays its tensors out otherwise.
    """
    ggml = library.ggml_base()
    pointer = ctypes.c_void_p
    for name, arguments in (
        ("ggml_init", [_InitParams]),
        ("ggml_new_tensor_2d", [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
        (
            "ggml_new_tensor_3d",
            [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64],
        ),
        ("ggml_set_name", [pointer, ctypes.c_char_p]),
        ("ggml_mul_mat", [pointer, pointer, pointer]),
        ("ggml_mul_mat_id", [pointer, pointer, pointer, pointer]),
    ):
        function = getattr(ggml, name)
        function.argtypes, function.restype = arguments, pointer
    ggml.ggml_free.argtypes, ggml.ggml_free.restype = [pointer], None
    context = ggml.ggml_init(_InitParams(1 << 20, None, False))
    try:
        weight, given = (
            ggml.ggml_new_tensor_2d(context, F32, 8, 3),
            ggml.ggml_new_tensor_2d(context, F32, 8, 5),
        )
        stack, rows = (
            ggml.ggml_new_tensor_3d(context, F32, 8, 3, 4),
            ggml.ggml_new_tensor_3d(context, F32, 8, 2, 5),
        )
        ids = ggml.ggml_new_tensor_2d(context, I32, 2, 5)
        ggml.ggml_set_name(weight, b"a name to find")
        one, two = (
            at(ggml.ggml_mul_mat(context, weight, given)),
            at(ggml.ggml_mul_mat_id(context, stack, rows, ids)),
        )
        read, numbers = at(given), at(ids)
        as_made = (
            one.src[0] == weight
            and one.src[1] == given
            and two.src[:3] == [stack, rows, ids]
            and at(weight).name == b"a name to find"
            and (read.type, numbers.type) == (F32, I32)
            and tuple(read.ne) == (8, 5, 1, 1)
            and tuple(read.nb) == (4, 32, 160, 160)
            and tuple(one.ne) == (3, 5, 1, 1)
            and bool(read.data)
            and one.op != two.op
        )
        operations = Operations(one.op, two.op)
    finally:
        ggml.ggml_free(context)
    if not as_made:
        raise usage(
            f"llama-cpp-python {library.version()} lays its tensors out in a way that is not known "
            "here.",
            "Collect the importance matrix with llama-imatrix and give it with --imatrix.",
        )
    return operations
