"""The instruction set of this machine, in the words of device files
(targets/devices/device_schema.py)."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_NAMES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_X86 = {
    **{
        name: name
        for name in (
            "sse4_2",
            "avx",
            "f16c",
            "fma",
            "avx2",
            "avx_vnni",
            "avx512_bf16",
            "avx512_fp16",
            "avx512_vnni",
            "amx_int8",
            "amx_bf16",
        )
    },
    "avx512f": "avx512",
}
_ARM = {
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    **{n: n for n in ("i8mm", "bf16", "sve", "sve2", "sme", "sme2")},
}
_MAC = {
    "FEAT_FP16": "fp16",
    "FEAT_DotProd": "dotprod",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
    "FEAT_SME": "sme",
    "FEAT_SME2": "sme2",
}
_WINDOWS_X86 = {38: "sse4_2", 39: "avx", 40: "avx2", 41: "avx512"}
_WINDOWS_ARM = {19: "neon", 43: "dotprod"}


def processor(
    root: Path = Path("/"), machine: str = "", system: str = sys.platform
) -> tuple[str, tuple[str, ...]]:
    """(name of the processor, architecture and extensions). Unknown extensions are left out, never
    guessed."""
    machine = (machine or platform.machine()).casefold()
    architecture = _NAMES.get(machine, machine)
    rows = _cpuinfo(root)
    if rows:
        name = (
            rows.get("model name")
            or rows.get("Model")
            or rows.get("uarch")
            or platform.processor()
            or architecture
        )
        return name, (architecture, *_from_cpuinfo(architecture, rows))
    if system == "darwin":
        return _sysctl("machdep.cpu.brand_string") or architecture, (
            architecture,
            *_from_sysctl(architecture, _sysctl),
        )
    if system == "win32":
        return platform.processor() or architecture, (architecture, *_from_windows(architecture))
    return platform.processor() or architecture, (architecture,)


def _from_cpuinfo(architecture: str, rows: dict[str, str]) -> tuple[str, ...]:
    if architecture == "riscv64":
        return riscv_extensions(rows.get("isa", ""))
    known, flags = (
        (_X86, rows.get("flags", ""))
        if architecture == "x86_64"
        else (_ARM, rows.get("Features", ""))
    )
    present = set(flags.split())
    return tuple(dict.fromkeys(word for flag, word in known.items() if flag in present))


def riscv_extensions(isa: str) -> tuple[str, ...]:
    """`rv64imafdcv_zicbom_zvfh` -> ("rvv", "zvfh"): single letters stand before the first
    underscore."""
    letters, *long = isa.strip().casefold().split("_")
    vector = re.match(r"rv64[a-y]*v", letters) is not None
    return (("rvv",) if vector else ()) + (("zvfh",) if "zvfh" in long else ())


def _cpuinfo(root: Path) -> dict[str, str]:
    """Rows of /proc/cpuinfo, of each name the first."""
    rows: dict[str, str] = {}
    with (
        suppress(OSError),
        open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            key, colon, value = line.partition(":")
            if colon and value.strip():
                rows.setdefault(key.strip(), value.strip())
    return rows


def _sysctl(name: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    return ""


def _from_sysctl(architecture: str, read: Callable[[str], str]) -> tuple[str, ...]:
    if architecture == "x86_64":
        features = (
            f"{read('machdep.cpu.features')} {read('machdep.cpu.leaf7_features')}".casefold()
            .replace(".", "_")
            .split()
        )
        return tuple(word for flag, word in {"avx1_0": "avx", **_X86}.items() if flag in features)
    return (
        "neon",
        *(word for flag, word in _MAC.items() if read(f"hw.optional.arm.{flag}") == "1"),
    )


def _from_windows(architecture: str) -> tuple[str, ...]:
    """IsProcessorFeaturePresent of kernel32; the numbers are PF_* of winnt.h."""
    import ctypes

    windows = getattr(ctypes, "windll", None)
    known = _WINDOWS_X86 if architecture == "x86_64" else _WINDOWS_ARM
    return tuple(
        word
        for number, word in known.items()
        if windows is not None and windows.kernel32.IsProcessorFeaturePresent(number)
    )
