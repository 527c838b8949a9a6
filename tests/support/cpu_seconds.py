"""What every test file costs in each tier, in processor seconds of the test process, of the children
that it waited for, and of the jobs that were forked for it; and the table of them by which files are
handed out, the longest first.

python -m pytest -n 2 --dist loadfile -p tests.support.cpu_seconds        writes `cpu-seconds.jsonl`
python -m tests.support.cpu_seconds cpu-seconds.jsonl           makes tests/support/cpu_seconds.json of it
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from functools import cache
from pathlib import Path

import pytest

from packager import process
from tests.support.tiers import is_thorough

TABLE = Path(__file__).with_suffix(".json")
RECORDED = "QWEN_PACK_CPU_SECONDS"
"""The variable that names another file to append to."""

UNKNOWN = 10.0
"""What a file counts that is not in the table: were it the longest, it would not be the last."""


WAITING = 2
"""Seconds by the clock that count as much as one of a processor: three workers share two."""


@cache
def known() -> dict[str, tuple[float, float]]:
    """Seconds of the fast and of the thorough tier by the name of a file, as they were when the table
    was made."""
    table: dict[str, tuple[float, float]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests, those of the file first that takes longest with these; each file keeps its own
    order."""
    tests = list(items)
    tiers: dict[str, set[bool]] = defaultdict(set)
    for item in tests:
        tiers[item.path.name].add(is_thorough(item))
    seconds = {
        name: sum(known()[name][tier] for tier in there) if name in known() else UNKNOWN
        for name, there in tiers.items()
    }
    return sorted(tests, key=lambda item: -seconds[item.path.name])


def spent() -> tuple[float, float]:
    """Processor seconds of this process so far; and of its children that have ended, of the servers
    that jobs are forked from, and of those jobs."""
    times = os.times()
    warm = getattr(process._start, "__self__", None)
    of_jobs = sum(map(spent_by, warm.servers)) if warm is not None else 0.0
    return times.user + times.system, times.children_user + times.children_system + of_jobs


def spent_by(pid: int) -> float:
    """Processor seconds of a process that lives and of its children that have ended."""
    times = Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, times[11:15])) / os.sysconf("SC_CLK_TCK")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """One line per test, with what its fixtures took."""
    began, before = time.monotonic(), spent()
    result = yield
    own, children = (now - then for now, then in zip(spent(), before, strict=True))
    if nextitem is None:
        # The servers end with the last test and would count twice.
        children = 0.0
    row = {
        "test": item.nodeid,
        "thorough": is_thorough(item),
        "own": round(own, 2),
        "children": round(children, 2),
        "wall": round(time.monotonic() - began, 2),
    }
    # Workers append to one file: a short line is written whole.
    with open(os.environ.get(RECORDED, "cpu-seconds.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return result


def table_of(lines: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Seconds of both tiers by the name of a file, the longest first. A test that waits, for a
    machine or a device, holds its worker too."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for line in lines:
        row = json.loads(line)
        file = Path(row["test"].split("::")[0]).name
        sums[file][row["thorough"]] += max(row["own"] + row["children"], row["wall"] / WAITING)
    return {
        name: (round(fast, 1), round(thorough, 1))
        for name, (fast, thorough) in sorted(
            sums.items(), key=lambda named: (-sum(named[1]), named[0])
        )
    }


if __name__ == "__main__":
    made = table_of(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in made.items())
    TABLE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
    for tier, name in enumerate(("fast", "thorough")):
        print(f"{name}: {sum(row[tier] for row in made.values()):.0f} s in {len(made)} files")
