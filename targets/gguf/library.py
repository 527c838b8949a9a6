"""llama.cpp's shared libraries, as llama-cpp-python brings them: the kernels of ggml, the log, the
dry run."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packager.errors import PackError, usage

SPIN = "20000"
"""Rounds that a waiting thread of GNU's OpenMP spins before it sleeps: as fast as spinning for ever
on an idle machine (docs/measurements/forecast.md), and over in some microseconds on a busy one."""

EXTRA_BUFFERS = "QWEN_PACK_LLAMA_CPP_EXTRA_BUFFERS"
"""The variable that is 0 where weights must stay as the file has them, see ladder.toml."""

_LINE_LIMIT = 4000


def installed() -> bool:
    """Whether llama-cpp-python is there; nothing is imported."""
    return find_spec("llama_cpp") is not None


def missing() -> PackError:
    """The sentence for its absence."""
    return usage(
        "llama-cpp-python is not installed.", "Install it: pip install 'qwen-pack[llama-cpp]'."
    )


def base_file() -> Path:
    """The file of libggml-base. Raises PackError when it is not installed."""
    spec = find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise missing()
    folder = Path(next(iter(spec.submodule_search_locations))) / "lib"
    path = _linked_name(folder)
    if path is None:
        raise usage(f"{folder} holds no ggml-base library.", "Install llama-cpp-python again.")
    return path


def _linked_name(folder: Path) -> Path | None:
    """ggml-base under the name by which the other libraries are linked to it; None where it is not
    there.

    A wheel holds no links: libggml-base.so and libggml-base.so.0 are two files in it, and opening
    the one that libllama does not name would load the library a second time, with registries of its
    own. With CUDA that ends in a segmentation fault.
    """
    if sys.platform == "win32":
        names = ["ggml-base.dll", "libggml-base.dll"]
    elif sys.platform == "darwin":
        names = ["libggml-base.0.dylib", "libggml-base.dylib"]
    else:
        names = ["libggml-base.so.0", "libggml-base.so"]
    return next((folder / name for name in names if (folder / name).exists()), None)


@functools.cache
def ggml_base() -> ctypes.CDLL:
    """libggml-base with the signatures used here. Raises PackError when it is not installed.

    ctypes releases the interpreter's lock during each call, so threads of Python run its kernels at
    once.
    """
    library = ctypes.CDLL(str(base_file()))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        pointer,
        pointer,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        pointer,
    ]
    library.ggml_quantize_chunk.restype = size
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    for name in (
        "ggml_bf16_to_fp32_row",
        "ggml_fp16_to_fp32_row",
        "ggml_fp32_to_fp16_row",
        "ggml_fp32_to_bf16_row",
    ):
        function = getattr(library, name)
        function.argtypes = [pointer, pointer, ctypes.c_int64]
        function.restype = None
    return library


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Everything the library says meanwhile, as complete text pieces; afterwards its log is
    silent."""
    lib = llama()
    lines: list[str] = []

    def listen(_level: int, text: bytes, _user: Any) -> None:
        lines.append(text.decode("utf-8", "replace")[:_LINE_LIMIT])

    callback = lib.llama_log_callback(listen)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        silence()


@functools.cache
def _quiet() -> Any:
    return llama().llama_log_callback(lambda _level, _text, _user: None)


def silence() -> None:
    """Drop what the library logs from now on."""
    llama().llama_log_set(_quiet(), ctypes.c_void_p(0))


@functools.cache
def llama() -> Any:
    """The low-level API of llama-cpp-python, its backend started. Raises PackError when it is not
    installed."""
    # OpenMP reads these once, when the library loads. Threads that spin for long starve one another
    # on a machine that others use, and threads that never spin wait for the scheduler after each of
    # a token's several hundred operations.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    try:
        # Late: it loads the engine.
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise missing() from error
    llama_cpp.llama_backend_init()
    return llama_cpp


def model_params() -> Any:
    """Parameters to load a model with: llama.cpp's own, and what this process was told to leave
    out."""
    params = llama().llama_model_default_params()
    if os.environ.get(EXTRA_BUFFERS) == "0":
        params.use_extra_bufts = False
    return params


def version() -> str | None:
    """Version of llama-cpp-python, None when it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("llama-cpp-python")
    except PackageNotFoundError:
        return None
