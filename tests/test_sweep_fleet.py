"""The executor on Dask: the same packages as in one process, workers that die, and who may work on
a machine at a time. The cluster is a real one, of processes on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager import locks
from packager.device.this_machine import installation_id
from packager.errors import ExitCode, PackError
from packager.files import tree_bytes
from packager.paths import cache_dir
from packager.sweep import inline, machine_lock
from packager.sweep.courses import WHOLE, Course, Courses
from packager.sweep.events import StageGiven, Told
from packager.sweep.folder import Folder, Run
from packager.sweep.keeping import Keeper
from packager.sweep.matrix import Planned, matrix
from packager.sweep.unit import Answer, Order, do
from tests.support import sweep_units
from tests.support.lab import ssh_host
from tests.support.slurm import jobs_with_a_node, slurm, until
from tests.support.sweeps import dying, known, plan_of, through, tiny_plan, work_of
from tests.support.tiers import thorough

PLAN = """
[axes]
variants = ["Qwen3-0.6B", "Qwen3-1.7B"]
recipes = ["plain:b8", "plain:b4"]
targets = ["big"]
contexts = [512]
"""


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_start: Any) -> None:
    """The runtime and the units of the tests write down what they do; stages are forked."""
    if warm_start is not None:
        monkeypatch.setenv(sweep_units.WARM, str(warm_start.folder))
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "dying.log"))
    monkeypatch.setenv(sweep_units.LOG, str(tmp_path / "units.log"))


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Planned, ...]:
    return matrix(plan_of(PLAN, tmp_path), known()).possible


def orders(tmp_path: Path) -> Any:
    plan = plan_of(PLAN, tmp_path)

    def order_of(course: Course) -> Order:
        assert course.next is not None
        return Order(course.next, course.one, plan, str(tmp_path), "2026-01-01T00:00:00+00:00")

    return order_of


def test_units_that_may_do_the_same_work_run_one_after_the_other(
    cells: tuple[Planned, ...], tmp_path: Path
) -> None:
    courses, order_of = Courses(cells, WHOLE), orders(tmp_path)
    first = courses.ready(order_of, 99)
    # One fetch of each variant; the other recipes of both wait for it.
    assert [order.one.cell.short for _, order in first] == ["Qwen3-0.6B", "Qwen3-1.7B"]
    assert courses.ready(order_of, 99) == []
    for course, order in first:
        course.done(Answer("m", 1.0, host="h"))
        courses.free(order, course, done=True)
        courses.again(course)
    then = courses.ready(order_of, 99)
    assert Counter(order.stage for _, order in then) == {"convert": 2, "fetch": 2}
    # What is there already is nobody's lane: the fetches of the other recipes run side by side.
    assert all(order.lanes == () for _, order in then if order.stage == "fetch")
    # Where a worker died nothing is there: the next one does it.
    course, order = then[0]
    courses.free(order, course)
    courses.again(course)
    assert courses.ready(order_of, 99)[0][1].lanes == order.lanes
    assert Courses(cells, WHOLE).ready(order_of, 1)[0][0].one == cells[0]


def test_what_was_measured_on_a_machine_goes_on_there_and_is_measured_anew_where_it_is_gone(
    cells: tuple[Planned, ...],
) -> None:
    course = Course(cells[0], list(WHOLE))
    for stage in ("fetch", "convert"):
        assert course.next == stage
        course.done(Answer("m1", 1.0, host="h1"))
    assert course.host is None
    course.done(Answer("m2", 1.0, host="h2"))
    assert (course.host, course.machine, course.next) == ("h2", "m2", "quality")
    course.again_from_measure()
    assert (course.host, course.machine, course.next) == (None, None, "measure")
    assert set(course.taken.seconds) == {"fetch", "convert", "measure"}


def test_a_device_has_one_slot_and_its_next_measurement_waits(
    cells: tuple[Planned, ...], tmp_path: Path
) -> None:
    plan = replace(plan_of(PLAN, tmp_path), on={"big": "pi5"})

    def order_of(course: Course) -> Order:
        assert course.next is not None
        return Order(course.next, course.one, plan, str(tmp_path), "2026-01-01T00:00:00+00:00")

    courses = Courses(cells, ("package",), lambda _: ("device",))
    for course, order in courses.ready(order_of, 99):
        course.done(Answer("m", 1.0, host="h"))
        courses.free(order, course, done=True)
        courses.again(course)
    measured = []
    while ready := courses.ready(order_of, 99):
        ((course, order),) = ready
        assert order.stage == "device" and order.lanes == (("device", "pi5"),)
        assert courses.ready(order_of, 99) == []
        measured.append(course.one.cell.id)
        course.done(Answer("m", 1.0, host="h"))
        courses.free(order, course, done=True)
    assert len(set(measured)) == len(cells) == 4 and not courses.waiting
    lost = Course(cells[0], ["measure"], then=("device",))
    lost.again_from_measure()
    assert lost.stages == ["measure", "quality", "package", "device"]


def test_a_conversion_takes_memory_and_disk_of_a_worker_and_a_measurement_the_machine(
    cells: tuple[Planned, ...], tmp_path: Path
) -> None:
    from packager.sweep.fleet import _resources

    order, one = orders(tmp_path)(Course(cells[0], ["convert"])), cells[0]
    workers = {"a": {"resources": {"memory": 1e9, "machine": 1, "disk": 1e12}}}
    assert _resources(order, workers) == {
        "memory": one.build.memory,
        "disk": one.build.disk + one.artifact_bytes,
    }
    assert "disk" not in _resources(order, {"a": {"resources": {"memory": 1e9}}})
    measure = replace(order, stage="measure")
    assert _resources(measure, workers) == {"memory": one.memory_bytes, "machine": 1}
    device = replace(order, stage="device", plan=replace(order.plan, on={"big": "pi5"}))
    assert _resources(device, workers) == {}
    reaching = {"b": {"resources": {"device:pi5": 1}}}
    assert _resources(device, {**workers, **reaching}) == {"device:pi5": 1}


def test_a_unit_refuses_what_it_cannot_take_part_in(
    cells: tuple[Planned, ...], tmp_path: Path
) -> None:
    order = orders(tmp_path)(Course(cells[0], list(WHOLE)))
    assert "does not see the sweep's folder" in str(do(order, known()).error)
    Folder.made(tmp_path / "out", order.plan)
    there = Order("fetch", order.one, order.plan, str(tmp_path / "out"), order.began, version="0")
    answer = do(there, known())
    assert "install the same on all machines" in str(answer.error)
    assert answer.exit_code == ExitCode.USAGE
    moved = Order(
        "quality", order.one, order.plan, str(tmp_path / "out"), order.began, machine="another"
    )
    assert do(moved, known()).moved


def somebody_holds(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            locks.take(handle.fileno())
        except OSError:
            return True
    return False


def test_a_measurement_waits_for_builds_and_builds_wait_for_it_and_it_is_not_overtaken() -> None:
    said: list[str] = []

    def build(name: str, ready: threading.Event, end: threading.Event) -> None:
        with machine_lock.shared():
            said.append(f"{name} in")
            ready.set()
            end.wait(120)
            said.append(f"{name} out")

    def measure() -> None:
        with machine_lock.alone():
            said.append("measure in")
            time.sleep(0.2)
            said.append("measure out")

    ready, end, late, at_once = (threading.Event() for _ in range(4))
    at_once.set()
    threads = [threading.Thread(target=build, args=("first", ready, end))]
    threads[0].start()
    assert ready.wait(120)
    threads.append(threading.Thread(target=measure))
    threads[1].start()
    # Until it has gone through the gate, where it waits for the first build.
    while not somebody_holds(cache_dir() / "underway" / f"gate-{installation_id()}"):
        time.sleep(0.01)
    threads.append(threading.Thread(target=build, args=("second", late, at_once)))
    threads[2].start()
    time.sleep(0.3)
    assert said == ["first in"]
    end.set()
    for thread in threads:
        thread.join(120)
    assert said == ["first in", "first out", "measure in", "measure out", "second in", "second out"]


def on_dask(tmp_path: Path, name: str, plan: Any, kills: int = 0) -> tuple[list[Any], Run]:
    """The sweep on two workers, of which some are killed meanwhile."""
    from packager.sweep import fleet

    work = work_of(plan, tmp_path / name, dying())
    with sweep_units.killing(kills, lambda dice: dice.uniform(0.0, 0.5)) as killed:
        found = through(fleet.run(work, "local:2", sweep_units.unit))
    assert len(killed) == kills
    return found


@pytest.mark.engine
@pytest.mark.parametrize(("count", "kills"), [(2, 1), thorough(3, 2)])
def test_workers_that_die_cost_the_stage_that_was_running_and_the_packages_are_the_same(
    count: int, kills: int, tmp_path: Path, own_cache: Path
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `fleet`")
    plan = tiny_plan(tmp_path, count)
    alone = through(inline.run(work_of(plan, tmp_path / "alone", dying())))[1]
    shutil.rmtree(own_cache)
    found = on_dask(tmp_path, "fleet", plan, kills=kills)[1]
    assert {row.status for row in found.rows.values()} == {"done"}, found.rows
    for name, row in found.rows.items():
        assert row.content_sha256 == alone.rows[name].content_sha256
        assert row.machine is not None
    # Where the measurement of a cell is not there it is not taken beside others, but asked for.
    for kept in (own_cache / "stages").glob("measure-*"):
        shutil.rmtree(kept)
    one = work_of(plan, tmp_path / "fleet").matrix.planned[0]
    began = "2026-01-01T00:00:00+00:00"
    order = Order("quality", one, plan, str(tmp_path / "fleet"), began)
    assert do(order, dying()).moved and do(replace(order, stage="convert"), dying()).cached
    twice = {unit: count for unit, count in sweep_units.done().items() if count > 1}
    assert twice == {}


def test_a_worker_says_what_its_machine_has_within_what_its_job_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `fleet`")
    from packager.cli.fleet_worker import resources

    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    whole = resources()
    assert whole["machine"] == 1 and whole["memory"] > 64 << 20 and whole["disk"] > 0
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64")
    assert resources()["memory"] == 64 << 20
    # All memory of the node was asked for.
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert resources()["memory"] > 64 << 20


def test_below_a_limit_of_disk_a_conversion_waits_for_those_at_work(tmp_path: Path) -> None:
    from packager.sweep.fleet import Fleet

    plan = tiny_plan(tmp_path, 2)
    one, other = work_of(plan, tmp_path / "out").matrix.planned
    # Room for one conversion and not for two at a time.
    limit = one.disk_bytes + other.disk_bytes - 1
    work = work_of(replace(plan, disk_bytes=limit), tmp_path / "out")
    run, _ = work.folder.begin(work.plan)
    limited = replace(work.plan, disk_bytes=limit + tree_bytes(work.folder.root))
    keeper = Keeper(limited, work.folder, work.cache, {})
    fleet: Any = Fleet(work, run, None, lambda: None, sweep_units.unit)  # type: ignore[arg-type]
    order = Order("convert", other, plan, str(tmp_path), run.file.started)
    at_work = {"future": (Course(other, ["convert"]), order)}
    assert fleet._has_room(one, {}, keeper)
    assert not fleet._has_room(one, at_work, keeper)
    fetching = {"future": (Course(other, ["fetch"]), replace(order, stage="fetch"))}
    assert fleet._has_room(one, fetching, keeper)
    # With nobody at work there is nothing to wait for: the cell's row says what lacks.
    small = Keeper(replace(plan, disk_bytes=10), work.folder, work.cache, {})
    assert fleet._has_room(one, {}, small)
    assert "Raise `disk`" in fleet._refusal(at_work["future"][0], order, {}, small).reason


@pytest.mark.engine
@pytest.mark.thorough(
    "test_pruning_keeps_as_many_of_a_target_and_says_at_which_rung_the_others_went",
    "test_workers_that_die_cost_the_stage_that_was_running_and_the_packages_are_the_same",
)
def test_a_cluster_prunes_and_has_rows_for_what_fails(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra `fleet`")
    plan = replace(tiny_plan(tmp_path, 4), keep=1, by=("memory", "size"))
    found = on_dask(tmp_path, "fleet", plan)[1]
    status = Counter(row.status for row in found.rows.values())
    assert status == {"done": 1, "dropped": 3}


@pytest.mark.engine
def test_hosts_over_ssh_are_workers_that_say_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("asyncssh", reason="needs the extra `fleet`")
    from packager.sweep import fleet

    names = ("QWEN_PACK_CACHE", "DYING_LOG", "PYTHONPATH", "QWEN_PACK_ATTEMPTS", sweep_units.LOG)
    plan = tiny_plan(tmp_path, 1)
    with ssh_host(tmp_path, {name: os.environ[name] for name in names}) as host:
        home = tmp_path / "home" / ".ssh"
        home.mkdir(parents=True)
        (home / "config").write_text(
            f"Host *\n  IdentityFile {tmp_path / 'client'}\n"
            f"  UserKnownHostsFile {host.known_hosts}\n"
        )
        monkeypatch.setenv("HOME", str(home.parent))
        work = work_of(plan, tmp_path / "out", dying())
        address = f"ssh:127.0.0.1:{host.port}"
        events, found = through(fleet.run(work, address, sweep_units.unit))
        # A host whose key nobody knows is not spoken to.
        host.known_hosts.write_text("")
        with pytest.raises(PackError, match="No worker could be started over SSH") as caught:
            through(fleet.run(work_of(plan, tmp_path / "two", dying()), address, sweep_units.unit))
        assert caught.value.exit_code == ExitCode.SOURCE
    assert {row.status for row in found.rows.values()} == {"done"}, found.rows
    told = [event.text for event in events if isinstance(event, Told)]
    assert any(text.startswith("1 worker on 1 machine") for text in told), told
    # The key of the cluster is gone with it, and nobody else could read it.
    assert list((tmp_path / "out").glob(".qwen-pack-tmp-*")) == []


@pytest.mark.engine
def test_each_job_of_slurm_has_a_node_to_itself_and_they_end_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs the extra `fleet`")
    from packager.sweep import fleet

    plan = tiny_plan(tmp_path, 2)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm(Path(folder), 2) as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        work = work_of(plan, tmp_path / "out", dying())
        events = fleet.run(work, "slurm:2", sweep_units.unit)
        while not isinstance(event := next(events), StageGiven):
            assert isinstance(event, Told)
        held = until(lambda: jobs_with_a_node("%t %h %D %N"), lambda lines: len(lines) == 2)
        assert sorted(held) == ["R NO 1 node0", "R NO 1 node1"]
        rows = through(events)[1].rows.values()
        assert [row.status for row in rows] == ["done"] * 2, [row.reason for row in rows]
        until(lambda: jobs_with_a_node("%N"), lambda lines: not lines)
    assert list((tmp_path / "out").glob(".qwen-pack-tmp-*")) == []


def test_an_address_that_is_none_and_a_missing_dask_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `fleet`")
    from packager.sweep import clusters

    def refused(address: str) -> PackError:
        with pytest.raises(PackError) as caught, clusters.client(address, None, tmp_path):
            pass
        return caught.value

    for address in (
        "local:many",
        "local:0",
        "slurm:none",
        "slrum",
        "ssh:",
        "ssh:-oProxy",
        "ssh:a:b",
    ):
        assert refused(address).exit_code == ExitCode.USAGE, address
    monkeypatch.setattr(clusters, "ANSWER_S", 1.0)
    assert refused("tcp://127.0.0.1:1").exit_code == ExitCode.SOURCE
    for missing, address in (
        ("asyncssh", "ssh:h"),
        ("dask_jobqueue", "slurm"),
        ("distributed", "local:1"),
    ):
        monkeypatch.setitem(sys.modules, missing, None)
        assert "not installed" in refused(address).message
