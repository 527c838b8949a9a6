"""A sweep that is run here: rows, what a failure, an interruption and a full disk leave, pruning,
and what stays of the packages. The runtime computes with numpy; nothing is mocked."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.cli.sweep_worker import known_here
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.verify import verify
from packager.pipeline.cache import BuildCache
from packager.sweep import inline, on_device
from packager.sweep.building import Work
from packager.sweep.events import CellFinished, CellStarted, Told
from packager.sweep.folder import Run
from tests.conftest import REPOSITORY
from tests.support.adapters import QUERY, low_rank
from tests.support.building import words_of
from tests.support.lab import agent_of_this_machine
from tests.support.sweeps import dying, plan_of, through, tiny_plan, work_of

pytestmark = pytest.mark.slow

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime of the tests writes down what it does."""
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "dying.log"))


def conversions(tmp_path: Path) -> int:
    """How often anything was converted, the engine's own checks aside."""
    return (tmp_path / "dying.log").read_text().count("convert ")


def run(work: Work) -> tuple[list[Any], Run]:
    return through(inline.run(work))


def test_every_cell_has_a_row_and_a_package_and_a_second_run_takes_all_from_the_cache(
    tmp_path: Path,
) -> None:
    plan = tiny_plan(tmp_path, 2)
    work = work_of(plan, tmp_path / "out")
    events, first = run(work)
    assert [row.status for row in first.rows.values()] == ["done", "done"]
    for row in first.rows.values():
        assert row.package is not None and verify(work.folder.root / row.package) == []
        assert row.figures["decode_tps"] > 0 and row.seconds["convert"] >= 0
        assert row.machine is not None and row.content_sha256
    started = [event for event in events if isinstance(event, CellStarted)]
    assert [event.index for event in started] == [1, 2] and started[0].left_s
    assert conversions(tmp_path) == 2
    again = run(work_of(plan, tmp_path / "out"))[1]
    assert again.number == 2 and conversions(tmp_path) == 2
    for name, row in again.rows.items():
        assert set(row.cached) >= {"fetch", "convert", "quality", "package"}
        assert row.content_sha256 == first.rows[name].content_sha256


def test_a_failing_cell_is_a_row_with_its_sentence_and_is_tried_again(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, 2)
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "tiny-0", whole)
    weights = tmp_path / "tiny-0" / "model.safetensors"
    work = work_of(plan, tmp_path / "out")
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    events, found = run(work)
    bad, good = found.rows.values()
    assert (bad.status, good.status) == ("failed", "done")
    assert bad.exit_code == ExitCode.INPUT and bad.reason and "model.safetensors" in bad.reason
    assert not (work.folder.packages / bad.id).exists()
    assert sum(isinstance(event, CellFinished) for event in events) == 2
    weights.write_bytes(data)
    rows = run(work_of(plan, tmp_path / "out"))[1].rows
    assert {row.status for row in rows.values()} == {"done"}


def test_a_bug_is_a_row_too_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path, 2)
    work = work_of(plan, tmp_path / "out")
    from packager.sweep import building

    def broken(*_: Any) -> None:
        raise RuntimeError("not expected")

    monkeypatch.setattr(building.pipeline, "run", broken)
    rows = list(run(work)[1].rows.values())
    assert {row.exit_code for row in rows} == {ExitCode.BUG}
    kept = work.folder.root / "bugs" / f"{rows[0].id}.txt"
    assert "RuntimeError: not expected" in kept.read_text()


def test_what_was_finished_before_an_interruption_is_not_done_again(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, 2)
    work = work_of(plan, tmp_path / "out")
    events = inline.run(work)
    for event in events:
        if isinstance(event, CellFinished):
            break
    events.close()
    (half,) = work.folder.runs()
    assert half.file.finished is None and len(half.rows) == 1
    before = conversions(tmp_path)
    said, whole = run(work_of(plan, tmp_path / "out"))
    assert whole.number == 1 and whole.file.finished is None
    assert any(isinstance(event, Told) and "continues" in event.text for event in said)
    assert sum(isinstance(event, CellStarted) for event in said) == 1
    assert len(whole.rows) == 2 and conversions(tmp_path) == before + 1
    assert work.folder.runs()[-1].file.finished is not None


