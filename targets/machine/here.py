"""This machine as `packager.device.identity` compares it with a device: what it calls itself, and
what it has."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from packager.cores import cores
from packager.device.identity import Here
from packager.limits import DEVICE_WORD_CHARACTERS
from targets.machine.gpus import gpus
from targets.machine.isa import processor
from targets.machine.limits import ROOT, memory

_BOARD = "proc/device-tree/model"
"""Where boards with a device tree (Raspberry Pi, Jetson, RISC-V) say what they are."""


def here(root: Path = ROOT) -> Here:
    """Facts only; takes a few milliseconds and measures nothing."""
    cpu, isa = processor(root)
    return Here(
        isa=isa,
        cores=cores(root).at_once,
        memory_bytes=memory(root).total,
        names=_each_once(cpu, _board(root)),
        gpus=tuple((gpu.name, gpu.memory_bytes) for gpu in gpus()),
        # Termux and the like run Linux programs on Android, which sets this for every process.
        phone=sys.platform in ("android", "ios") or "ANDROID_ROOT" in os.environ,
    )


def elsewhere(
    root: Path, machine: str, cores_there: int, names: tuple[str, ...], phone: bool
) -> Here:
    """The same of another machine, whose files of /proc and /sys lie below `root`: `machine` as its
    `uname -m` says it, `names` what it calls itself beside. Its GPUs are not looked at: what runs
    there through an agent runs on the CPU."""
    cpu, isa = processor(root, machine, "linux")
    return Here(
        isa=isa,
        cores=cores_there,
        memory_bytes=memory(root).total,
        names=_each_once(cpu, _board(root), *names),
        phone=phone,
    )


def _each_once(*names: str) -> tuple[str, ...]:
    """A Raspberry Pi says the same in its device tree and for its processor."""
    return tuple(dict.fromkeys(name[:DEVICE_WORD_CHARACTERS] for name in names if name))


def _board(root: Path) -> str:
    with suppress(OSError):
        return (root / _BOARD).read_bytes().rstrip(b"\0\n").decode(errors="replace").strip()
    return ""
