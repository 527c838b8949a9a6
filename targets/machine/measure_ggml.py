"""Matrix kernels of llama.cpp (ggml's CPU backend), driven directly: what decoding and prefill are
made of.

Weights lie in the buffer that llama.cpp itself would choose (repacked for this processor where it
does that), so the rates are those of its own kernels. Runs in a child process: a library of another
build may crash.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

COLUMNS, ROWS, _TILE = 2048, 8192, 256
_TYPES = {"q4_0": 2, "q8_0": 8, "q4_k": 12}
_F32 = 0
BATCH = 128


def library_folder() -> Path | None:
    """Where llama-cpp-python keeps its libraries; None where it is not installed. Imports
    nothing."""
    spec = find_spec("llama_cpp")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "lib"
        if _library(folder, "ggml-base") and _library(folder, "ggml-cpu"):
            return folder
    return None


def _library(folder: Path, name: str) -> Path | None:
    pattern = {"win32": f"{name}.dll", "darwin": f"lib{name}.dylib"}.get(
        sys.platform, f"lib{name}.so"
    )
    return next(iter(folder.glob(pattern)), None)


class _Params(ctypes.Structure):
    """ggml_init_params of ggml.h."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The functions of ggml.h, ggml-backend.h and ggml-cpu.h that are needed here."""

    def __init__(self, folder: Path) -> None:
        base_path, cpu_path = _library(folder, "ggml-base"), _library(folder, "ggml-cpu")
        if base_path is None or cpu_path is None:
            raise OSError(f"no ggml libraries in {folder}")
        self.base = ctypes.CDLL(str(base_path), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(cpu_path), mode=ctypes.RTLD_GLOBAL)
        pointer, size, whole, long = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64
        for library, name, result, arguments in (
            (self.base, "ggml_init", pointer, (_Params,)),
            (self.base, "ggml_free", None, (pointer,)),
            (self.base, "ggml_new_tensor_2d", pointer, (pointer, whole, long, long)),
            (self.base, "ggml_mul_mat", pointer, (pointer, pointer, pointer)),
            (self.base, "ggml_new_graph_custom", pointer, (pointer, size, ctypes.c_bool)),
            (self.base, "ggml_build_forward_expand", None, (pointer, pointer)),
            (self.base, "ggml_nbytes", size, (pointer,)),
            (self.base, "ggml_row_size", size, (whole, long)),
            (
                self.base,
                "ggml_quantize_chunk",
                size,
                (whole, pointer, pointer, long, long, long, pointer),
            ),
            (self.base, "ggml_backend_alloc_ctx_tensors_from_buft", pointer, (pointer, pointer)),
            (self.base, "ggml_backend_tensor_set", None, (pointer, pointer, size, size)),
            (self.base, "ggml_backend_graph_compute", whole, (pointer, pointer)),
            (self.base, "ggml_backend_buffer_free", None, (pointer,)),
            (self.base, "ggml_backend_reg_get_proc_address", pointer, (pointer, ctypes.c_char_p)),
            (self.base, "ggml_backend_reg_dev_get", pointer, (pointer, size)),
            (self.base, "ggml_backend_dev_buffer_type", pointer, (pointer,)),
            (self.base, "ggml_backend_buft_name", ctypes.c_char_p, (pointer,)),
            (self.base, "ggml_backend_free", None, (pointer,)),
            (self.cpu, "ggml_backend_cpu_init", pointer, ()),
            (self.cpu, "ggml_backend_cpu_reg", pointer, ()),
            (self.cpu, "ggml_backend_cpu_set_n_threads", None, (pointer, whole)),
            *(
                (self.cpu, f"ggml_cpu_has_{flag}", whole, ())
                for flag in ("avx2", "neon", "dotprod")
            ),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Functions are set in the constructor."""
        raise AttributeError(name)

    def weight_buffer_type(self, kind: str) -> int:
        """The buffer type llama.cpp gives weights of this kind: the repacking one where it has a
        layout for them."""
        registry = self.ggml_backend_cpu_reg()
        device = self.ggml_backend_reg_dev_get(registry, 0)
        plain = int(self.ggml_backend_dev_buffer_type(device))
        # ggml-cpu/repack.cpp has layouts of Q4_0 and Q4_K for these; asking it about others ends in
        # a null pointer.
        if kind not in ("q4_0", "q4_k") or not (
            self.ggml_cpu_has_avx2() or (self.ggml_cpu_has_neon() and self.ggml_cpu_has_dotprod())
        ):
            return plain
        address = self.ggml_backend_reg_get_proc_address(
            registry, b"ggml_backend_dev_get_extra_bufts"
        )
        if not address:
            return plain
        extra = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
        index = 0
        while extra and extra[index]:
            if self.ggml_backend_buft_name(extra[index]) == b"CPU_REPACK":
                return int(extra[index] or 0)
            index += 1
        return plain


class GgmlWork:
    """A stack of weight matrices of one kind, `bytes_total` large, ready to be multiplied with one
    or many tokens.

    `rows` is a multiple of 256.
    """

    def __init__(
        self, ggml: Ggml, kind: str, bytes_total: int, columns: int = COLUMNS, rows: int = ROWS
    ) -> None:
        self._ggml, self._type, self._columns, self._rows = ggml, _TYPES[kind], columns, rows
        row = ggml.ggml_row_size(self._type, columns)
        self.count: int = max(2, bytes_total // (row * rows))
        self.bytes: int = self.count * row * self._rows
        self._backend = ggml.ggml_backend_cpu_init()
        self._weights_context = self._context()
        self._weights = [
            ggml.ggml_new_tensor_2d(self._weights_context, self._type, self._columns, self._rows)
            for _ in range(self.count)
        ]
        self._weights_buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(
            self._weights_context, ggml.weight_buffer_type(kind)
        )
        if not self._weights_buffer:
            raise MemoryError
        data = self._quantized(row)
        for tensor in self._weights:
            ggml.ggml_backend_tensor_set(tensor, data, 0, row * self._rows)
        self._graphs = {tokens: self._graph(tokens) for tokens in (1, BATCH)}

    def decode(self, threads: int) -> float:
        """Multiply one token with all matrices; return the bytes of weights read."""
        self._run(1, threads)
        return float(self.bytes)

    def prefill(self, threads: int) -> float:
        """Multiply a batch of tokens with all matrices of the smaller graph; return the operations
        done."""
        self._run(BATCH, threads)
        return 2.0 * self._columns * self._rows * self._used(BATCH) * BATCH

    def close(self) -> None:
        """Free the memory."""
        for context, buffer, _ in self._graphs.values():
            self._ggml.ggml_backend_buffer_free(buffer)
            self._ggml.ggml_free(context)
        self._ggml.ggml_backend_buffer_free(self._weights_buffer)
        self._ggml.ggml_free(self._weights_context)
        self._ggml.ggml_backend_free(self._backend)

    def _used(self, tokens: int) -> int:
        """A batch takes the first two matrices: arithmetic bounds it, and more would only take
        longer."""
        return self.count if tokens == 1 else 2

    def _context(self) -> int:
        context = self._ggml.ggml_init(_Params(4 << 20, None, True))
        if not context:
            raise MemoryError
        return int(context)

    def _graph(self, tokens: int) -> tuple[int, int, int]:
        """(context, buffer, graph) of all products with `tokens` columns."""
        ggml, context = self._ggml, self._context()
        graph = ggml.ggml_new_graph_custom(context, 2048, False)
        inputs = ggml.ggml_new_tensor_2d(context, _F32, self._columns, tokens)
        for weights in self._weights[: self._used(tokens)]:
            ggml.ggml_build_forward_expand(graph, ggml.ggml_mul_mat(context, weights, inputs))
        device = ggml.ggml_backend_reg_dev_get(ggml.ggml_backend_cpu_reg(), 0)
        buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(
            context, ggml.ggml_backend_dev_buffer_type(device)
        )
        if not buffer:
            raise MemoryError
        token = (ctypes.c_float * self._columns)(
            *(((i * 7919) % 2001 - 1000) / 1000 for i in range(self._columns))
        )
        values = ctypes.create_string_buffer(bytes(token) * tokens, ctypes.sizeof(token) * tokens)
        ggml.ggml_backend_tensor_set(inputs, values, 0, ctypes.sizeof(values))
        return context, buffer, graph

    def _quantized(self, row: int) -> ctypes.Array[ctypes.c_char]:
        """One matrix: `_TILE` quantized rows, repeated. Their values do not matter for the speed,
        but must be finite."""
        import random

        dice = random.Random(0)
        floats = (ctypes.c_float * (self._columns * _TILE))(
            *(dice.gauss(0, 0.02) for _ in range(self._columns * 4))
        )
        step = ctypes.sizeof(ctypes.c_float) * self._columns * 4
        for start in range(step, ctypes.sizeof(floats), step):
            ctypes.memmove(ctypes.addressof(floats) + start, floats, step)
        tile = ctypes.create_string_buffer(row * _TILE)
        self._ggml.ggml_quantize_chunk(self._type, floats, tile, 0, _TILE, self._columns, None)
        return ctypes.create_string_buffer(tile.raw * (self._rows // _TILE), row * self._rows)

    def _run(self, tokens: int, threads: int) -> None:
        self._ggml.ggml_backend_cpu_set_n_threads(self._backend, threads)
        status = self._ggml.ggml_backend_graph_compute(self._backend, self._graphs[tokens][2])
        if status != 0:
            raise OSError(f"ggml_backend_graph_compute returned {status}")
