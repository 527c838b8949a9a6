"""Cores: which this process may use, how many threads that makes, and which numbers are worth
trying."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.cores import (
    Cores,
    Kind,
    affinity,
    apple_strengths,
    cores,
    fewest,
    halves,
    machine_cores,
    parse_list,
    pinned,
    thread_limits,
)
from packager.measure import thread_search as threads
from tests.support.byte_session import ByteSession
from tests.support.machine_tree import lay, version_1, version_2

CPU = "sys/devices/system/cpu"


def siblings(*groups: str) -> dict[str, str]:
    """`0,4` for a core with two threads: the topology files of every processor."""
    files = {}
    for group in groups:
        for cpu in parse_list(group):
            files[f"{CPU}/cpu{cpu}/topology/core_cpus_list"] = f"{group}\n"
    return files


def capacities(*values: int, name: str = "cpu_capacity") -> dict[str, str]:
    return {f"{CPU}/cpu{cpu}/{name}": f"{value}\n" for cpu, value in enumerate(values)}


CLOCK = "cpufreq/cpuinfo_max_freq"
ALONE = [str(cpu) for cpu in range(8)]
# A phone of one prime, three big and four small cores; clocks of a phone without capacities; a
# laptop of 2 P-cores with two threads and 4 E-cores; a Pi; a server whose favoured cores clock 4 %
# higher; SMT that numbers siblings apart.
MACHINES: dict[str, tuple[dict[str, str], list[int], list[int], list[int]]] = {
    "1 + 3 + 4 by capacity": (
        siblings(*ALONE) | capacities(280, 280, 280, 280, 760, 760, 760, 1024),
        [4, 3, 2, 1],
        [8],
        [1, 3, 4],
    ),
    "4 + 4 by clock": (
        siblings(*ALONE) | capacities(*[1800000] * 4, *[3000000] * 4, name=CLOCK),
        [4, 3, 2, 1],
        [8],
        [4, 4],
    ),
    "2 P + 4 E of Intel": (
        siblings("0-1", "2-3", "4", "5", "6", "7")
        | {"sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-7\n"}
        | capacities(*[4800000] * 4, *[3600000] * 4, name=CLOCK),
        [2, 1],
        [6],
        [2, 4],
    ),
    "four alike": (siblings(*ALONE[:4]) | capacities(*[1024] * 4), [4, 2, 1], [], [4]),
    "favoured cores": (
        siblings(*ALONE[:4]) | capacities(5200000, 5000000, 5000000, 5100000, name=CLOCK),
        [4, 2, 1],
        [],
        [4],
    ),
    "two threads a core": (siblings("0,4", "1,5", "2,6", "3,7"), [4, 2, 1], [], [4]),
    "no word": ({}, [8, 4, 2, 1], [], [8]),
}


def test_the_search_begins_with_the_big_cores_and_tries_the_sizes_of_kinds(tmp_path: Path) -> None:
    wrong = {}
    for number, (name, (files, fewer, more, kinds)) in enumerate(MACHINES.items()):
        count = len({key.split("/")[4] for key in files if key.startswith(f"{CPU}/cpu")}) or 8
        machine = cores(lay(tmp_path / str(number), files), range(count))
        seen = (machine.fewer(), machine.more(), [len(kind.cores) for kind in machine.kinds])
        if seen != (fewer, more, kinds):
            wrong[name] = seen
    assert wrong == {}


def test_threads_are_kept_on_the_strongest_cores_that_have_room_for_them(tmp_path: Path) -> None:
    phone = cores(lay(tmp_path, MACHINES["1 + 3 + 4 by capacity"][0]), range(8))
    assert phone.processors(1) == {7}
    assert phone.processors(3) == phone.processors(4) == {4, 5, 6, 7}
    assert phone.processors(5) is phone.processors(8) is None
    assert cores(lay(tmp_path / "pi", MACHINES["four alike"][0]), range(4)).processors(2) is None


def test_affinity_takes_whole_kinds_away(tmp_path: Path) -> None:
    root = lay(tmp_path, MACHINES["1 + 3 + 4 by capacity"][0])
    assert cores(root, range(4)).fewer() == [4, 2, 1]
    assert cores(root, [0, 1, 6, 7]).sizes() == [1, 2, 4]


def test_a_quota_bounds_what_is_started_and_what_is_tried(tmp_path: Path) -> None:
    both = {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "250000 100000"}
    nested = cores(lay(tmp_path / "nested", version_2("/a/b") | both), range(64))
    assert (nested.allowed, nested.at_once, nested.computing, nested.fewer(), nested.quota) == (
        64,
        2,
        2,
        [2, 1],
        2.5,
    )
    base = "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    one = {f"{base}/cpu.cfs_quota_us": "400000", f"{base}/cpu.cfs_period_us": "100000"}
    assert cores(lay(tmp_path / "one", version_1() | one), range(8)).at_once == 4
    none = {f"{base}/cpu.cfs_quota_us": "-1", f"{base}/cpu.cfs_period_us": "100000"}
    assert cores(lay(tmp_path / "none", version_1() | none), range(8)).at_once == 8
    half = {"sys/fs/cgroup/a/cpu.max": "50000 100000"}
    assert cores(lay(tmp_path / "half", version_2("/a") | half), range(8)).at_once == 1
    phone = (
        MACHINES["1 + 3 + 4 by capacity"][0]
        | version_2("/a")
        | {"sys/fs/cgroup/a/cpu.max": "300000 100000"}
    )
    assert cores(lay(tmp_path / "phone", phone), range(8)).fewer() == [3, 2, 1]


def test_libraries_of_a_child_are_told_the_quota_unless_the_user_set_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    eight = (Kind(1.0, tuple((cpu,) for cpu in range(8))),)
    assert thread_limits(Cores(eight, 2.5)) == dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "2"
    )
    assert thread_limits(Cores(eight, None)) == thread_limits(Cores(eight, 16.0)) == {}


def test_the_fewest_threads_within_the_tolerance_win() -> None:
    assert fewest({8: 1.0, 4: 1.01, 2: 1.5}, 0.02) == 4
    assert fewest({8: 1.0, 4: 1.03, 2: 1.5}, 0.02) == 8


def test_apple_names_two_kinds_by_their_counts() -> None:
    answers = {"hw.perflevel0.logicalcpu": "4", "hw.perflevel1.logicalcpu": "4"}
    assert (
        list(apple_strengths(list(range(8)), answers.__getitem__).values()) == [1.0] * 4 + [0.4] * 4
    )
    assert set(apple_strengths(list(range(8)), lambda name: "").values()) == {0.0}


def test_the_cores_of_the_machine_count_beyond_the_affinity(tmp_path: Path) -> None:
    assert machine_cores(lay(tmp_path, siblings("0,2", "1,3"))) == 2


def test_this_process_is_on_at_least_one_core() -> None:
    here = cores()
    assert 1 <= here.big <= here.computing <= here.at_once <= here.allowed == len(affinity())
    assert here.fewer()[0] == here.big and here.fewer()[-1] == 1


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.text(max_size=12), st.integers(-1, 10**13)), max_size=6
    ),
    st.text(max_size=20),
)
def test_whatever_the_files_hold_there_is_a_number_of_threads(
    tmp_path: Path, rows: list[tuple[str, str, int]], limit: str
) -> None:
    files = version_2("/a") | {"sys/fs/cgroup/a/cpu.max": limit.encode("utf-8", "replace").decode()}
    for cpu, (group, kind, strength) in enumerate(rows):
        files[f"{CPU}/cpu{cpu}/topology/core_cpus_list"] = group.encode("utf-8", "replace").decode()
        files[f"{CPU}/cpu{cpu}/cpu_capacity"] = str(strength)
        files["sys/devices/cpu_core/cpus"] = kind.encode("utf-8", "replace").decode()
    machine = cores(lay(tmp_path, files), range(6))
    tried = [*machine.fewer(), *machine.more()]
    assert 1 <= machine.big <= machine.computing <= machine.at_once <= 6
    assert (
        sorted(set(tried)) == sorted(tried)
        and set(halves(machine.big)) <= set(tried)
        and max(tried) <= 6
    )


@given(st.text(max_size=30))
def test_a_list_of_processors_is_read_or_empty(text: str) -> None:
    assert all(0 <= cpu < 8192 for cpu in parse_list(text))
    assert parse_list("0-2,8") == {0, 1, 2, 8}
    assert parse_list("3-1") == parse_list("0-99999") == parse_list("x") == frozenset()


PIN = """
import os, sys, threading
from packager.cores import Cores, Kind, affinity, pinned
mine = sorted(affinity())
stop = threading.Event()
older = threading.Thread(target=stop.wait)
older.start()
machine = Cores((Kind(1.0, ((mine[0],),)), Kind(0.3, tuple((cpu,) for cpu in mine[1:]))), None)
with pinned(1, machine) as processors:
    masks = {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
    assert (processors, masks) == ((mine[0],), {frozenset(mine[:1])}), (processors, masks)
assert sorted(affinity()) == mine
stop.set()
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(affinity()) < 2,
    reason="takes two processors and an affinity",
)
def test_every_thread_of_the_process_is_pinned_and_let_go_again() -> None:
    subprocess.run([sys.executable, "-c", PIN], check=True)


