"""What ends while a person is elsewhere, what runs at the same time, and what would be lost:
nothing takes the screen away."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from packager.cli import main
from packager.device.target import Target
from packager.errors import PackError
from packager.events import Event, StageProgress
from packager.records.measurement import Measurement
from targets.devices.device_write import device_text
from targets.machine.probe import keep, look
from tests.support import tui_data as data
from tests.support.probed import NOISY, QUIET
from tests.support.tui_helpers import drive, screen, text_of, until
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.device import DeviceScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen
from tui.widgets.lists import VimList

pytestmark = pytest.mark.slow

DISTURBED = replace(
    data.HERE, device=replace(data.HERE.device, disturbed=0.87, confidence="same-class")
)


class Measuring:
    """A measurement of this machine that waits until it is let go, and notes when it was closed
    early."""

    def __init__(self, found: Target = data.HERE) -> None:
        self.found = found
        self.began, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> Generator[str, None, Target]:
        try:
            while not self.go.wait(0.01):
                self.began.set()
                yield "openvino: matrix of 128 MB"
            return self.found
        finally:
            self.closed.set()


class Benchmark:
    """A benchmark of a package that waits until it is let go."""

    def __init__(self) -> None:
        self.runs, self.go, self.closed = 0, threading.Event(), threading.Event()

    def __call__(self, *_: object) -> Generator[Event, None, Measurement]:
        self.runs += 1
        try:
            while not self.go.wait(0.1):
                yield StageProgress("bench", 2, 5, "answers")
            return data.measured_on_the_shelf()
        finally:
            self.closed.set()


async def measuring(pilot: Pilot[Any], work: Measuring) -> DeviceScreen:
    device = await screen(pilot, DeviceScreen)
    await until(pilot, lambda: device._targets, "the devices")
    await pilot.press("m")
    await until(pilot, work.began.is_set, "the measurement")
    return device


def test_a_measurement_that_ends_shows_its_figures_and_stays_on_the_devices() -> None:
    work = Measuring()

    async def walk(pilot: Pilot[Any]) -> None:
        device = await measuring(pilot, work)
        work.go.set()
        await until(pilot, lambda: not device.measuring, "the end")
        assert pilot.app.screen is device
        assert "38 GB/s" in text_of(pilot) and "Enter continues" in text_of(pilot)
        await pilot.press("enter")
        assert (await screen(pilot, NeedScreen)).ask.target is data.HERE

    drive(walk, data.services(known_machine=lambda: None, measure_machine=work))


def test_a_measurement_that_ends_elsewhere_is_announced_and_changes_neither_screen_nor_device() -> (
    None
):
    work = Measuring()

    async def walk(pilot: Pilot[Any]) -> None:
        device = await measuring(pilot, work)
        await pilot.press("j", "j", "enter")
        need = await screen(pilot, NeedScreen)
        chosen = need.ask.target
        work.go.set()
        await until(pilot, lambda: not device.measuring, "the end")
        assert pilot.app.screen is need and need.ask.target is chosen is not data.HERE
        assert [note.title for note in pilot.app._notifications] == ["This machine is measured"]
        await pilot.press("escape")
        option = device.query_one(VimList).highlighted_option
        assert option is not None and option.id == chosen.name

    drive(walk, data.services(known_machine=lambda: None, measure_machine=work))


def test_esc_cancels_a_measurement_and_the_worker_ends() -> None:
    work = Measuring()

    async def walk(pilot: Pilot[Any]) -> None:
        device = await measuring(pilot, work)
        assert "Esc cancels" in text_of(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: not device.measuring, "the end")
        assert pilot.app.screen is device and "not measured yet" in text_of(pilot)
        assert pilot.app.measuring == ""

    drive(walk, data.services(known_machine=lambda: None, measure_machine=work))
    assert work.closed.is_set()


def test_a_disturbed_measurement_is_marked_where_it_is_shown_and_where_it_decides() -> None:
    work = Measuring(DISTURBED)

    async def walk(pilot: Pilot[Any]) -> None:
        device = await measuring(pilot, work)
        work.go.set()
        await until(pilot, lambda: not device.measuring, "the end")
        assert "! disturbed: other programs took 87%" in text_of(
            pilot
        ) and "m measures again" in text_of(pilot)
        await pilot.press("enter", "n")
        table = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: table.found, "the candidates")
        assert "! speed disturbed: other programs took 87%" in text_of(pilot)

    drive(walk, data.services(known_machine=lambda: None, measure_machine=work))


def test_a_disturbed_measurement_is_not_what_the_next_start_begins_with(
    own_cache: Path, capsys: Any
) -> None:
    from packager.cli.tui import services

    machine = look()
    keep(machine, NOISY)
    assert services().known_machine() is None
    assert main(["fit", "--target", "this-machine", "--model", "Qwen3-0.6B"]) in (0, 3)
    assert "was measured while other programs took 60% of the processors" in capsys.readouterr().out
    keep(machine, QUIET)
    found = services().known_machine()
    assert (
        found is not None
        and found.device.disturbed is None
        and "disturbed" not in device_text(found)
    )


def test_one_measurement_runs_at_a_time_says_how_far_it_is_and_is_stopped_only_on_purpose() -> None:
    work = Benchmark()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ResultScreen(data.package()))
        result = await screen(pilot, ResultScreen)
        await pilot.press("m")
        await until(pilot, lambda: "2 of 5 answers" in text_of(pilot), "the progress")
        await pilot.press("m")
        # Another screen with a package asks the same machine.
        await pilot.press("s")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the packages")
        await pilot.press("m")
        assert (
            work.runs == 1
            and "two at once would spoil both" in [n.message for n in pilot.app._notifications][-1]
        )
        await pilot.press("escape")
        assert pilot.app.screen is result
        for key in ("escape", "q"):
            await pilot.press(key)
            await screen(pilot, ConfirmScreen)
            await pilot.press("n")
            assert result.busy and not work.closed.is_set()
        await pilot.press("X")
        await until(pilot, lambda: not result.busy, "the end")
        assert work.closed.is_set() and pilot.app.measuring == "" and pilot.app.screen is result

    drive(walk, data.services(bench=work))


def test_figures_that_come_while_another_screen_is_on_top_wait_for_the_way_back() -> None:
    work = Benchmark()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ResultScreen(data.package()))
        result = await screen(pilot, ResultScreen)
        await pilot.press("m", "s")
        shelf = await screen(pilot, ShelfScreen)
        work.go.set()
        await until(pilot, lambda: not result.busy, "the end")
        assert pilot.app.screen is shelf
        await pilot.press("escape")
        await screen(pilot, FiguresScreen)

    drive(walk, data.services(bench=work))


def test_a_failure_that_comes_while_another_screen_is_on_top_is_announced() -> None:
    go = threading.Event()

    def fail(*_: object) -> Generator[Event, None, dict[str, Any]]:
        while not go.wait(0.01):
            yield StageProgress("bench", 0, 5, "answers")
        raise PackError("The engine is not there.", "Install it.")

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ResultScreen(data.package()))
        result = await screen(pilot, ResultScreen)
        await pilot.press("m", "s")
        await screen(pilot, ShelfScreen)
        go.set()
        await until(pilot, lambda: not result.busy, "the end")
        assert "The engine is not there." in [note.message for note in pilot.app._notifications]
        await pilot.press("escape")
        assert "The engine is not there." in text_of(pilot)

    drive(walk, data.services(bench=fail))


def test_a_plan_says_which_package_it_replaces_and_asks_where_figures_would_be_lost() -> None:
    kept = data.package()
    rich = data.changed(kept, measurements=[{}])
    built: list[object] = []

    def build(plan: object) -> Generator[Event, None, Any]:
        built.append(plan)
        yield StageProgress("fetch", 1, 2)
        return kept

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        assert (
            "Replaces the package that is there (built 2026-01-02 03:04, context 4,096), with 1 "
            "measurement" in " ".join(text_of(pilot).split())
        )
        assert "Another qwen-pack builds into this folder now" in text_of(pilot)
        await pilot.press("b")
        await screen(pilot, ConfirmScreen)
        await pilot.press("n")
        assert pilot.app.screen is plan and not built
        await pilot.press("b", "y")
        await until(pilot, lambda: built, "the build")

    drive(walk, data.services(replaced=lambda plan: rich, underway=lambda plan: True, build=build))


def test_a_finished_build_is_named_after_the_end_and_a_cancelled_one_says_all_of_its_sentence() -> (
    None
):
    def build(plan: object) -> Generator[Event, None, Any]:
        while not go.wait(0.01):
            yield StageProgress("fetch", 1, 2)
        return data.package()

    go = threading.Event()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(BuildScreen(data.PLAN, ""))
        shown = await screen(pilot, BuildScreen)
        await until(pilot, lambda: shown.progress.running or shown.progress.stages, "the build")
        await pilot.press("c")
        await until(pilot, lambda: shown.progress.state == "cancelled", "the end")
        await until(pilot, lambda: "no package was written" in text_of(pilot), "the sentence")
        assert "Finished stages are in the cache." in text_of(pilot)
        go.set()
        await pilot.press("r")
        await screen(pilot, ResultScreen)

    app = drive(walk, data.services(build=build), size=(80, 24))
    assert app.made == [data.package().path]


def test_nothing_is_measured_beside_a_build_and_nothing_is_built_beside_a_measurement() -> None:
    work = Benchmark()

    def build(plan: object) -> Generator[Event, None, Any]:
        while not work.go.wait(0.01):
            yield StageProgress("fetch", 1, 2)
        return data.package()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(BuildScreen(data.PLAN, ""))
        shown = await screen(pilot, BuildScreen)
        await until(pilot, lambda: shown.progress.stages, "the build")
        await pilot.press("s")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the packages")
        await pilot.press("m")
        assert (
            work.runs == 0
            and "being measured or built" in [note.message for note in pilot.app._notifications][-1]
        )
        work.go.set()
        await until(pilot, lambda: shown.package, "the end of the build")
        pilot.app.measuring = "another package"
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        await pilot.press("b")
        assert pilot.app.screen is plan

    drive(walk, data.services(bench=work, build=build))
