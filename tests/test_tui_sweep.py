"""The screen of a sweep: rows that follow the events, a forecast of the end, stopping, and what is
left of it; on the real sweep of a runtime that computes with numpy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.sweep import inline
from packager.sweep.events import CellFinished, CellStarted, StageGiven, Told
from packager.sweep.row import not_done
from tests.support import tui_data
from tests.support.sweeps import tiny_plan, work_of
from tests.support.tui_helpers import screen, settled, text_of, until
from tui.screens.sweep import Job, SweepScreen
from tui.sweep import Follower, Sweep, planned
from tui.sweep_app import SweepApp


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime of the tests writes down what it does."""
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "dying.log"))


def driven(
    job: Job, walk: Any, size: tuple[int, int] = (80, 24), state: Sweep | None = None
) -> SweepApp:
    app = SweepApp(tui_data.services(), job, state=state)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await walk(pilot)

    asyncio.run(run())
    return app


def test_cells_go_from_waiting_to_done_and_the_end_is_foretold(tmp_path: Path) -> None:
    work = work_of(tiny_plan(tmp_path, 2), tmp_path / "out")
    first, second = work.matrix.planned
    follower = Follower(planned(work.matrix.planned), {"convert": "Convert"})
    sweep = follower.advance(CellStarted(first.cell, 1, 2, 90.0), now=10.0)
    assert [one.status for one in sweep.cells] == ["running", "waiting"]
    assert sweep.left(now=40.0) == 60.0 and sweep.cells[0].predicted
    sweep = follower.advance(
        CellFinished(first.cell, not_done(first.cell, "failed", "Broken.")), 20.0
    )
    assert (sweep.cells[0].status, sweep.count("failed")) == ("failed", 1)
    assert sweep.lines[-1].endswith("failed: Broken.") and sweep.changed == {0}
    sweep = follower.advance(StageGiven(second.cell, "convert"), 21.0)
    assert sweep.cells[1].says == "convert …" and sweep.changed == {1}
    assert follower.advance(Told("a word"), 22.0).lines[-1] == "a word"


@pytest.mark.slow
def test_a_sweep_is_followed_to_its_end_and_its_figures_are_those_of_the_rows(
    tmp_path: Path,
) -> None:
    work = work_of(tiny_plan(tmp_path, 1), tmp_path / "out")
    job = Job("nightly", work.matrix.planned, lambda: inline.run(work))

    async def walk(pilot: Pilot[Any]) -> None:
        top = await screen(pilot, SweepScreen)
        await until(pilot, lambda: not top.sweep.busy, "the end of the sweep")
        await settled(pilot)
        shown = text_of(pilot)
        assert "1 of 1, done" in shown and "tiny-0 dying:b16" in shown
        await pilot.press("q")

    app = driven(job, walk, (120, 36))
    assert app.outcome is not None and app.outcome.state == "done"
    rows = work.folder.runs()[-1].rows
    for one in app.outcome.cells:
        assert one.decode_tps == rows[one.cell.id].figures["decode_tps"] and not one.predicted


@pytest.mark.slow
def test_leaving_asks_and_stops_and_what_was_finished_stays(tmp_path: Path) -> None:
    work = work_of(tiny_plan(tmp_path, 1), tmp_path / "out")

    def slowly() -> Generator[Any, None, Any]:
        """The real sweep, which waits after its first cell until it is stopped."""
        events = inline.run(work)
        try:
            for event in events:
                yield event
                while isinstance(event, CellFinished):
                    time.sleep(0.05)
                    yield Told("waiting")
        finally:
            events.close()

    async def walk(pilot: Pilot[Any]) -> None:
        top = await screen(pilot, SweepScreen)
        await until(pilot, lambda: top.sweep.count("done") == 1, "the first cell")
        await pilot.press("q")
        await until(pilot, lambda: "Quit and stop the sweep?" in text_of(pilot), "the question")
        await pilot.press("y")
        await until(pilot, lambda: not top.sweep.busy, "the end")

    app = driven(Job("nightly", work.matrix.planned, slowly), walk)
    assert app.outcome is not None and app.outcome.state == "stopped"
    (run,) = work.folder.runs()
    assert len(run.rows) == 1 and run.file.finished is None


def test_what_ends_a_sweep_is_shown_with_its_way_on_and_its_exit_code(tmp_path: Path) -> None:
    work = work_of(tiny_plan(tmp_path, 1), tmp_path / "out")

    def gone() -> Generator[Any, None, Any]:
        yield Told("begun")
        raise PackError("The scheduler has gone.", "Start it again.", ExitCode.SOURCE)

    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, SweepScreen)
        await until(pilot, lambda: "The scheduler has gone." in text_of(pilot), "the sentence")
        assert "Start it again." in text_of(pilot)

    app = driven(Job("nightly", work.matrix.planned, gone), walk)
    assert app.outcome is not None and app.outcome.exit_code == ExitCode.SOURCE


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
def test_a_state_in_the_middle_is_readable_at_two_sizes(tmp_path: Path, size: Any) -> None:
    work = work_of(tiny_plan(tmp_path, 2), tmp_path / "out")
    first, second = work.matrix.planned
    follower = Follower(planned(work.matrix.planned), {"fetch": "Fetch", "convert": "Convert"})
    follower.advance(CellFinished(first.cell, not_done(first.cell, "failed", "Broken.")), 0.0)
    half = follower.advance(CellStarted(second.cell, 2, 2, 5400.0), tui_data.services().clock())
    job = Job("nightly", work.matrix.planned, lambda: inline.run(work))

    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, SweepScreen)
        await settled(pilot)
        shown = text_of(pilot)
        for word in ("✗", "●", "tiny-1 dying:b16 context 64 for big", "1 of 2, 1 failed"):
            assert word in shown, shown
        assert "left, until" in shown

    driven(job, walk, size, replace(half, lines=("first: failed",)))


def test_without_a_terminal_it_says_so_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.toml").write_text(
        '[axes]\nvariants = ["Qwen3-0.6B"]\nrecipes = ["gguf:Q8_0"]\ntargets = ["laptop-cpu"]\n'
        '[weights]\nsource = "dummy"\n'
    )
    line = ["sweep", str(tmp_path / "t.toml"), "--out", str(tmp_path / "s"), "--tui"]
    assert main(line) == ExitCode.USAGE
    assert "needs a terminal" in capsys.readouterr().err
    assert not list((tmp_path / "s").rglob("rows.jsonl"))
