"""What every test file costs, in processor seconds of the test process and of the children that it
waited for; and the table of them by which files are handed out, the longest first.

python -m pytest -n 2 --dist loadfile -p tests.support.cpu_seconds        writes `cpu-seconds.jsonl`
python -m tests.support.cpu_seconds cpu-seconds.jsonl           makes tests/support/cpu_seconds.json of it
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable
from functools import cache
from pathlib import Path

import pytest

TABLE = Path(__file__).with_suffix(".json")
RECORDED = "QWEN_PACK_CPU_SECONDS"
"""The variable that names another file to append to."""

UNKNOWN = 10.0
"""What a file counts that is not in the table: were it the longest, it would not be the last."""


@cache
def known() -> dict[str, float]:
    """Seconds by the name of a file, as they were when the table was made."""
    table: dict[str, float] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests, those of the longest file first; each file keeps its own order."""
    return sorted(items, key=lambda item: -known().get(item.path.name, UNKNOWN))


def spent() -> tuple[float, float]:
    """Processor seconds of this process so far, and of its children that have ended."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """One line per test, with what its fixtures took."""
    before = spent()
    result = yield
    own, children = (now - then for now, then in zip(spent(), before, strict=True))
    row = {"test": item.nodeid, "own": round(own, 2), "children": round(children, 2)}
    # Workers append to one file: a short line is written whole.
    with open(os.environ.get(RECORDED, "cpu-seconds.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return result


def table_of(lines: Iterable[str]) -> dict[str, float]:
    """Seconds by the name of a file, the longest first."""
    sums: dict[str, float] = defaultdict(float)
    for line in lines:
        row = json.loads(line)
        sums[Path(row["test"].split("::")[0]).name] += row["own"] + row["children"]
    return {
        name: round(sums[name], 1) for name in sorted(sums, key=lambda name: (-sums[name], name))
    }


if __name__ == "__main__":
    made = table_of(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    TABLE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(made.values()):.0f} s in {len(made)} files")