def test_a_system_that_cannot_pin_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1, Cores((Kind(1.0, ((0,),)), Kind(0.3, ((1,),))), None)) as processors:
        assert processors is None


class Phone(ByteSession):
    """Slow with many threads as a phone is: `pace` seconds a token by the number of threads, on a
    clock that stands still otherwise."""

    pace: dict[int, float]
    now: float

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        super().__init__(artifact, settings)
        self.use_threads(settings["threads"])

    def use_threads(self, count: int) -> None:
        self._pace = type(self).pace[count]

    def generate(
        self, prompt: Any, max_new_tokens: int, on_token: Any, *, stop: bool = True
    ) -> list[int]:
        Phone.now += self._pace * len(prompt) / 4

        def told(token: int) -> None:
            Phone.now += self._pace
            on_token(token)

        return super().generate(prompt, max_new_tokens, told, stop=stop)


class Silent:
    def note(self, text: str) -> None: ...
    def progress(self, done: int, total: int | None, unit: str = "B") -> None: ...
    def text(self, piece: str) -> None: ...


def searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Cores, pace: dict[int, float]
) -> dict[str, Any]:
    Phone.pace, Phone.now = pace, 0.0
    clock = type(
        "Clock",
        (),
        {
            "monotonic": staticmethod(lambda: Phone.now),
            "perf_counter": staticmethod(lambda: Phone.now),
        },
    )
    monkeypatch.setattr(threads, "time", clock)
    monkeypatch.setattr("packager.measure.trials.time", clock)
    monkeypatch.setattr("packager.measure.gauges.machine.cores", lambda: machine)
    monkeypatch.setattr("packager.cores._pin", lambda mask: False)
    settings = {"context": 256, "kv": "f16"}
    return threads.search(
        Silent(),
        session=f"{__name__}:Phone",
        artifact="answer",
        settings=settings,
        prompt_tokens=64,
    )


ALIKE = Cores((Kind(1.0, tuple((cpu,) for cpu in range(8))),), None)


def test_a_first_try_that_eats_the_budget_is_not_what_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where the system hides its small cores, all cores look alike, and the worst number comes
    # first.
    found = searched(monkeypatch, tmp_path, ALIKE, {8: 8.0, 4: 0.05, 2: 0.08, 1: 0.15})
    assert found["threads"] == 4
    assert [row["threads"] for row in found["candidates"]] == [8, 4, 2]


def test_small_cores_are_tried_last_and_taken_where_they_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phone = Cores(
        (Kind(1.0, ((7,),)), Kind(0.7, ((4,), (5,), (6,))), Kind(0.3, ((0,), (1,), (2,), (3,)))),
        None,
    )
    collapse = {8: 4.0, 4: 0.036, 3: 0.0357, 2: 0.05, 1: 0.09}
    found = searched(monkeypatch, tmp_path, phone, collapse)
    assert found["threads"] == 3
    assert [row["threads"] for row in found["candidates"]] == [4, 3, 2, 8]
    assert searched(monkeypatch, tmp_path, phone, {**collapse, 8: 0.02})["threads"] == 8
