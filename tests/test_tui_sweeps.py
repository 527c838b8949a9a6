"""Sweeps from inside the walkthrough: plans and past ones in a list, the forecast before the start,
the sweep itself, and what it left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.support import tui_data as data
from tests.support.sweeps import dying, tiny_plan
from tests.support.tui_helpers import drive, screen, settled, text_of, until
from tui import sweeps
from tui.screens.device import DeviceScreen
from tui.screens.sweep import SweepScreen
from tui.screens.sweeps import SweepsScreen
from tui.services import Services

pytestmark = pytest.mark.slow


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "dying.log"))
    house = dying()
    given = data.services(read_target=house.look_up, runtimes=lambda: tuple(house.runtimes))
    return replace(
        given, folder=tmp_path / "here", sweep_files=sweeps.listed, sweep_shown=sweeps.look
    )


async def opened(pilot: Pilot[Any]) -> SweepsScreen:
    await screen(pilot, DeviceScreen)
    await settled(pilot)
    await pilot.press("S")
    top = await screen(pilot, SweepsScreen)
    await settled(pilot)
    return top


def test_a_plan_is_found_foretold_started_and_listed_with_its_result(
    tmp_path: Path, services: Services
) -> None:
    (tmp_path / "here").mkdir()
    tiny_plan(tmp_path / "here", 1)
    (tmp_path / "here" / "device.toml").write_text('name = "no plan"\n')

    async def walk(pilot: Pilot[Any]) -> None:
        top = await opened(pilot)
        shown = text_of(pilot)
        assert "plan.toml" in shown and "device.toml" not in shown
        assert "tiny-0" in shown and "1 of 1 cells can be built" in shown
        await pilot.press("y")
        assert pilot.app.clipboard.endswith("plan.toml")
        await pilot.press("b")
        await until(pilot, lambda: "Start the sweep plan?" in text_of(pilot), "the question")
        await pilot.press("y")
        sweep = await screen(pilot, SweepScreen)
        await until(pilot, lambda: not sweep.sweep.busy, "the end of the sweep")
        await settled(pilot)
        assert "1 of 1, done" in text_of(pilot) and not pilot.app.measuring
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is top, "the list")
        await settled(pilot)
        await pilot.press("j")
        await until(pilot, lambda: "1 of 1 cells were built." in text_of(pilot), "what it found")
        assert not top.check_action("begin", ()), "what is over is not started"

    drive(walk, services)
    assert (tmp_path / "here" / "sweep-plan" / "report" / "index.html").is_file()


def test_leaving_a_running_sweep_asks_and_the_plan_continues_it(
    tmp_path: Path, services: Services
) -> None:
    (tmp_path / "here").mkdir()
    tiny_plan(tmp_path / "here", 2)

    async def walk(pilot: Pilot[Any]) -> None:
        await opened(pilot)
        await pilot.press("b", "y")
        sweep = await screen(pilot, SweepScreen)
        await until(pilot, lambda: sweep.sweep.count("running", "done"), "a cell")
        await pilot.press("escape")
        await until(pilot, lambda: "Stop the sweep?" in text_of(pilot), "the question")
        await pilot.press("y")
        await until(pilot, lambda: not sweep.sweep.busy, "the end")
        await settled(pilot)
        assert "Esc goes back" in text_of(pilot)
        await pilot.press("escape")
        await screen(pilot, SweepsScreen)

    drive(walk, services)
    (run,) = sweeps.Listed("sweep", tmp_path / "here" / "sweep-plan").path.glob("runs/*")
    assert '"finished": null' in (run / "run.json").read_text()


def test_a_mistake_in_a_plan_and_a_folder_without_plans_are_explained(
    tmp_path: Path, services: Services
) -> None:
    (tmp_path / "bad.toml").write_text('[axes]\nvariants = ["Qwen9"]\ntargets = ["big"]\n')

    async def walk(pilot: Pilot[Any]) -> None:
        top = await opened(pilot)
        assert "A sweep builds and measures a matrix" in text_of(pilot)
        await pilot.press("slash", *str(tmp_path / "bad.toml"), "enter")
        await until(pilot, lambda: "Qwen9" in text_of(pilot), "the mistake")
        await settled(pilot)
        assert not top.check_action("begin", ())
        await pilot.press("enter", "escape")
        await screen(pilot, DeviceScreen)

    drive(walk, services)
