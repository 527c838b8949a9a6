"""Does this machine's C++ compiler break llama.cpp? Prints the flags that mend it where it does,
and nothing where it does not: those that leave AMX out, and with `--link` those of the linker.

Older GCCs (12.2 is one) name 8 of the 64 bytes that LDTILECFG reads as its operand, so an
optimizer drops the stores of the others, and the first product of llama.cpp on a processor with
AMX ends with a general protection fault (ggml-org/llama.cpp issue 20824). The compiler itself is
asked, as distributions mend older versions: what it makes of a function that fills a configuration
and loads it must still hold the function's argument.

Some installations of GCC put a copy of the C++ library into every library that they link, as where
none but the static one was found. llama.cpp is several libraries in one process. On one machine
with such copies it ended with SIGSEGV where a model is opened, and did not once they shared the
system's (docs/measurements/engine-ladder.md); on another the copies did no harm. So a small library
is linked, and where it does not name the system's C++ library, that one is named.

A program of its own, for the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
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

LINK_FLAGS = ("-Wl,--push-state,--no-as-needed", "-l:libstdc++.so.6", "-Wl,--pop-state")
"""What makes a library take the system's C++ library, in front of a copy."""
SHARED = (b"libstdc++.so", b"libc++.so")
"""Names of the C++ library that a library holds which does not hold a copy."""
_FORMATTED = """#include <sstream>
extern "C" unsigned long formatted(double number) {
    std::ostringstream out;
    out << number;
    return out.str().size();
}
"""


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


def link_flags(compiler: list[str] | None = None) -> tuple[str, ...]:
    """What the linker must be told by a compiler that puts a copy of the C++ library into each
    library; empty for any other, where it does not help, and on systems other than Linux."""
    command = compiler or _default()
    if not command or sys.platform != "linux":
        return ()
    carries = carries_copy(command)
    return LINK_FLAGS if carries and carries_copy(command, LINK_FLAGS) is False else ()


def carries_copy(compiler: list[str], flags: tuple[str, ...] = ()) -> bool | None:
    """Whether a library that the compiler links holds the C++ library itself; None where it links
    none."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.so")
        # The flags stand where LDFLAGS stand in CMake's rules: in front of what is linked.
        command = [*compiler, "-shared", "-fPIC", *flags, "-o", str(made), "-x", "c++", "-"]
        try:
            run = subprocess.run(
                command, input=_FORMATTED, capture_output=True, text=True, timeout=_LIMIT_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return holds_copy(made) if run.returncode == 0 else None


def holds_copy(library: Path) -> bool:
    """Whether a library of C++ names no library that it would share with others."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    return not any(name in content for name in SHARED)


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


def installed() -> Path:
    """Where the CPU library of llama-cpp-python would lie in this interpreter's packages."""
    from importlib.util import find_spec

    spec = find_spec("llama_cpp")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0] if folders else ".", "lib", "libggml-cpu.so")


def main(arguments: list[str]) -> int:
    """`--link` prints flags of the linker. `--installed-is-broken` says by its exit code 0 that the
    installed llama.cpp was made by a compiler that breaks it: that it has AMX, or copies of the C++
    library."""
    if "--installed-is-broken" in arguments:
        amx = bool(flags()) and compiled_in(installed())
        copies = bool(link_flags()) and holds_copy(installed().with_name("libllama.so"))
        return 0 if amx or copies else 1
    print(" ".join(link_flags() if "--link" in arguments else flags()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
