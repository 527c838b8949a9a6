"""The walkthrough with the real engine: from a device to a package on disk, by keys alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from packager.events import Event, StageMemory, StageNote, StageProgress
from packager.package.package import Package
from packager.package.verify import verify
from packager.pipeline.run import STAGES
from packager.plan.plan import Plan
from tests.support.make_checkpoint import write_tiny
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive, real_services, screen, text_of, until
from tui import core
from tui.ask import Ask
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.device import DeviceScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen
from tui.settings import Settings
from tui.widgets.lists import VimList
from tui.widgets.problem import Problem

pytestmark = [pytest.mark.slow, pytest.mark.engine]

RECIPE = "gguf:Q8_0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny", hidden=256, intermediate=512)


def engine_processes() -> list[psutil.Process]:
    """Engines at work for this test run."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "packager.process" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


class Held:
    """Stops the process of one stage (0 fetch, 1 convert, 2 measure) as soon as it appears, so that
    a fast build waits for a test."""

    def __init__(self, stage: int) -> None:
        self._stage = stage
        self._done = threading.Event()
        self.process: psutil.Process | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Held:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.go_on()

    def _watch(self) -> None:
        seen: list[str] = []
        while not self._done.is_set() and self.process is None:
            # Cheaper than walking all processes of the machine, which would slow down what is
            # tested.
            for path in Path("/proc/self/task").glob("*/children"):
                with suppress(OSError, psutil.Error):
                    for pid in path.read_text().split():
                        child = psutil.Process(int(pid))
                        if pid not in seen and "packager.process" in child.cmdline():
                            seen.append(pid)
                            if len(seen) == self._stage + 1:
                                child.suspend()
                                self.process = child
            time.sleep(0.005)

    def go_on(self) -> None:
        """Let it run; a termination that waits for it arrives now."""
        if self.process is not None:
            with suppress(psutil.Error):
                self.process.resume()


async def to_plan(pilot: Pilot[Any], checkpoint: Path) -> PlanScreen:
    """From the candidates of a local checkpoint to the plan of one recipe."""
    target = pilot.app.services.read_target("laptop-cpu")
    pilot.app.push_screen(
        CandidatesScreen(Ask(target, weights=str(checkpoint)).wishing(context=256))
    )
    table = await screen(pilot, CandidatesScreen)
    await until(pilot, lambda: table.found, "the candidates")
    await pilot.press("slash", *RECIPE.casefold(), "enter", "enter")
    plan = await screen(pilot, PlanScreen)
    await until(pilot, lambda: plan.checked, "the plan")
    return plan


async def to_build(pilot: Pilot[Any]) -> BuildScreen:
    """Past the plan: the build runs."""
    await pilot.press("b")
    return await until(
        pilot,
        lambda: next((one for one in pilot.app.screen_stack if isinstance(one, BuildScreen)), None),
        "the build",
    )


def test_the_whole_way_from_a_device_to_a_package_and_its_deletion_by_keys_alone(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device.query_one(VimList).option_count > 10, "the devices")
        await pilot.press("slash", *"laptop-cpu", "enter", "j", "enter")

        await screen(pilot, NeedScreen)
        await pilot.press("tab", "h", "h", "h", "h")
        await pilot.press(*["tab"] * 8, "end")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "the field for the folder")
        await pilot.press(*str(checkpoint), "enter")

        table = await screen(pilot, CandidatesScreen)
        found = await until(pilot, lambda: table.found, "the candidates")
        assert found.ask.workload().context == 512
        assert {one.variant.repo_id for one in found.candidates} == {"local/tiny"}
        await pilot.press("slash", *RECIPE.casefold(), "enter", "enter")

        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        assert f"--recipe {RECIPE}" in plan.command
        await pilot.press("enter")

        build = await screen(pilot, BuildScreen)
        await until(pilot, lambda: not build.progress.busy, "the end of the build")
        assert build.progress.failure is None, build.progress.lines
        assert [stage.status for stage in build.progress.stages] == ["done"] * 5
        assert all(size > 0 for size in build.progress.memory)

        await screen(pilot, ResultScreen)
        text = text_of(pilot)
        assert "Predicted and measured" in text and "passed" in text and "model.gguf" in text

        await pilot.press("v")
        await until(
            pilot,
            lambda: any("is whole" in one.title for one in pilot.app._notifications),
            "the verification",
        )
        await pilot.press("m")
        await screen(pilot, FiguresScreen)
        await pilot.press("s")

        await pilot.press("f2")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the package on the shelf")
        package = shelf.package
        assert package is not None and package.path.parent == folder
        assert verify(package.path) == []
        assert len(json.loads((package.path / "manifest.json").read_text())["measurements"]) == 1

        await pilot.press("d")
        await screen(pilot, ConfirmScreen)
        await pilot.press("enter")
        await screen(pilot, ShelfScreen)
        assert package.path.is_dir()
        await pilot.press("d")
        await screen(pilot, ConfirmScreen)
        await pilot.press("y")
        await until(pilot, lambda: not package.path.exists(), "the deletion")
        await until(pilot, lambda: "Nothing on the shelf yet" in text_of(pilot), "the empty shelf")

    drive(walk, real_services(folder))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("stage", [thorough(0), thorough(1), 2], ids=list(STAGES)[:3])