def test_packages_are_dropped_to_their_manifest_and_only_those_on_the_front_stay(
    tmp_path: Path,
) -> None:
    plan = tiny_plan(tmp_path, 1)
    none = replace(plan, keep_packages="none")
    rows = list(run(work_of(none, tmp_path / "none"))[1].rows.values())
    assert all(row.package is None and row.manifest for row in rows)
    assert list((tmp_path / "none" / "packages").glob("*")) == []
    kept = json.loads((tmp_path / "none" / str(rows[0].manifest)).read_text())
    assert kept["build_key"]
    # The same checkpoint in one form alone: nothing beats it.
    best = replace(plan, keep_packages="best")
    rows = list(run(work_of(best, tmp_path / "best"))[1].rows.values())
    assert all(row.package is not None for row in rows)


def test_adapters_are_an_axis_and_none_is_one_of_them(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, 1)
    low_rank(tmp_path / "polite", {QUERY: (64, 64)})
    text = plan.text.replace("[axes]", '[axes]\nadapters = ["none", "polite", ["polite:0.5"]]')
    text += '[[exclude]]\nadapter = "*:0.5"\nrecipe = "dying:b16"\n'
    work = work_of(plan_of(text, tmp_path, dying()), tmp_path / "out")
    assert [cell.adapters for cell, _ in work.matrix.excluded] == ["polite-0.5"]
    without, merged = (one.cell for one in work.matrix.possible)
    assert (without.adapters, merged.adapters) == ("", "polite") and "with polite" in merged.label
    assert (
        without.id
        == replace(merged, lora=()).id
        == work_of(plan, tmp_path / "p").matrix.planned[0].cell.id
    )
    # Only the adapted one is built: the other one is what all other tests build.
    text += '[[exclude]]\nadapter = "none"\n'
    work = work_of(plan_of(text, tmp_path, dying()), tmp_path / "merged")
    (row,) = run(work)[1].rows.values()
    assert row.status == "done" and row.id == merged.id and row.package is not None
    (adapter,) = json.loads((work.folder.root / row.package / "manifest.json").read_text())[
        "source"
    ]["adapters"]
    assert adapter["location"] == "polite"


def test_a_limit_of_disk_is_kept_by_the_cache_first_and_is_a_row_where_that_does_not_do(
    tmp_path: Path,
) -> None:
    plan = tiny_plan(tmp_path, 2)
    rows = run(work_of(replace(plan, disk_bytes=1000), tmp_path / "out"))[1].rows.values()
    assert {row.exit_code for row in rows} == {ExitCode.RESOURCE}
    assert all(row.reason and "Raise `disk` in [limits]" in row.reason for row in rows)
    cache = BuildCache()
    with cache.work_folder() as folder:
        (folder / "x").write_bytes(b"0" * 50_000)
        old = cache.keep("convert", "0" * 24, folder, {})
    work = work_of(replace(plan, disk_bytes=1_200_000), tmp_path / "out")
    size = work.matrix.planned[0].build.disk + work.matrix.planned[0].artifact_bytes
    work = replace(work, plan=replace(plan, disk_bytes=size + 30_000))
    run(work)
    assert not old.folder.exists()


