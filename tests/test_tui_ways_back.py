"""What was typed and chosen survives the way back, and every step can be returned to."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, text_of, until
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.export import ExportScreen
from tui.screens.need import NeedScreen
from tui.widgets.lists import VimList
from tui.widgets.slider import Slider

pytestmark = pytest.mark.slow


def test_what_was_tried_in_the_table_and_its_filter_survive_the_way_back_and_forth() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        await pilot.press("n")
        table = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: table.found, "the candidates")
        await pilot.press("w", "l", "slash", *"gguf", "enter", "o")
        await until(pilot, lambda: table.ask.wish.context == 8192, "the question")
        # The first Esc takes the filter away, the next one leads back.
        kept = table.view
        await pilot.press("escape")
        assert pilot.app.screen is table and table.view.words == ""
        await pilot.press("slash", *"gguf", "enter", "escape", "escape")
        assert pilot.app.screen is need
        assert (
            need.ask.wish.context == 8192 and need.query_one("#limit-context", Slider).value == 8192
        )
        assert need.query_one("#limit-context", Slider).changed
        await pilot.press("n")
        second = await screen(pilot, CandidatesScreen)
        assert second.view.sort == kept.sort == "variant" and second.ask.wish.context == 8192

    drive(walk, data.services())


def test_what_is_wished_survives_the_way_back_and_is_asked_of_another_device() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        devices = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: devices._targets, "the devices")
        await pilot.press("j", "j", "enter")
        need = await screen(pilot, NeedScreen)
        first = need.ask.target.name
        await pilot.press("j", "j")
        need.query_one("#limit-min_decode_tps", Slider).focus()
        await pilot.press(*"12", "enter")
        need.query_one("#weights", Slider).focus()
        # Half a path and half an adapter are no reason to forget them.
        await pilot.press("end", *"/no", "tab", *"'half", "tab", "l", "escape")
        assert pilot.app.screen is devices
        await pilot.press("k", "enter")
        other = await screen(pilot, NeedScreen)
        assert other.ask.target.name != first and other.ask.wish.use_case == "code"
        assert other.ask.wish.min_decode_tps == 12
        assert other.query_one("#weights-folder", Input).value == "/no"
        assert other.query_one("#lora", Input).value == "'half"
        assert other.query_one("#thinking", Slider).value == "on"
        # What the use case of the other device has no line for waits there, and is not asked.
        other.query_one("#use-cases").focus()
        await pilot.press("G")
        assert other.ask.wish.min_decode_tps is None
        await pilot.press("escape", "enter")
        last = await screen(pilot, NeedScreen)
        assert last.ask.wish.use_case == "rerank" and last.ask.target == other.ask.target

    drive(walk, data.services(), size=(120, 44))


def test_the_form_of_an_export_survives_the_way_back_and_forth() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        for _ in range(2):
            pilot.app.push_screen(
                ExportScreen(data.package(license="qwen-research", source="dummy"))
            )
            export = await screen(pilot, ExportScreen)
            await pilot.pause()
            if _:
                break
            await pilot.press("j", "j", "tab", "end", *".mine")
            export.query_one("#export-licence").focus()
            await pilot.press("space")
            await pilot.press("escape")
        assert (
            export.order.format == "zip"
            and str(export.order.out).endswith(".zip.mine")
            and export.order.accepted == "qwen-research"
        )

    drive(walk, data.services())


def test_a_click_highlights_a_row_opens_the_highlighted_one_and_leads_back_to_a_step() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.click("#devices", offset=(4, 3))
        assert pilot.app.screen is device and device.query_one(VimList).highlighted == 2
        await pilot.click("#devices", offset=(4, 3))
        await screen(pilot, NeedScreen)
        await pilot.press("n")
        await screen(pilot, CandidatesScreen)
        await pilot.click("Steps", offset=(16, 0))
        await until(pilot, lambda: pilot.app.screen is device, "the first step")

    drive(walk, data.services())


def test_the_palette_leads_back_to_every_step_that_was_done() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("enter")
        need = await screen(pilot, NeedScreen)
        await pilot.press("n")
        await screen(pilot, CandidatesScreen)
        await pilot.press("ctrl+p", *"step 2")
        await until(pilot, lambda: "Back to this step" in text_of(pilot), "the step")
        assert "Step 3" not in text_of(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is need, "the second step")

    drive(walk, data.services())
