"""Names from outside on the screens: shown as text, whatever they hold; nothing of them reaches the
terminal as a command, and none is taken for markup."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.segment import Segment
from textual.pilot import Pilot
from textual.screen import Screen

from packager.errors import bad_input
from packager.events import StageFailed, StageNote, StageStarted
from packager.package.manifest import FileEntry
from packager.package.package import Package
from packager.pipeline.run import STAGES
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import text_of, until
from tui.app import PackApp
from tui.changed_cells import _cells
from tui.progress import advance, before
from tui.screens.build import BuildScreen
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.export import ExportScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.pareto import ParetoScreen, of_packages
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen

SAID = "[/x]a[@click=app.quit]b[/]"
"""What a manifest can say: control characters are refused where it is read."""
EVIL = "[/x]a\x1b]0;owned\x07\x9b2J\u202e[@click=app.quit]b[/]\udcff"
"""What the name of a folder or the end of an error can be."""


def evil(number: int = 0) -> Package:
    """A package whose manifest and place have such names wherever a text is free."""
    named = data.changed(
        data.package(),
        name=f"{number}{SAID}",
        target=SAID,
        variant={"repo_id": f"local/{SAID}", "license": SAID},
        recipe={"id": f"openvino:{SAID}", "kv": SAID},
        runtime={"name": SAID, "version": SAID},
    )
    files = (*named.manifest.files, FileEntry(f"model/{SAID}", 5, "0" * 64))
    manifest = replace(named.manifest, files=files)
    return replace(named, manifest=manifest, path=data.HOME / f"{number}{EVIL}")


def building() -> BuildScreen:
    progress = before(STAGES)
    for event in (
        StageStarted("convert", STAGES["convert"], 2, len(STAGES)),
        StageNote("convert", EVIL),
        StageFailed("convert", EVIL, EVIL, 7),
    ):
        progress = advance(progress, event, 990.0)
    return BuildScreen(replace(data.PLAN, out=data.HOME / EVIL), f"qwen-pack {EVIL}", progress)


def refuse(*_: object) -> Any:
    raise bad_input(EVIL, EVIL)


SCREENS: dict[str, tuple[Callable[[], Screen[Any]], tuple[str, ...]]] = {
    "shelf": (ShelfScreen, ("space", "space", "v")),
    "delete": (ShelfScreen, ("d",)),
    "result": (lambda: ResultScreen(evil()), ("v",)),
    "export": (lambda: ExportScreen(evil()), ("w",)),
    "compare": (lambda: CompareScreen((evil(1), evil(2))), ()),
    "pareto": (lambda: ParetoScreen(of_packages((evil(1), evil(2)))), ()),
    "figures": (lambda: FiguresScreen(evil(), data.measured_on_the_shelf()), ()),
    "build": (building, ()),
    "plan": (lambda: PlanScreen(data.FOUND, data.CHOSEN), ()),
    "confirm": (lambda: ConfirmScreen(EVIL, EVIL, "Keep", "Delete"), ()),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("shelf", "result", "plan", "confirm") else thorough(name)
        for name in SCREENS
    ],
)
def test_every_screen_shows_a_hostile_name_as_text_and_goes_on(name: str) -> None:
    app = PackApp(
        data.services(
            packages=lambda _: (evil(1), evil(2)),
            replaced=lambda plan: evil(),
            problems=lambda *_: [bad_input(EVIL, EVIL)],
            plan=lambda *_: replace(data.PLAN, out=data.HOME / EVIL),
            export=refuse,
        )
    )
    make, keys = SCREENS[name]

    async def walk(pilot: Pilot[Any]) -> None:
        await app.push_screen(make())
        await until(pilot, lambda: "[/x]a" in text_of(pilot), "the name")
        await pilot.press(*keys)
        app.notify(EVIL, title=EVIL)
        await pilot.pause(0.1)
        assert app.is_running
        assert "[/x]a" in text_of(pilot)
        for line in app._terminal._lines.values():
            assert all(
                character.isprintable() for text, _ in line for character in text if text != "\0"
            )

    async def run() -> None:
        async with app.run_test(size=(140, 44)) as pilot:
            await walk(pilot)

    asyncio.run(run())


def test_what_acts_on_a_terminal_is_no_cell_and_letters_stay_as_they_are() -> None:
    console = PackApp(data.services()).console
    for text, shown in (
        (EVIL, "[/x]a]0;owned2J[@click=app.quit]b[/]\ufffd"),
        ("Modell für Zuhause 模型 e\u0301 ✓ ■", "Modell für Zuhause 模型 e\u0301 ✓ ■"),
        ("a\rb\tc\x00d\x7f", "abcd"),
        ("\u2066x\u2069\u200d", "x"),
    ):
        assert "".join(cell for cell, _ in _cells(Segment(text), console)) == shown
