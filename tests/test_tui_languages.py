"""Languages: typed, completed, refused on the way on, and taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, until
from tests.support.tui_screens import opened
from tui.screens.candidates import CandidatesScreen
from tui.screens.need import NeedScreen
from tui.widgets.problem import Problem

pytestmark = pytest.mark.slow


def test_languages_are_typed_completed_and_end_in_the_command() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "need")
        shown.query_one("#languages", Input).focus()
        await pilot.press(*"de, swah")
        # The completion comes from a task of its own.
        await until(pilot, lambda: shown.query_one("#languages", Input)._suggestion, "a completion")
        await pilot.press("right", "enter")
        table = await screen(pilot, CandidatesScreen)
        assert table.ask.wish.languages == ("de", "sw")
        assert table.ask.wish.flags() == ["--language", "de,sw"]
        assert table.ask.workload().languages == ("de", "sw")
        await pilot.press("escape")
        field = shown.query_one("#languages", Input)
        assert field.value == "de, swahili"
        await pilot.press("escape", "r")
        assert field.value == "" and shown.ask.wish.languages is None

    drive(walk, data.services())


def test_a_language_that_nobody_knows_is_said_on_the_way_on_and_not_while_it_is_typed() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "need")
        shown.query_one("#languages", Input).focus()
        await pilot.press(*"klingon")
        problem = shown.query_one("#need-problem", Problem)
        assert problem.text == ""
        await pilot.press("enter")
        await until(pilot, lambda: problem.text, "the problem")
        assert "There is no language 'klingon'" in problem.text
        assert pilot.app.screen is shown

    drive(walk, data.services())


def test_languages_of_the_device_can_be_taken_away_and_the_command_says_so() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        target = replace(
            data.ASK.target, workload=replace(data.ASK.target.workload, languages=("de",))
        )
        pilot.app.push_screen(NeedScreen(replace(data.ASK, target=target)))
        shown = await screen(pilot, NeedScreen)
        field = shown.query_one("#languages", Input)
        assert field.value == "German" and shown.ask.wish.flags() == []
        field.focus()
        await pilot.press("end", *["backspace"] * 6)
        await until(pilot, lambda: shown.ask.wish.languages == (), "no languages")
        assert shown.ask.wish.flags() == ["--language", "en"]

    drive(walk, data.services())
