"""Do the bytes of quantized weights depend on compiler, architecture and flags? Compiles ggml's
quantizers in several ways and compares.

    python benchmarks/quantizer_bytes.py llama_cpp_python-0.3.36/vendor/llama.cpp/ggml [--rows 64]

The folder is that of ggml in the source archive of llama-cpp-python. Only ggml-quants.c is
compiled, with the flags of a release. Compilers that are not installed are left out and named.
Programs for another architecture run under qemu-user. Prints a table, and one JSON object last:
build -> type -> share of blocks that differ from the first build.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COLUMNS = 1024
RELEASE = ("-O3", "-DNDEBUG", "-std=gnu11", "-w")
OFF = "-ffp-contract=off"
BLOCK_BYTES = {
    "Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24,
    "Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210,
    "IQ4_NL": 18, "IQ4_XS": 136, "IQ3_S": 110, "IQ3_XXS": 98, "IQ2_S": 82, "IQ2_XS": 74,
    "IQ2_XXS": 66,
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """One way to compile the quantizers."""

    name: str
    compiler: tuple[str, ...]
    flags: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()


def builds() -> list[Build]:
    """The first is the one that the others are held against: what a plain install compiles on
    x86-64."""
    arm = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
    riscv = ("qemu-riscv64", "-L", "/usr/riscv64-linux-gnu")
    rows: list[Build] = []
    for compiler in ("gcc", "clang"):
        for march in ((), ("-march=x86-64-v3",), ("-march=native",)):
            rows.append(Build(" ".join(("x86-64", compiler, *march)), (compiler,), march))
            rows.append(
                Build(" ".join(("x86-64", compiler, *march, OFF)), (compiler,), (*march, OFF))
            )
    rows.append(Build("x86-64 gcc -O2", ("gcc",), ("-O2",)))
    for name, compiler, runner in (
        ("aarch64 gcc", ("aarch64-linux-gnu-gcc",), arm),
        ("aarch64 clang", ("clang", "--target=aarch64-linux-gnu"), arm),
        ("riscv64 gcc", ("riscv64-linux-gnu-gcc",), riscv),
    ):
        rows += [
            Build(name, compiler, (), runner),
            Build(f"{name} {OFF}", compiler, (OFF,), runner),
        ]
    return rows


def inputs(folder: Path, rows: int) -> None:
    """Rows of numbers as weights have them: normal in float32 and rounded to bfloat16, and some
    outliers; importances beside them."""
    random = np.random.default_rng(1)
    values = random.standard_normal((rows, COLUMNS)).astype(np.float32) * np.float32(0.02)
    half = values[rows // 2 :].view(np.uint32)
    half &= np.uint32(0xFFFF0000)
    values[::8] *= np.where(random.random(COLUMNS) < 0.01, 20, 1).astype(np.float32)
    values.tofile(folder / "values")
    random.exponential(1.0, COLUMNS).astype(np.float32).tofile(folder / "weights")


def made(build: Build, ggml: Path, work: Path, rows: int) -> dict[str, bytes] | str:
    """The bytes of each type, or why there are none."""
    if shutil.which(build.compiler[0]) is None:
        return f"{build.compiler[0]} is not installed"
    if build.runner and shutil.which(build.runner[0]) is None:
        return f"{build.runner[0]} is not installed"
    program, out = work / "program", work / "out"
    sources = [str(Path(__file__).with_suffix(".c")), str(ggml / "src" / "ggml-quants.c")]
    headers = [f"-I{ggml / 'include'}", f"-I{ggml / 'src'}"]
    compiled = subprocess.run(
        [*build.compiler, *RELEASE, *build.flags, *headers, *sources, "-lm", "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode:
        return (compiled.stderr.strip().splitlines() or ["it does not compile"])[-1]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words = [
        str(program),
        str(rows),
        str(COLUMNS),
        str(work / "values"),
        str(work / "weights"),
        str(out),
    ]
    ran = subprocess.run([*build.runner, *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        return f"exit code {ran.returncode}: {ran.stderr.strip()[-200:]}"
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def differing(kind: str, one: bytes, other: bytes) -> float:
    """The share of blocks that are not the same."""
    size = BLOCK_BYTES[kind.removesuffix(".imatrix")]
    pair = (np.frombuffer(data, np.uint8).reshape(-1, size) for data in (one, other))
    return float(np.any(np.not_equal(*pair), axis=1).mean())


def main() -> int:
    """Compile, run, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ggml", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    result: dict[str, object] = {}
    first: dict[str, bytes] | None = None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        inputs(work, options.rows)
        for build in builds():
            outcome = made(build, options.ggml, work, options.rows)
            if isinstance(outcome, str):
                result[build.name] = outcome
                print(f"{build.name:44} {outcome}", file=sys.stderr)
                continue
            first = first or outcome
            shares = {kind: differing(kind, first[kind], data) for kind, data in outcome.items()}
            other = {kind: round(share, 5) for kind, share in shares.items() if share}
            result[build.name] = other
            told = ", ".join(f"{kind} {share:.2%}" for kind, share in other.items()) or "the same"
            print(f"{build.name:44} {told}", file=sys.stderr, flush=True)
    print(json.dumps({"rows": options.rows, "columns": COLUMNS, "builds": result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
