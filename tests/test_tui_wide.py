"""What a window with room shows beside a screen's own part, and what a small one does not pay for;
the line for pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from tests.support import tui_data as data
from tests.support.tui_helpers import drive, parsed, screen, settled, text_of, until
from tui.ask import Ask, build_command
from tui.core import Found
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.export import ExportScreen
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.screens.shelf import ShelfScreen
from tui.widgets.slider import Slider

pytestmark = pytest.mark.slow


def asking(asked: list[Ask]) -> Any:
    """A search that writes down what it was asked."""

    def find(_: Any, ask: Ask) -> Found:
        asked.append(ask)
        return replace(data.FOUND, ask=ask)

    return find


def test_what_fits_stands_beside_the_need_and_follows_it() -> None:
    asked: list[Ask] = []

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        await until(pilot, lambda: "5 of 7 variants fit" in text_of(pilot), "what fits")
        for word in ("★ Qwen3-0.6B", "✓ Qwen3-1.7B", "✗ Qwen3-32B", "memory, decode", "109 tok/s"):
            assert word in text_of(pilot), word
        await pilot.press("tab", "l", "l")
        await until(pilot, lambda: asked[-1] == need.ask, "the newest question")
        assert asked[-1].wish.context == 16384 and len(asked) == 2, "not every step is asked"

    drive(walk, data.services(find=asking(asked)), (120, 36))


def test_a_small_window_asks_nothing_that_it_cannot_show() -> None:
    asked: list[Ask] = []

    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("j", "enter")
        await screen(pilot, NeedScreen)
        await pilot.press("j")
        await pilot.pause(0.4)
        await settled(pilot)
        assert not asked
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: asked, "what fits, now that there is room")
        await until(pilot, lambda: "What fits: assistant" in text_of(pilot), "it is shown")

    drive(walk, data.services(find=asking(asked)), (80, 24))


def test_a_wide_window_shows_what_fits_on_a_device_and_an_error_of_it_in_place() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await until(pilot, lambda: "'hidden' must be a whole" in text_of(pilot), "the sentence")
        await pilot.press("slash", *"zzz")
        await until(pilot, lambda: "'hidden' must" not in text_of(pilot), "nothing is asked")

    drive(walk, data.services(find=data.refuse), (200, 50))


def test_a_plan_shows_what_a_longer_context_costs_and_what_its_build_takes() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        await settled(pilot)
        rows = text_of(pilot).splitlines()
        (own,) = [row for row in rows if "4,096  ✓" in row]
        (beyond,) = [row for row in rows if "65,536  ✗" in row]
        assert "●" in own and "context" in beyond
        assert "about 3 min, and the download" in text_of(pilot)
        assert "2.90 GB, 11.0 GB are free here" in text_of(pilot)

    drive(walk, data.services(), (120, 36))


def test_the_plot_beside_the_candidates_follows_the_cursor() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(CandidatesScreen(data.ASK))
        table = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: table.found, "the candidates")
        plot = table.query_one("#candidates-plot")

        def column() -> int:
            rows = [row for row in text_of(pilot).splitlines() if "◆" in row]
            return rows[0].index("◆") if rows else 0

        await until(pilot, column, "the mark of the first row")
        before = column()
        assert before > plot.region.x and "published score" in text_of(pilot)
        await pilot.press("j", "j")
        await until(pilot, lambda: column() > before, "the mark of a larger one")
        await pilot.resize_terminal(120, 36)
        await settled(pilot)
        assert not column()

    drive(walk, data.services(), (200, 50))


def test_shelf_and_export_put_what_is_known_beside_each_other_where_there_is_room() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ShelfScreen())
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf._packages, "the packages")
        await settled(pilot)
        assert shelf.query_one("#shelf-detail").region.x > shelf.query_one("#packages").region.x
        assert "budgets" in text_of(pilot).splitlines()[2]
        pilot.app.push_screen(ExportScreen(data.package()))
        await screen(pilot, ExportScreen)
        await settled(pilot)
        assert "What is in the package" in text_of(pilot) and "openvino_model.xml" in text_of(pilot)
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert "What is in the package" not in text_of(pilot)

    drive(walk, data.services(), (200, 50))


def test_pictures_have_a_limit_where_they_come_in_and_the_prompt_holds_one() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        await settled(pilot)
        line = need.query_one("#limit-max_image_tokens", Slider)
        assert not line.display and "Picture" not in text_of(pilot)
        while need.base.use_case != "vision":
            await pilot.press("j")
            await pilot.pause()
        assert line.display
        assert "Pictures come in, each up to 1,024" in str(
            need.query_one("#why-text", Static).render()
        )
        line.focus()
        await pilot.press(*"256", "enter")
        await settled(pilot)
        assert need.ask.wish.max_image_tokens == 256 and need.base.prompt == 768
        command = build_command(need.ask, data.CHOSEN)
        assert parsed(command)["max_image_tokens"] == 256
        need.query_one("#use-cases").focus()
        await pilot.press("g")
        await settled(pilot)
        assert need.base.use_case == "chat" and need.ask.wish.max_image_tokens is None
        need.ask.workload()

    drive(walk, data.services(), (80, 24))
