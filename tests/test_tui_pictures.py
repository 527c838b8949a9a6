"""How every screen looks, in every state, at three sizes of the terminal: SVG pictures of prepared
values.

Renew them after a change that is meant: pytest tests/test_tui_pictures.py --snapshot-update
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from packager.events import (
    StageFailed,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.pipeline.run import STAGES
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import settled, text_of, until
from tui.app import PackApp
from tui.ask import BuildOptions
from tui.progress import Progress, advance, before, stopped
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.compare import CompareScreen
from tui.screens.device import DeviceScreen
from tui.screens.export import ExportScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.need import NeedScreen
from tui.screens.options import OptionsScreen
from tui.screens.pareto import ParetoScreen, of_candidates, of_packages
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen
from tui.screens.sweep import SweepScreen
from tui.screens.sweeps import SweepsScreen

pytestmark = pytest.mark.slow

SMALL, WIDER = (80, 24), ((120, 36), (200, 50))
"""Every state is taken small, where room is scarce; one state of every screen in the wider sizes as
well."""


@dataclass(frozen=True)
class Picture:
    """A screen (None: the first), the keys that lead to the state, and what must be seen before it
    is taken."""

    screen: Callable[[], Screen[Any]] | None
    keys: tuple[str, ...] = ()
    ready: Callable[[Pilot[Any]], Any] = lambda pilot: True
    services: dict[str, Any] = field(default_factory=dict)
    theme: str = "textual-dark"


def building(*events: Any) -> Progress:
    progress = before(STAGES, {"convert": 24.0, "measure": 84.0, "quality": 61.0, "package": 0.0})
    for event in (
        StageStarted("fetch", STAGES["fetch"], 1, len(STAGES)),
        StageFinished("fetch", 0.4, True, "1.50 GB"),
        *events,
    ):
        progress = advance(progress, event, 990.0)
    return progress


CONVERTING = (
    StageStarted("convert", STAGES["convert"], 2, len(STAGES)),
    StageNote("convert", "loading the exporter"),
    *(StageMemory("convert", 10**8 * (step % 13 + step // 4)) for step in range(60)),
    StageProgress("convert", 620_000_000, 1_500_000_000),
)
FAILURE = StageFailed(
    "convert",
    "The process was killed from outside after using 4.1 GB.",
    "Close other programs.",
    7,
)


def shown(build: Progress) -> Picture:
    return Picture(lambda: BuildScreen(data.PLAN, "qwen-pack build --target laptop-cpu", build))


def is_on(kind: type[Screen[Any]], attribute: str) -> Callable[[Pilot[Any]], Any]:
    return lambda pilot: isinstance(pilot.app.screen, kind) and getattr(pilot.app.screen, attribute)


LISTED = is_on(DeviceScreen, "_targets")
ANSWERED = is_on(CandidatesScreen, "found")
CHECKED = is_on(PlanScreen, "checked")
EXPORTED = is_on(ExportScreen, "exported")
FILLED = is_on(ShelfScreen, "_packages")


def writing(pilot: Pilot[Any]) -> Any:
    return isinstance(pilot.app.screen, ExportScreen) and "240 MB" in text_of(pilot)


def problem(pilot: Pilot[Any]) -> Any:
    return list(pilot.app.screen.query(".problem.-shown"))


def on_top(name: str) -> Callable[[Pilot[Any]], Any]:
    return lambda pilot: type(pilot.app.screen).__name__ == name


PICTURES = {
    "device": Picture(None, ("j", "j"), LISTED),
    "device_here": Picture(None, (), LISTED),
    "device_unknown_here": Picture(None, (), LISTED, {"known_machine": lambda: None}),
    "device_error": Picture(None, (), problem, {"targets": data.refuse}),
    "device_filter_finds_nothing": Picture(None, ("slash", *"qqq"), LISTED),
    "need": Picture(lambda: NeedScreen(data.ASK)),
    "need_limit": Picture(lambda: NeedScreen(data.ASK), ("tab", "tab", "tab", "l", "l", *"12")),
    "need_languages": Picture(
        lambda: NeedScreen(data.ASK), (*["tab"] * 8, *"German, sw, port", "right")
    ),
    "need_embed": Picture(lambda: NeedScreen(data.ASK), ("G", "k")),
    "need_own_model": Picture(
        lambda: NeedScreen(data.ASK), (*["tab"] * 10, *"Qwen/style:0.5", "tab", *"lll", "tab")
    ),
    "need_error": Picture(
        lambda: NeedScreen(data.ASK), (*["tab"] * 9, "end", *"/nowhere", "enter"), problem
    ),
    "candidates": Picture(lambda: CandidatesScreen(data.ASK), ("j",), ANSWERED),
    "candidates_rejected": Picture(
        lambda: CandidatesScreen(data.ASK), ("space", "G", "k"), ANSWERED
    ),
    "candidates_nothing_fits": Picture(
        lambda: CandidatesScreen(data.ASK), (), ANSWERED, {"find": lambda *_: data.NOTHING}
    ),
    "candidates_filtered": Picture(
        lambda: CandidatesScreen(data.ASK), ("slash", *"gguf 4b"), ANSWERED
    ),
    "candidates_what_if": Picture(lambda: CandidatesScreen(data.ASK), ("w", "l"), ANSWERED),
    "candidates_error": Picture(
        lambda: CandidatesScreen(data.ASK), (), problem, {"find": data.refuse}
    ),
    "candidates_embed": Picture(
        lambda: CandidatesScreen(data.EMBED), (), ANSWERED, {"find": lambda *_: data.FOUND_EMBED}
    ),
    "plan_embed": Picture(
        lambda: PlanScreen(data.FOUND_EMBED, data.EMBEDDERS[0]),
        (),
        CHECKED,
        {"plan": lambda *_: data.PLAN_EMBED},
    ),
    "plan": Picture(lambda: PlanScreen(data.FOUND, data.CHOSEN), (), CHECKED),
    "plan_split": Picture(lambda: PlanScreen(data.WITH_GPU, data.PARTLY), (), CHECKED),
    "plan_replaces": Picture(
        lambda: PlanScreen(data.FOUND, data.CHOSEN),
        (),
        CHECKED,
        {"replaced": lambda plan: data.package()},
    ),
    "plan_problems": Picture(
        lambda: PlanScreen(data.FOUND, data.CHOSEN),
        (),
        CHECKED,
        {"problems": lambda *_: data.PROBLEMS},
    ),
    "build": shown(building(*CONVERTING)),
    "build_failed": shown(building(*CONVERTING, FAILURE)),
    "build_cancelled": shown(stopped(building(*CONVERTING), None, 1000.0)),
    "build_quit": replace(shown(building(*CONVERTING)), keys=("q",), ready=on_top("ConfirmScreen")),
    "result": Picture(lambda: ResultScreen(data.package())),
    "result_all_evidence": Picture(lambda: ResultScreen(data.tried())),
    "result_embed": Picture(lambda: ResultScreen(data.embedder())),
    "result_own_model": Picture(lambda: ResultScreen(data.own_model())),
    "measure_elsewhere": Picture(
        lambda: ResultScreen(data.package()), ("M", *"phone", "enter"), problem
    ),
    "result_missed": Picture(lambda: ResultScreen(data.SHELF[2])),
    "export": Picture(lambda: ExportScreen(data.package()), ("j", "tab", "tab", "l", "l")),
    "export_agreement": Picture(
        lambda: ExportScreen(data.package(license="qwen-research", source="dummy")), ("j", "j", "j")
    ),
    "export_running": Picture(
        lambda: ExportScreen(data.package()), ("w",), writing, {"export": data.exporting}
    ),
    "export_done": Picture(
        lambda: ExportScreen(data.package()), ("w",), EXPORTED, {"export": data.exported}
    ),
    "export_error": Picture(
        lambda: ExportScreen(data.package()), ("w",), problem, {"export": data.refuse}
    ),
    "shelf": Picture(ShelfScreen, ("space", "space"), FILLED),
    "shelf_empty": Picture(
        ShelfScreen,
        (),
        lambda pilot: pilot.app.screen.query_one("#shelf-empty").display,
        {"packages": lambda _: ()},
    ),
    "shelf_delete": Picture(ShelfScreen, ("d",), FILLED),
    "compare": Picture(lambda: CompareScreen(data.SHELF)),
    "pareto_packages": Picture(lambda: ParetoScreen(of_packages(data.SHELF))),
    "pareto_candidates": Picture(lambda: ParetoScreen(of_candidates(data.FOUND))),
    "measured_again": Picture(lambda: FiguresScreen(data.package(), data.measured_on_the_shelf())),
    "sweeps": Picture(SweepsScreen, ("j",), is_on(SweepsScreen, "_shown")),
    "sweep": Picture(lambda: SweepScreen(data.SWEEP_JOB, data.SWEEP_HALF)),
    "need_vision": Picture(lambda: NeedScreen(data.ASK), (*"jjjjjjjjj", "tab", "tab", "tab")),
    "options": Picture(
        lambda: OptionsScreen(
            replace(
                data.ASK.wishing(parallel=4, licenses=("apache-2.0",)),
                options=BuildOptions(tensor_types=("attn_v=Q8_0",), offline=True),
            )
        ),
        ("tab", "tab"),
    ),
    "options_error": Picture(
        lambda: OptionsScreen(data.ASK), (*"four", "enter"), problem, theme="textual-light"
    ),
    "adapter": Picture(
        lambda: ResultScreen(data.package()), ("a", "tab", *"/nowhere", "enter"), problem
    ),
    "settings": Picture(lambda: CandidatesScreen(data.ASK), ("f4", "j", "enter"), ANSWERED),
    "help": Picture(lambda: CandidatesScreen(data.ASK), ("question_mark",), ANSWERED),
    "jump": Picture(lambda: CandidatesScreen(data.ASK), ("ctrl+o",), ANSWERED),
}
THEMES = ["textual-light", "ansi-dark", "ansi-light"]


@pytest.fixture(autouse=True)
def somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The help screen names a file in the home folder."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def take(picture: Picture, snap_compare: Any, size: tuple[int, int]) -> bool:
    app = PackApp(data.services(**picture.services))

    async def come_there(pilot: Pilot[Any]) -> None:
        app.theme = picture.theme
        if picture.screen is not None:
            await app.push_screen(picture.screen())
        first = (
            (lambda: LISTED(pilot) or problem(pilot))
            if picture.screen is None
            else (lambda: ready_for_keys(picture, pilot))
        )
        await until(pilot, first, "the screen")
        await settled(pilot, workers=picture.ready is not writing)
        await pilot.press(*picture.keys)
        await until(
            pilot,
            lambda: (picture.keys and picture.ready not in AFTER_KEYS) or picture.ready(pilot),
            "the state",
        )
        for field_ in app.screen.query(Input):
            field_.cursor_blink = False
        await settled(pilot, workers=picture.ready is not writing)

    return bool(snap_compare(app, terminal_size=size, run_before=come_there))


AFTER_KEYS = (writing, EXPORTED)
"""States that a key starts and a worker reaches."""


def ready_for_keys(picture: Picture, pilot: Pilot[Any]) -> Any:
    """A screen that asks something in the background gets its keys once it has the answer."""
    return picture.ready(pilot) if picture.ready in (ANSWERED, CHECKED, FILLED) else True


EVERY_SCREEN = (
    "device",
    "need",
    "candidates",
    "plan",
    "build",
    "result",
    "export",
    "shelf",
    "compare",
    "pareto_candidates",
    "sweeps",
    "sweep",
    "options",
)
ONLY_LARGE = ("compare", "pareto_candidates", "sweeps", "sweep", "shelf", "options", "export")
"""Screens that show no more in a window of middle size than in one of the others."""
REPRESENTATIVE = (*EVERY_SCREEN, "device_error", "need_vision", "build_failed", "settings", "help")
"""Of every screen one state; and of an error, a failure, a form at its longest, and the dialogs."""
SIZED = [
    *((name, SMALL) for name in PICTURES),
    *((name, size) for name in EVERY_SCREEN for size in WIDER[1 if name in ONLY_LARGE else 0 :]),
]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size) if size == SMALL and name in REPRESENTATIVE else thorough(name, size)
        for name, size in SIZED
    ],
    ids=[f"{name}-{size[0]}x{size[1]}" for name, size in SIZED],
)
def test_every_screen_looks_as_it_did(name: str, size: tuple[int, int], snap_compare: Any) -> None:
    assert take(PICTURES[name], snap_compare, size)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["candidates", thorough("build_failed")])
def test_the_colours_of_every_kind_of_theme_are_readable(
    name: str, theme: str, snap_compare: Any
) -> None:
    assert take(replace(PICTURES[name], theme=theme), snap_compare, (100, 30))


def test_pictures_hold_nothing_of_the_machine_that_took_them() -> None:
    for picture in (Path(__file__).parent / "__snapshots__" / "test_tui_pictures").glob("*.svg"):
        assert str(Path.cwd()) not in picture.read_text()
