"""A monkey at the keys, with the mouse, and at the corner of the window: whatever it does, no
traceback, no orphan, no lost package.

QWEN_PACK_MONKEY_STEPS=20000 pytest tests/test_tui_monkey.py        as long as one likes
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from packager.device.target import Target
from packager.errors import usage
from packager.events import (
    Event,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.package.package import Package
from packager.pipeline.run import STAGES
from packager.process import Progress
from packager.shipping.export import Exported
from packager.sources.hub_file import HubFile
from packager.sweep.events import CellFinished, CellStarted, Told
from packager.sweep.known import Known
from packager.sweep.matrix import Matrix
from packager.sweep.row import not_done
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive
from tui.ask import Ask, FileOfHub
from tui.core import Found
from tui.leaving import Order
from tui.screens.need import NeedScreen
from tui.screens.options import OptionsScreen
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.sweeps import Order as SweepOrder
from tui.sweeps import Shown

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("QWEN_PACK_MONKEY_STEPS", "2000"))
SIZES = ((80, 24), (120, 36), (200, 50))
KEYS = (
    *(
        "enter",
        "escape",
        "tab",
        "shift+tab",
        "up",
        "down",
        "left",
        "right",
        "space",
        "home",
        "end",
        "backspace",
    ),
    *(
        "ctrl+d",
        "ctrl+u",
        "ctrl+o",
        "ctrl+p",
        "ctrl+y",
        "slash",
        "question_mark",
        "f1",
        "f2",
        "f3",
        "f4",
        "f6",
        "minus",
        "full_stop",
        "tilde",
    ),
    *"jkhlgGnrmMsSoOxXwpuyYfbcevdaH129z",
)
"""All that is bound anywhere, and some that is not; q is left out, as it would end the walk."""


class Worlds:
    """Services that answer, refuse, hurry and dawdle at random, and count the work that is open."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.open: set[int] = set()
        self.deleted: list[Path] = []

    def _work(self, steps: int, events: Any, value: Any) -> Generator[Any, None, Any]:
        mark = id(threading.current_thread()) + len(self.open) + random.getrandbits(40)
        self.open.add(mark)
        try:
            for step in range(steps):
                time.sleep(0.002)
                yield events(step)
            if self.chance.random() < 0.2:
                raise usage(
                    "It did not work this time.", "Try again with another --context or --out."
                )
            return value
        finally:
            self.open.discard(mark)

    def measure(self) -> Generator[str, None, Target]:
        return self._work(self.chance.randint(1, 60), lambda step: f"matrix {step}", data.HERE)

    def build(self, plan: object) -> Generator[Event, None, Package]:
        def event(step: int) -> Event:
            names = list(STAGES)
            name = names[min(step // 8, len(names) - 1)]
            kinds: list[Event] = [
                StageStarted(name, STAGES[name], 1, len(names)),
                StageProgress(name, step, 40),
                StageMemory(name, step * 10**7),
                StageNote(name, f"step {step}"),
                StageFinished(name, 0.1, False, "1 MB"),
            ]
            return kinds[step % len(kinds)]

        return self._work(self.chance.randint(1, 60), event, data.package())

    def bench(self, *_: object) -> Generator[Event, None, dict[str, Any]]:
        figures = data.measured_on_the_shelf()
        return self._work(
            self.chance.randint(1, 60),
            lambda step: StageProgress("bench", step, 60, "answers"),
            figures,
        )

    def bench_on(self, *_: object) -> Generator[Event, None, dict[str, Any]]:
        return self._work(
            self.chance.randint(1, 60),
            lambda step: StageProgress("push", step, 60),
            data.measured_on_the_shelf(),
        )

    def export(self, order: Order) -> Generator[Event, None, Exported]:
        return self._work(
            self.chance.randint(1, 40),
            lambda step: StageProgress("export", step, 40),
            Exported(order.out, order.format, 5, 9),
        )

    def shown(self, *_: object) -> Shown:
        """A sweep that can be started, one that is over, or a plan with a mistake."""
        kind = self.chance.randint(0, 3)
        if kind == 0:
            raise usage("There is no target 'rasberry'.", "Did you mean raspberry-pi-5?")
        plan: Any = SimpleNamespace(name="nightly")
        cells = data.SWEEP_JOB.cells
        order = SweepOrder(plan, Matrix(cells), Path("sweep-nightly"), Known(data.services, ()))
        return replace(data.SWEEP_SHOWN, order=order if kind > 1 else None)

    def sweep(self, order: SweepOrder) -> Generator[Any, None, None]:
        cells = [one.cell for one in order.matrix.planned]

        def event(step: int) -> Any:
            cell = cells[step % len(cells)]
            row = not_done(cell, "failed", "It broke.")
            kinds = (CellStarted(cell, 1, 5, 60.0), Told("going on"), CellFinished(cell, row))
            return kinds[step % len(kinds)]

        return self._work(self.chance.randint(1, 40), event, None)

    def find(self, _: object, ask: Ask) -> Found:
        kind = self.chance.randint(0, 9)
        if kind == 0:
            raise usage("None of the runtimes keeps its cache as f32.", "Choose another type.")
        if kind == 1:
            return replace(data.NOTHING, ask=ask, cache_types=("f16",))
        rows = data.CANDIDATES[: self.chance.choice((0, 1, 3, len(data.CANDIDATES)))]
        return replace(data.FOUND, ask=ask, candidates=rows, cache_types=("f16", "q8_0", "u8"))

    def packages(self, _: Path) -> tuple[Package, ...]:
        return data.SHELF[: self.chance.randint(0, len(data.SHELF))]

    def problems(self, *_: object) -> list[Any]:
        return data.PROBLEMS if self.chance.random() < 0.2 else []

    def hub_file(self, *_: object) -> Generator[object, None, HubFile]:
        return self._work(
            self.chance.randint(1, 40),
            lambda step: Progress(step, 40, "B"),
            HubFile(Path("/cache/m.gguf"), "a/b", "c" * 40, None, None),
        )

    def adapter_plan(self, *_: object) -> Any:
        if self.chance.random() < 0.4:
            raise usage("The adapter is of another model.", "Name another with --adapter.")
        return SimpleNamespace(name="base-style-adapter", out=Path("/packages/base-style-adapter"))


TAKEN = replace(data.ASK, hub_file=FileOfHub("a/b", "m.gguf"))
PLACES: tuple[Callable[[], Screen[Any]], ...] = (
    lambda: NeedScreen(data.ASK),
    lambda: NeedScreen(TAKEN),
    lambda: OptionsScreen(data.ASK),
    lambda: ResultScreen(data.package()),
    lambda: PlanScreen(data.FOUND, data.CHOSEN),
)
"""Where the walk is put down now and then, so that it reaches also what lies behind many keys."""
LEAP = 60
"""Steps from one such place to the next."""
TEXTS = ("a/b", "m.gguf", "/nowhere", "4", "IFEval=60", "any", "text, image", "½", "", "'half")
"""What is pasted into a field, so that also what takes more than a letter is asked for."""


async def wander(pilot: Pilot[Any], chance: random.Random, steps: int, trail: list[str]) -> None:
    """So many random steps; `trail` tells the last of them where one went wrong."""
    app = pilot.app
    since = 0
    for _ in range(steps):
        kind, since = chance.random(), since + 1
        # A person comes to no other step past a dialog.
        if since >= LEAP and not app.screen.is_modal:
            since = 0
            place = chance.choice(PLACES)()
            trail.append(f"{type(app.screen).__name__}: put down on {type(place).__name__}")
            app.push_screen(place)
            await pilot.pause()
        elif kind < 0.04 and isinstance(app.focused, Input):
            text = chance.choice(TEXTS)
            trail.append(f"{type(app.screen).__name__}: {text!r} into {app.focused.id}")
            app.focused.value = text
        elif kind < 0.86:
            what = chance.choice(KEYS)
            trail.append(f"{type(app.screen).__name__}: {what}")
            await pilot.press(what)
        elif kind < 0.94:
            point = (chance.randrange(app.size.width), chance.randrange(app.size.height))
            trail.append(f"{type(app.screen).__name__}: click at {point}")
            await pilot.click(offset=point)
        elif kind < 0.97:
            size = (chance.randint(40, 210), chance.randint(12, 55))
            trail.append(f"{type(app.screen).__name__}: window of {size}")
            await pilot.resize_terminal(*size)
        else:
            trail.append(f"{type(app.screen).__name__}: wait")
            await pilot.pause(0.02)
        del trail[:-30]


@pytest.mark.parametrize(
    ("size", "share"),
    [(SIZES[0], 1 / 8), *(thorough(size, 1 / len(SIZES)) for size in SIZES)],
    ids=["short", *(f"{width}x{height}" for width, height in SIZES)],
)
def test_a_monkey_brings_nothing_down_and_leaves_nothing_running(
    size: tuple[int, int], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("QWEN_PACK_MONKEY_SEED", "7")) + size[0]
    chance = random.Random(seed)
    worlds, trail = Worlds(chance), list[str]()
    # What only a desktop or a disk would notice.
    monkeypatch.setattr("tui.screens.package_base.open_folder", lambda path: True)
    monkeypatch.setattr("tui.screens.export.open_folder", lambda path: True)
    monkeypatch.setattr("packager.package.shelf.delete", worlds.deleted.append)
    monkeypatch.setattr("tui.sweeps.run", worlds.sweep)
    monkeypatch.setattr("packager.pipeline.bench.save", lambda *_: None)
    monkeypatch.setattr("packager.package.verify.verify", lambda path, on_bytes=None: [])
    given = data.services(
        known_machine=lambda: data.HERE if chance.random() < 0.5 else None,
        measure_machine=worlds.measure,
        build=worlds.build,
        bench=worlds.bench,
        bench_on=worlds.bench_on,
        export=worlds.export,
        hub_file=worlds.hub_file,
        adapter_plan=worlds.adapter_plan,
        expected=lambda plan: {},
        find=worlds.find,
        packages=worlds.packages,
        problems=worlds.problems,
        sweep_shown=worlds.shown,
        folder=tmp_path,
        clock=time.monotonic,
    )

    async def walk(pilot: Pilot[Any]) -> None:
        monkeypatch.setattr(pilot.app, "save_picture", lambda: None)
        # The palette finds Quit as well; the walk goes on.
        monkeypatch.setattr(pilot.app, "exit", lambda *_: None)
        await wander(pilot, chance, int(STEPS * share), trail)

    try:
        drive(walk, given, size=size)
    except BaseException as error:
        error.add_note(f"seed {seed}; the way there: " + ", ".join(trail))
        raise
    assert worlds.open == set(), "work that outlived the interface"
    # Every deletion was answered with yes; nothing else touched a package.
    assert {path.name for path in worlds.deleted} <= {one.manifest.name for one in data.SHELF}
