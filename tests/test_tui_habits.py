"""What holds on every screen: keys, palette, help, jump mode, text fields, copying, themes, sizes,
and plain refusals."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from packager.cli import main
from packager.errors import ExitCode
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive, real_services, screen, text_of, until
from tests.support.tui_screens import SCREENS, opened
from tui.ask import Ask
from tui.bindings import all_ids, described
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.help import HelpScreen
from tui.screens.jump import JumpScreen
from tui.settings import Settings
from tui.widgets.candidates import CandidateTable
from tui.widgets.slider import Slider

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [name if name in ("device", "plan", "shelf") else thorough(name) for name in SCREENS],
)
def test_help_lists_every_key_of_a_screen_and_the_palette_runs_the_same_actions(name: str) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, name)
        rows = described(shown)
        own = {
            one.id
            for base in type(shown).__mro__
            for one in base.__dict__.get("BINDINGS", ())
            if getattr(one, "id", None)
        }
        active = {row.binding.id for row in rows}
        # What the state forbids, and what the focused list does itself.
        states = {
            "build": {"build.retry", "build.result", "build.cancel"},
            "need": {"need.down", "need.up", "need.enter"},
            "export": {"export.cancel", "export.open", "export.path"},
            "result": {"package.stop"},
            "shelf": {"package.stop"},
        }
        disabled = states.get(name, set())
        assert own - disabled <= active | disabled
        assert {"app.help", "app.quit", "app.jump", "app.theme"} <= active
        assert all(row.binding.description and row.binding.tooltip for row in rows)
        titles = {command.title for command in pilot.app.get_system_commands(shown)}
        assert {row.title for row in rows} <= titles
        await pilot.press("f1")
        helped = await screen(pilot, HelpScreen)
        text = str(helped._keys())
        assert all(row.binding.tooltip in text for row in rows)
        await pilot.press("escape")
        assert pilot.app.screen is shown

    drive(walk, data.services())


def test_ids_of_bindings_are_named_after_their_screen_and_every_shown_key_has_one() -> None:
    assert {
        "plan.build",
        "build.cancel",
        "candidates.filter",
        "app.quit",
        "slider.more",
        "list.down",
    } <= all_ids()
    assert all(name.partition(".")[2] for name in all_ids())


def test_the_palette_finds_an_action_by_its_words_and_runs_it() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await opened(pilot, "shelf")
        await until(pilot, lambda: pilot.app.screen.package, "the packages")
        await pilot.press("ctrl+p")
        await screen(pilot, CommandPalette)
        await pilot.press(*"delete")
        await until(
            pilot, lambda: "Remove the package from the disk" in text_of(pilot), "the action"
        )
        await pilot.press("enter")
        await until(
            pilot, lambda: type(pilot.app.screen).__name__ == "ConfirmScreen", "the question"
        )

    drive(walk, data.services())


def test_letters_belong_to_the_text_field_that_has_the_focus() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "candidates")
        await until(pilot, lambda: shown.found, "the candidates")
        await pilot.press("slash", *"qsoxpwyjk?")
        assert pilot.app.screen is shown
        assert shown.query_one("#filter", Input).value == "qsoxpwyjk?"
        await pilot.press("escape")
        assert isinstance(pilot.app.focused, CandidateTable)
        assert pilot.app.screen is shown

    drive(walk, data.services())


def test_vim_keys_and_arrows_move_alike() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "candidates")
        await until(pilot, lambda: shown.found, "the candidates")
        table = shown.query_one(CandidateTable)
        await pilot.press("u")
        places = []
        for key in ("j", "down", "k", "up", "G", "g", "ctrl+d", "ctrl+u"):
            await pilot.press(key)
            places.append(table.cursor)
        last = len(table.rows) - 1
        assert places[:6] == [1, 2, 1, 0, last, 0] and places[6] > 5 and places[7] == 0

    drive(walk, data.services())


def test_jump_mode_goes_to_any_part_by_a_letter() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "candidates")
        await until(pilot, lambda: shown.found, "the candidates")
        await pilot.press("ctrl+o")
        jump = await screen(pilot, JumpScreen)
        letter = next(
            letter for letter, widget in jump._targets.items() if widget.id == "if-memory"
        )
        await pilot.press(letter)
        await until(
            pilot,
            lambda: pilot.app.focused is not None and pilot.app.focused.id == "if-memory",
            "the slider",
        )
        await pilot.press("ctrl+o", "escape")
        assert pilot.app.focused is not None and pilot.app.focused.id == "if-memory"

    drive(walk, data.services())


def test_the_mouse_does_what_the_keys_do() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "candidates")
        await until(pilot, lambda: shown.found, "the candidates")
        table = shown.query_one(CandidateTable)
        await pilot.click(CandidateTable, offset=(10, 4))
        assert table.cursor == 3
        await pilot.click(CandidateTable, offset=(3, 0))
        assert table.view.sort == "variant"
        slider = shown.query_one("#if-context", Slider)
        # On the track the knob goes to the pointer; beside the value it moves a step.
        await pilot.click("#if-context", offset=(9, 0))
        assert slider.value == 512
        await pilot.click("#if-context", offset=(slider.size.width - 2, 0))
        assert slider.value == 1024

    drive(walk, data.services())


def test_what_if_moves_the_table_with_the_real_catalogue(tmp_path: Path) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        target = pilot.app.services.read_target("laptop-cpu")
        await pilot.app.push_screen(CandidatesScreen(Ask(target)))
        shown = pilot.app.screen
        first = await until(pilot, lambda: shown.found, "the candidates")
        await pilot.press("w", "tab", "tab", *"llllll")
        limited = await until(
            pilot,
            lambda: shown.found is not first and shown.found.ask == shown.ask and shown.found,
            "the answer",
        )
        limit = limited.ask.workload().max_memory_bytes
        assert (
            limit is not None
            and max(one.footprint.peak for one in limited.candidates if one.passes) <= limit
        )
        assert sum(one.passes for one in limited.candidates) < sum(
            one.passes for one in first.candidates
        )

    drive(walk, real_services(tmp_path))


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        ("device", "--target"),
        thorough("need", "no flags"),
        thorough("candidates", "Qwen3-0.6B as openvino:int4_sym_g128"),
        ("plan", "qwen-pack build --target laptop-cpu"),
        thorough("result", "/home/me/packages/qwen3-0.6b"),
        ("shelf", "/home/me/packages/qwen3-0.6b"),
        ("compare", "peak memory\t1.27 GB\t3.30 GB"),
        ("pareto", "qwen3-0.6b-openvino-int4_sym_g128\t"),
    ],
)
def test_y_copies_what_a_screen_is_about(name: str, copied: str) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, name)
        await until(
            pilot,
            lambda: shown.copied() and "None" not in shown.copied()[0][:4],
            "something to copy",
        )
        await pilot.press("y")
        assert copied in pilot.app.clipboard

    drive(walk, data.services())


def test_an_error_is_shown_in_words_and_can_be_copied() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "shapes.toml, line 12" in text_of(pilot), "the error")
        await pilot.press("y")
        assert "Install qwen-pack again" in pilot.app.clipboard

    drive(walk, data.services(targets=data.refuse))


def test_measuring_this_machine_says_what_it_does_and_ends_with_the_screen() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        await until(pilot, lambda: "not measured yet" in text_of(pilot), "this machine")
        await pilot.press("m")
        await until(pilot, lambda: "matrix of 128 MB" in text_of(pilot), "the first sentence")

    drive(walk, data.services(known_machine=lambda: None))


def test_themes_change_between_light_and_dark_and_come_from_the_settings() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        assert pilot.app.theme == "ansi-dark"
        await pilot.press("f3")
        assert pilot.app.theme == "ansi-light"

    drive(walk, data.services(), settings=Settings(theme="ansi-dark"))


def test_mistakes_in_the_settings_are_told_and_do_not_stop_the_start() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        assert any("is not an action" in note.message for note in pilot.app._notifications)

    drive(
        walk,
        data.services(),
        settings=Settings(problems=("tui.toml: keys.build.cancle is not an action.",)),
    )


def test_a_window_that_becomes_too_small_says_so_and_recovers() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "laptop-cpu" in text_of(pilot), "the devices")
        await pilot.resize_terminal(50, 15)
        await until(pilot, lambda: "too small" in text_of(pilot), "the sentence")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "laptop-cpu" in text_of(pilot), "the devices again")

    drive(walk, data.services())


def test_without_a_terminal_one_sentence_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tui"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "needs a terminal" in error and "qwen-pack build" in error and "Traceback" not in error


def test_a_terminal_that_is_too_small_is_refused_with_the_size_that_is_needed() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 15, 50, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }
    command = [sys.executable, "-m", "packager.cli", "tui"]
    run = subprocess.run(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert run.returncode == ExitCode.USAGE
    assert "50 columns and 15 rows" in run.stderr and "60 and 20" in run.stderr


def test_a_wish_survives_the_way_back_to_it() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await opened(pilot, "need")
        await pilot.press("tab", "l", "n")
        table = await screen(pilot, CandidatesScreen)
        assert table.ask.wish.context == 8192
        await pilot.press("escape")
        assert pilot.app.screen is shown
        assert shown.query_one("#limit-context", Slider).value == 8192
        await pilot.press("r")
        assert shown.ask == replace(data.ASK, wish=replace(data.ASK.wish))

    drive(walk, data.services())
