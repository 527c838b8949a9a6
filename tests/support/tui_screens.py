"""Every screen, opened with prepared values."""

from __future__ import annotations

from typing import Any

from textual.pilot import Pilot

from tests.support import tui_data as data
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.compare import CompareScreen
from tui.screens.device import DeviceScreen
from tui.screens.export import ExportScreen
from tui.screens.need import NeedScreen
from tui.screens.pareto import ParetoScreen, of_packages
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen

SCREENS = {
    "device": DeviceScreen,
    "need": lambda: NeedScreen(data.ASK),
    "candidates": lambda: CandidatesScreen(data.ASK),
    "plan": lambda: PlanScreen(data.FOUND, data.CHOSEN),
    "build": lambda: BuildScreen(data.PLAN, "", data_progress()),
    "result": lambda: ResultScreen(data.package()),
    "export": lambda: ExportScreen(data.package()),
    "shelf": ShelfScreen,
    "compare": lambda: CompareScreen(data.SHELF),
    "pareto": lambda: ParetoScreen(of_packages(data.SHELF)),
}


def data_progress() -> Any:
    from packager.pipeline.run import STAGES
    from tui.progress import before

    return before(STAGES)


async def opened(pilot: Pilot[Any], name: str) -> Any:
    await pilot.app.push_screen(SCREENS[name]())
    await pilot.pause()
    return pilot.app.screen
