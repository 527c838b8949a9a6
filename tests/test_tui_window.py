"""The window and the settings: widths, the shelf at another width, themes, mistakes in the file,
pictures of the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, text_of, until
from tui.screens.candidates import CandidatesScreen
from tui.screens.compare import CompareScreen
from tui.screens.device import DeviceScreen
from tui.screens.shelf import ShelfScreen
from tui.settings import Settings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "sizes", [[(60, 20)], [(120, 36), (80, 24), (60, 20), (120, 36)]], ids=["started", "narrowed"]
)
def test_help_and_quit_stay_in_the_footer_at_every_width(sizes: list[tuple[int, int]]) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(CandidatesScreen(data.ASK))
        shown = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: shown.found, "the candidates")
        for size in sizes:
            await pilot.resize_terminal(*size)
            await until(
                pilot, lambda: "? Help" in text_of(pilot).splitlines()[-1], f"Help at {size}"
            )
            last = text_of(pilot).splitlines()[-1]
            assert "q Quit" in last and ("palette" in last) == (size[0] >= 100)

    drive(walk, data.services(), size=sizes[0])


def test_the_shelf_follows_a_resize_and_tells_two_packages_of_one_name_apart() -> None:
    twin = replace(data.SHELF[0], path=Path("/home/me/elsewhere") / data.SHELF[0].manifest.name)

    async def walk(pilot: Pilot[Any]) -> None:
        await pilot.press("s")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the packages")
        assert "/home/me/elsewhere" in text_of(pilot) and "first token" in text_of(pilot)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "first token" not in text_of(pilot), "the narrow columns")
        assert "budgets" in text_of(pilot) and "…" in text_of(pilot)
        assert shelf.query_one("#packages").virtual_size.width <= 80

    drive(walk, data.services(packages=lambda _: (*data.SHELF, twin)), size=(160, 36))


def test_an_empty_shelf_offers_nothing_to_do_with_a_package() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await pilot.press("s")
        await until(pilot, lambda: "Nothing on the shelf yet" in text_of(pilot), "the empty shelf")
        last = text_of(pilot).splitlines()[-1]
        assert "Delete" not in last and "Mark" not in last and "Back" in last

    drive(walk, data.services(packages=lambda _: ()))


def test_only_what_can_be_ranked_carries_a_star() -> None:
    one, two = data.SHELF[:2]
    longer = data.changed(two, workload={"use_case": "chat", "context": 1024})
    noisy = data.changed(two, measured={**two.manifest.data["measured"], "noisy": True})

    async def walk(pilot: Pilot[Any]) -> None:
        for packages, starred in (
            ((one, two), True),
            ((one, longer), False),
            ((one, noisy), False),
        ):
            pilot.app.push_screen(CompareScreen(packages))
            await screen(pilot, CompareScreen)
            await pilot.pause()
            row = next(line for line in text_of(pilot).splitlines() if "peak memory" in line)
            assert ("★" in row) is starred
            await pilot.press("escape")

    drive(walk, data.services())


def test_mistakes_in_the_settings_are_one_note_and_the_key_between_light_and_dark_comes_back() -> (
    None
):
    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        (note,) = pilot.app._notifications
        assert note.message.count("\n") == 3 and "4 mistakes" in note.title
        await pilot.press("f3", "f3")
        assert pilot.app.theme == "gruvbox"

    drive(walk, data.services(), settings=Settings("gruvbox", problems=("a", "b", "c", "d")))


def test_a_theme_that_is_chosen_is_there_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    from packager.cli.tui import _settings

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.remembers = True
        pilot.app.theme = "dracula"
        await pilot.pause()

    drive(walk, data.services())
    assert _settings().theme == "dracula"


def test_a_screenshot_is_saved_where_there_is_no_folder_for_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_downloads_path", lambda: tmp_path / "none")

    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        pilot.app.save_picture()
        await pilot.pause()

    drive(walk, data.services(folder=tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".svg"]