def test_cancelling_a_stage_ends_its_process_and_leaves_no_package(
    stage: int, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    async def walk(pilot: Pilot[Any]) -> None:
        await to_plan(pilot, checkpoint)
        with Held(stage) as held:
            build = await to_build(pilot)
            await until(pilot, lambda: held.process, f"the process of stage {stage}")
            await pilot.press("c")
            assert build.progress.state == "stopping"
            held.go_on()
            await until(pilot, lambda: build.progress.state == "cancelled", "the end")
        assert engine_processes() == []
        assert [one.status for one in build.progress.stages] == ["done"] * stage + ["cancelled"] + [
            "waiting"
        ] * (4 - stage)
        assert "no package was written" in build.query_one(Problem).text

    drive(walk, real_services(folder))
    assert list(folder.iterdir()) == []


class Paused:
    """The real build, which waits at the first sign of work in one stage until it is let go."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.there, self.go = threading.Event(), threading.Event()

    def __call__(self, plan: Plan) -> Generator[Event, None, Package]:
        events = core.build(plan)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                yield event
                if (
                    isinstance(event, StageProgress | StageMemory | StageNote)
                    and event.stage == self._stage
                ):
                    self.there.set()
                    self.go.wait(60)
        finally:
            events.close()


@pytest.mark.parametrize("stage", [*map(thorough, list(STAGES)[3:-1]), list(STAGES)[-1]])
def test_cancelling_a_late_stage_leaves_no_package_either(
    stage: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    paused = Paused(stage)

    async def walk(pilot: Pilot[Any]) -> None:
        await to_plan(pilot, checkpoint)
        build = await to_build(pilot)
        await until(
            pilot, lambda: paused.there.is_set() or not build.progress.busy, f"the work of {stage}"
        )
        await pilot.press("c")
        assert build.progress.state == "stopping"
        paused.go.set()
        await until(pilot, lambda: build.progress.state == "cancelled", "the end")
        assert engine_processes() == []
        done = list(STAGES).index(stage)
        assert [one.status for one in build.progress.stages][done] == "cancelled"
        assert "no package was written" in build.query_one(Problem).text

    drive(walk, replace(real_services(folder), build=paused))
    assert list(folder.iterdir()) == []


def test_a_failed_stage_is_shown_with_its_way_on_and_a_retry_builds_what_was_missing(
    tmp_path: Path,
) -> None:
    """The weights vanish between plan and build; once they are back, the retry succeeds."""
    checkpoint = write_tiny(tmp_path / "tiny", hidden=256, intermediate=512)
    folder = tmp_path / "out"
    folder.mkdir()

    async def walk(pilot: Pilot[Any]) -> None:
        await to_plan(pilot, checkpoint)
        weights = checkpoint / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:1000])
        await pilot.press("b")
        build = await screen(pilot, BuildScreen)
        await until(pilot, lambda: build.progress.state == "failed", "the failure")
        assert (
            build.progress.failure is not None
            and "model.safetensors" in build.progress.failure.message
        )
        assert "✗ Get the weights" in text_of(pilot)
        await pilot.press("y")
        assert "model.safetensors" in pilot.app.clipboard
        weights.write_bytes(whole)
        await pilot.press("r")
        await screen(pilot, ResultScreen)

    drive(walk, real_services(folder))
    assert [path.name for path in folder.iterdir()] == ["tiny-gguf-q8_0"]


def test_q_asks_while_a_build_runs_and_leaving_ends_the_engine(
    checkpoint: Path, tmp_path: Path
) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await to_plan(pilot, checkpoint)
        with Held(1) as held:
            build = await to_build(pilot)
            await until(pilot, lambda: held.process, "an engine at work")
            await pilot.press("q")
            await screen(pilot, ConfirmScreen)
            await pilot.press("n")
            await screen(pilot, BuildScreen)
            assert build.progress.busy
            await pilot.press("q")
            await screen(pilot, ConfirmScreen)
            await pilot.press("y")
            held.go_on()
            await until(pilot, lambda: pilot.app._exit, "the way out")

    app = drive(walk, real_services(tmp_path))
    assert app.return_value == 0
    assert engine_processes() == []


def test_a_rebound_key_takes_the_place_of_the_old_one(checkpoint: Path, tmp_path: Path) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await to_plan(pilot, checkpoint)
        assert "f9" in text_of(pilot).splitlines()[-1]
        await pilot.press("b")
        await pilot.pause()
        assert isinstance(pilot.app.screen, PlanScreen)
        with Held(0) as held:
            await pilot.press("f9")
            build = await screen(pilot, BuildScreen)
            await pilot.press("c")
            held.go_on()
            await until(pilot, lambda: not build.progress.busy, "the end")

    drive(walk, real_services(tmp_path), settings=Settings(keys={"plan.build": "f9"}))


def test_a_taken_folder_stops_the_plan_before_it_starts(checkpoint: Path, tmp_path: Path) -> None:
    holiday = tmp_path / "photos"
    holiday.mkdir()
    (holiday / "beach.jpg").write_text("sand")

    async def walk(pilot: Pilot[Any]) -> None:
        plan = await to_plan(pilot, checkpoint)
        await pilot.press("f", "end", *["ctrl+u"], *str(holiday), "enter")
        await until(pilot, lambda: plan.checked and plan.checked.problems, "the problem")
        # Where the sentence is broken into lines depends on how long the folder's name is, so its
        # first and last words are looked for.
        await until(
            pilot,
            lambda: "cannot start" in text_of(pilot) and "write." in text_of(pilot),
            "the sentence on the screen",
        )
        assert "did not write" in str(plan.checked.problems[0])
        assert f"--out {holiday}" in plan.command
        await pilot.press("b")
        await pilot.pause()
        assert isinstance(pilot.app.screen, PlanScreen)

    drive(walk, real_services(tmp_path))
    assert (holiday / "beach.jpg").read_text() == "sand"
