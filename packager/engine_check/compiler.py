"""Does this machine's C++ compiler break AMX? Prints the flags that leave AMX out where it does,
and nothing where it does not.

Older GCCs (12.2 is one) name 8 of the 64 bytes that LDTILECFG reads as its operand, so an
optimizer drops the stores of the others, and the first product of llama.cpp on a processor with
AMX ends with a general protection fault (ggml-org/llama.cpp issue 20824). The compiler itself is
asked, as distributions mend older versions: what it makes of a function that fills a configuration
and loads it must still hold the function's argument.

A program of its own, for the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

FLAGS = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
SYMBOL = b"ggml_backend_amx_mul_mat"
"""A function that is in llama.cpp's library where it was compiled for AMX."""

_SOURCE = """#include <immintrin.h>
extern "C" void configure(unsigned char rows) {
    unsigned char config[64] = {1};
    config[48] = rows;
    _tile_loadconfig(config);
}
"""
_ARGUMENT = ("%dil", "%edi", "%rdi", "%cl", "%ecx", "%rcx")
"""Registers that hold the first argument, of Unix and of Windows."""
_LIMIT_S = 60


def flags(compiler: list[str] | None = None) -> tuple[str, ...]:
    """What leaves AMX out, for a compiler (by default the one that CMake would take) that breaks
    it; empty for any other."""
    command = compiler or _default()
    if not command or platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    made = assembly(command)
    return FLAGS if made is not None and breaks(made) else ()


def assembly(compiler: list[str]) -> str | None:
    """What the compiler makes of the function; None where it knows no AMX, so that it makes no code
    for it either."""
    command = [*compiler, "-O2", "-mamx-tile", "-x", "c++", "-S", "-o", "-", "-"]
    try:
        run = subprocess.run(
            command, input=_SOURCE, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout if run.returncode == 0 and "ldtilecfg" in run.stdout else None


def breaks(made: str) -> bool:
    """Whether the argument is nowhere used: its store was dropped, and with it most of the
    configuration."""
    return not any(register in line for line in made.splitlines() for register in _ARGUMENT)


def compiled_in(library: Path) -> bool:
    """Whether a library of llama.cpp was compiled for AMX."""
    try:
        return SYMBOL in library.read_bytes()
    except OSError:
        return False


def _default() -> list[str] | None:
    named = shlex.split(os.environ.get("CXX", ""))
    compiler = next(
        (program for program in map(shutil.which, ("c++", "g++", "clang++")) if program), None
    )
    return named or ([compiler] if compiler else None)


def _installed() -> Path:
    """Where the CPU library of llama-cpp-python lies in this interpreter's packages."""
    from importlib.util import find_spec

    spec = find_spec("llama_cpp")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0] if folders else ".", "lib", "libggml-cpu.so")


def main(arguments: list[str]) -> int:
    """`--installed-is-broken` says by its exit code 0 that the installed llama.cpp has AMX by a
    compiler that breaks it."""
    if "--installed-is-broken" in arguments:
        return 0 if flags() and compiled_in(_installed()) else 1
    print(" ".join(flags()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
