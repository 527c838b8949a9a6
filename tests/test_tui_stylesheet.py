"""Style sheets of the interface are parsed once for all screens and applications of a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.color import Color
from textual.css.stylesheet import Stylesheet, StylesheetParseError
from textual.pilot import Pilot

from tests.support.tui_helpers import drive, real_services, screen
from tui import stylesheet
from tui.screens.device import DeviceScreen
from tui.screens.help import HelpScreen
from tui.stylesheet import ParsedOnce

pytestmark = pytest.mark.slow


def test_a_screen_that_was_open_before_has_nothing_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    parse = Stylesheet._parse_rules

    def counted(self: Stylesheet, css: str, *more: Any) -> Any:
        parsed.append((css, *more))
        return parse(self, css, *more)

    monkeypatch.setattr(stylesheet, "_PARSED", {})
    monkeypatch.setattr(Stylesheet, "_parse_rules", counted)

    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        await pilot.press("f1")
        await screen(pilot, HelpScreen)

    drive(walk, real_services(tmp_path))
    first = len(parsed)
    assert first > 20 and first == len(set(parsed))
    drive(walk, real_services(tmp_path))
    assert len(parsed) == first


def colour(sheet: ParsedOnce) -> Color:
    return sheet.rules[0].styles.color


def test_each_theme_has_rules_of_its_own_and_a_mistake_leaves_them_as_they_were() -> None:
    sheet = ParsedOnce(variables={"ink": "red"})
    sheet.add_source("Label { color: $ink; }")
    assert colour(sheet) == Color.parse("red")
    for ink in ("blue", "red"):
        sheet.set_variables({"ink": ink})
        sheet.reparse()
        assert colour(sheet) == Color.parse(ink)
    sheet.add_source("Label { color: no-such-colour; }")
    for _ in range(2):
        with pytest.raises(StylesheetParseError):
            sheet.reparse()
    assert len(sheet._rules) == 1
