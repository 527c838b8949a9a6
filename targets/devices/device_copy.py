"""What a device file owes to the one it was copied from: marks on values that nobody has looked at
yet, and a name that belongs to another device."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable

from packager.device.target import Device, Target

MARK = "# copied from"
_OWN = ("[target]", "[workload]")
"""Tables whose values are wishes, which may well be the same for both devices."""
_SAME_MEMORY = 0.75
"""A system keeps up to a quarter of its memory from programs (packager.device.identity), so two
devices that are nearer than that are not told apart by it."""


def marked(text: str, origin: str) -> str:
    """The text of a device file with `# copied from ORIGIN` behind every fact of [device] and
    [source], and behind the summary.

    Values stay as they are: a line within a longer text, to which nothing can be added, is left
    alone.
    """
    lines = text.splitlines(keepends=True)
    wanted = tomllib.loads(text)
    table = ""
    for number, line in enumerate(lines):
        if head := re.match(r"\s*(\[\w+\])", line):
            table = head[1]
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key is None or MARK in line or table in _OWN or (not table and key[1] != "summary"):
            continue
        ending = line[len(line.rstrip("\r\n")) :]
        candidate = f"{line.rstrip()}  {MARK} {origin}{ending}"
        if _parsed([*lines[:number], candidate, *lines[number + 1 :]]) == wanted:
            lines[number] = candidate
    return "".join(lines)


def copied_lines(text: str) -> list[int]:
    """The numbers of the lines that still have the mark."""
    return [number for number, line in enumerate(text.splitlines(), 1) if MARK in line]


def mistaken(target: Target, others: Iterable[Target]) -> str | None:
    """Why a machine would count as this device and as another one: both are known by the same
    name, and nothing else tells them apart. None where that is not so.

    Packages of one would then be judged by measurements on the other.
    """
    names = {name.casefold(): name for name in target.device.known_by}
    for other in others:
        shared = [names[name.casefold()] for name in other.device.known_by if _is_in(name, names)]
        if other.name != target.name and shared and _alike(target.device, other.device):
            return (
                f"has {shared[0]!r}, by which {other.name} is known: that device would be taken "
                "for this one. Write what this device calls itself, or remove the line."
            )
    return None


def _is_in(name: str, names: dict[str, str]) -> bool:
    return name.casefold() in names


def _alike(one: Device, other: Device) -> bool:
    """Whether the same unit carries the model, as many of it, and its memory is about the same."""
    if (one.runs_on, one.gpus) != (other.runs_on, other.gpus):
        return False
    if one.isa.split()[0] != other.isa.split()[0]:
        return False
    sizes = sorted((_memory(one), _memory(other)))
    return sizes[0] > _SAME_MEMORY * sizes[1]


def _memory(device: Device) -> int:
    return device.gpu_memory_bytes or device.memory_bytes


def _parsed(lines: list[str]) -> dict[str, object] | None:
    try:
        return tomllib.loads("".join(lines))
    except tomllib.TOMLDecodeError:
        return None