def test_pruning_keeps_as_many_of_a_target_and_says_at_which_rung_the_others_went(
    tmp_path: Path,
) -> None:
    plan = replace(tiny_plan(tmp_path, 4), keep=1, by=("memory", "size"))
    work = work_of(plan, tmp_path / "out")
    found = run(work)[1]
    status = [row.status for row in found.rows.values()]
    assert (status.count("done"), status.count("dropped")) == (1, 3)
    rungs = [row.rung for row in found.rows.values() if row.status == "dropped"]
    assert sorted(map(str, rungs)) == ["gate", "size", "size"]
    for row in found.rows.values():
        if row.status == "dropped":
            assert row.reason and re.search(r"\d of \d continue, this is number \d", row.reason)
    # Two were converted, and no other: bytes come first.
    assert conversions(tmp_path) == 2
    assert run(work_of(plan, tmp_path / "out"))[1].number == 2


@pytest.mark.engine
@pytest.mark.thorough(
    "test_what_was_finished_before_an_interruption_is_not_done_again",
    "test_a_command_of_the_pages_works",
)
def test_a_sweep_by_the_command_line_is_interrupted_resumed_reported_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").symlink_to(TRAINED)
    (tmp_path / "t.toml").write_text("""
[axes]
checkpoints = ["tiny"]
recipes = ["gguf:Q8_0", "gguf:Q4_0"]
targets = ["laptop-cpu", "raspberry-pi-5-8gb"]
contexts = [64]
[[exclude]]
recipe = "gguf:Q4_0"
target = "raspberry*"
""")
    line = [sys.executable, *words_of("packager.cli"), "sweep", "t.toml", "--out", "s"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith("2 of 3"):
            process.send_signal(signal.SIGINT)
    assert process.wait(120) == ExitCode.INTERRUPTED
    rows = (tmp_path / "s" / "runs" / "0001" / "rows.jsonl").read_text().splitlines()
    # Where this test waits for a processor the second cell may be done as well.
    assert 1 <= len(rows) < 3
    done = subprocess.run(
        [*line, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Run 1 continues: {len(rows)} of its cells are done." in done.stderr
    answer = json.loads(done.stdout)
    assert [cell["status"] for cell in answer["cells"]] == ["done"] * 3
    assert {Path(name).name for name in answer["files"]} >= {"index.html", "route.json"}
    # Figures of the last time that are out of reach: the next run is worse, beyond the noise.
    first = tmp_path / "s" / "runs" / "0001" / "rows.jsonl"
    faster = re.sub(r'"kl_mean": [0-9.e-]+', '"kl_mean": 1e-9', first.read_text())
    first.write_text(faster)
    strict = [*line, "--fail-on-regression"]
    again = subprocess.run(strict, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == ExitCode.BUDGET, again.stderr
    assert "divergence: 0.0000 nats before" in again.stderr
    assert subprocess.run(line, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "report", "s"]) == ExitCode.DONE


@pytest.mark.engine
@pytest.mark.thorough(
    "test_a_package_is_built_here_and_measured_there_in_one_command",
    "test_a_device_has_one_slot_and_its_next_measurement_waits",
)
def test_packages_of_a_target_are_measured_on_the_machine_that_the_plan_names(
    tmp_path: Path,
) -> None:
    pytest.importorskip("llama_cpp")
    agent_of_this_machine(tmp_path / "cache")
    (tmp_path / "tiny").symlink_to(TRAINED)
    text = """
[axes]
checkpoints = ["tiny"]
recipes = ["gguf:Q8_0"]
targets = ["laptop-cpu"]
contexts = [64]
[on]
laptop-cpu = "local:"
"""
    house = known_here()
    work = work_of(plan_of(text, tmp_path, house), tmp_path / "out", house)
    found = run(work)[1]
    (row,) = found.rows.values()
    assert row.status == "done", row.reason
    assert row.package is not None
    (there,) = manifest.read(work.folder.root / row.package).contents.measurements
    assert there.through is not None and there.through.transport == "local"
    assert verify(work.folder.root / row.package) == []
    # Its row was lost with the process: the figures are there, and nothing is measured again.
    path = work.folder.root / row.package
    again = on_device.measured(replace(house, measure_on=None), path, "local:", found.file.started)
    assert through(again)[1].contents.measurements == (there,)
