"""What this process may take of this machine's memory, inside containers too; for its cores see
packager.cores.

`root` stands for the root of the file system, so that a directory tree can play the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packager.cgroup import Group, groups

ROOT = Path("/")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: `total` that this process could ever take, `available` now. `limited_by` is "system"
    or "cgroup".

    Swap counts for neither: a model in swap answers a hundred times slower.
    """

    total: int
    available: int
    limited_by: str


def memory(root: Path = ROOT) -> Memory:
    """Memory for one more process: what the kernel can free, within the limits of every control
    group around us.

    Page cache that can be dropped counts as available, of the system and of each group.
    """
    system = _meminfo(root)
    if system is None:
        # No /proc: macOS and Windows, which have no control groups either.
        import psutil

        seen = psutil.virtual_memory()
        return Memory(int(seen.total), int(seen.available), "system")
    total, available = system
    limited_by = "system"
    for group in groups(root, "memory"):
        limit, used = _limit_and_use(group)
        if limit is None:
            continue
        total = min(total, limit)
        left = max(0, limit - used)
        if left < available:
            available, limited_by = left, "cgroup"
    return Memory(total, available, limited_by)


def _limit_and_use(group: Group) -> tuple[int | None, int]:
    """The limit of one group (None: none) and the bytes in use that cannot be dropped."""
    if group.version == 2:
        used, inactive = group.number("memory.current"), group.statistic("inactive_file")
        return group.number("memory.max"), max(0, (used or 0) - inactive)
    used, inactive = (
        group.number("memory.usage_in_bytes"),
        group.statistic("total_inactive_file", "inactive_file"),
    )
    return group.number("memory.limit_in_bytes"), max(0, (used or 0) - inactive)


def _meminfo(root: Path) -> tuple[int, int] | None:
    """(total, available) of /proc/meminfo in bytes; None where there is no such file."""
    rows: dict[str, int] = {}
    try:
        with open(root / "proc/meminfo", encoding="utf-8") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                words = value.split()
                if words and _NUMBER.fullmatch(words[0]):
                    rows[key] = int(words[0]) * 1024
    except (OSError, UnicodeDecodeError):
        return None
    if "MemTotal" not in rows:
        return None
    # Kernels before 3.14 do not say what is available: free memory and clean cache come near it.
    guess = (
        rows.get("MemFree", 0)
        + rows.get("Buffers", 0)
        + rows.get("Cached", 0)
        - rows.get("Shmem", 0)
    )
    return rows["MemTotal"], max(0, min(rows["MemTotal"], rows.get("MemAvailable", guess)))
