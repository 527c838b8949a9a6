"""Control groups of Linux, versions 1 and 2: the folders whose limits hold for this process.

`root` stands for the root of the file system, so that a directory tree can play the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

_BYTES = re.compile(r"[0-9]{1,20}")
_NO_LIMIT = 1 << 62
"""Version 1 writes the largest multiple of a page that fits in 63 bits where there is no limit."""


@dataclass(frozen=True, slots=True)
class Group:
    """One folder of the hierarchy, and the version whose file names it uses."""

    folder: Path
    version: Literal[1, 2]

    def text(self, name: str) -> str | None:
        """The content of one of its files; None where it cannot be read."""
        with suppress(OSError, UnicodeDecodeError):
            return (self.folder / name).read_text(encoding="utf-8").strip()
        return None

    def number(self, name: str) -> int | None:
        """The same as a number of bytes or microseconds; None also for "max", "-1" and the sentinel
        of version 1."""
        text = self.text(name)
        value = int(text) if text and _BYTES.fullmatch(text) else None
        return None if value is None or value >= _NO_LIMIT else value

    def statistic(self, *names: str) -> int:
        """The first of the named rows in memory.stat; 0 where there is none."""
        rows = dict(
            line.split()[:2]
            for line in (self.text("memory.stat") or "").splitlines()
            if len(line.split()) >= 2
        )
        return next((int(rows[name]) for name in names if _BYTES.fullmatch(rows.get(name, ""))), 0)


def groups(root: Path, controller: str) -> Iterator[Group]:
    """Every group of this process that `controller` ("memory", "cpu") may limit, from the innermost
    outwards.

    On a hybrid machine the controller is in one of the two hierarchies; both are walked.
    """
    own = _memberships(root)
    for mount in _mounts(root):
        if mount.version == 1 and controller not in mount.controllers:
            continue
        path = next(
            (
                path
                for controllers, path in own
                if (controller in controllers if mount.version == 1 else controllers == {""})
            ),
            None,
        )
        if path is None:
            continue
        top = root / mount.point.lstrip("/")
        folder = top / _below(path, mount.shown)
        while True:
            if _is_folder(folder):
                yield Group(folder, mount.version)
            if folder == top:
                break
            folder = folder.parent


def _is_folder(path: Path) -> bool:
    """Whether it is one; a name that no disk takes is none."""
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy: where, and which part of it is shown there (a container may see its own
    part only)."""

    point: str
    shown: str
    version: Literal[1, 2]
    controllers: frozenset[str]


def _mounts(root: Path) -> list[_Mount]:
    """The hierarchies in /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    mounts: list[_Mount] = []
    for line in _lines(root / "proc/self/mountinfo"):
        before, dash, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not dash or len(left) < 5 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        if ".." in left[4].split("/"):
            continue  # of another machine, which may say anything
        version: Literal[1, 2] = 2 if right[0] == "cgroup2" else 1
        mounts.append(
            _Mount(_unescape(left[4]), _unescape(left[3]), version, frozenset(right[2].split(",")))
        )
    return mounts


def _memberships(root: Path) -> list[tuple[set[str], str]]:
    """(controllers, path) per line of /proc/self/cgroup; version 2 has the one empty controller."""
    rows = (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
    return [(set(row[1].split(",")), row[2]) for row in rows if len(row) == 3]


def _below(path: str, shown: str) -> PurePosixPath:
    """The group's path below the mount; the mount itself where the group lies outside of what is
    shown."""
    with suppress(ValueError):
        relative = PurePosixPath(path).relative_to(shown)
        if ".." not in relative.parts:
            return relative
    # With a namespace of its own a container sees "/" or "/../.." here, and its limits at the
    # mount.
    return PurePosixPath(".")


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _unescape(text: str) -> str:
    r"""Undo the \040 escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
