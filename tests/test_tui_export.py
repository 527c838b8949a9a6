"""The last step on screen: every format, by keys alone, with the command that does the same;
cancelling leaves nothing."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from packager.cli import main
from packager.events import Event
from packager.package import manifest
from packager.package.package import Package
from packager.package.verify import verify
from packager.shipping.export import FORMATS, Exported
from tests.support.make_package import body, write_package
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive, real_services, screen, text_of, until
from tui import core
from tui.leaving import Order
from tui.screens.confirm import ConfirmScreen
from tui.screens.export import ExportScreen
from tui.screens.shelf import ShelfScreen
from tui.widgets.lists import VimList
from tui.widgets.slider import Slider

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))


def package(folder: Path, **changes: Any) -> Package:
    path = write_package(folder / "p")
    own = {
        "variant": {"repo_id": "mine/model", "license": "apache-2.0"},
        "source": {"kind": "local"},
    }
    manifest.write(path, {**body(path), **own, **changes})
    return Package(path, manifest.read(path))


async def shown(pilot: Pilot[Any], one: Package) -> ExportScreen:
    pilot.app.push_screen(ExportScreen(one))
    return await screen(pilot, ExportScreen)


async def ended(pilot: Pilot[Any], export: ExportScreen) -> None:
    await until(pilot, lambda: not export.busy, "the end of the export")


def test_from_the_shelf_to_an_archive_by_keys_and_the_command_shown_writes_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = package(tmp_path)
    command = ""

    async def walk(pilot: Pilot[Any]) -> None:
        nonlocal command
        await pilot.press("s")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the package")
        await pilot.press("e")
        export = await screen(pilot, ExportScreen)
        assert [option.id for option in export.query_one(VimList).options] == list(FORMATS)
        await pilot.press("j", "enter")
        assert isinstance(pilot.app.focused, Input) and pilot.app.focused.value == str(
            tmp_path / "tiny.tar.zst"
        )
        await pilot.press("end", *".w", "enter")
        await until(pilot, lambda: export.exported, "the archive")
        assert "✓" in text_of(pilot) and (tmp_path / "tiny.tar.zst.w").is_file()
        await pilot.press("y")
        command = pilot.app.clipboard
        await pilot.press("Y")
        assert pilot.app.clipboard == str(tmp_path / "tiny.tar.zst.w")

    drive(walk, real_services(tmp_path))
    written = (tmp_path / "tiny.tar.zst.w").read_bytes()
    (tmp_path / "tiny.tar.zst.w").unlink()
    assert main(shlex.split(command)[1:]) == 0
    assert (tmp_path / "tiny.tar.zst.w").read_bytes() == written
    assert verify(one.path) == []


def test_pieces_are_chosen_on_a_slider_or_typed_and_only_where_a_format_can_be_cut(
    tmp_path: Path,
) -> None:
    one = package(tmp_path)

    async def walk(pilot: Pilot[Any]) -> None:
        export = await shown(pilot, one)
        pieces = export.query_one("#export-pieces", Slider)
        assert pieces.display and not export.query_one("#export-size-line").display
        pilot.app.set_focus(pieces)
        await pilot.press("l")
        assert export.order.size == "4G" and "--max-file-size 4G" in export.order.command()
        await pilot.press("end", "tab", *"lots")
        assert export.order.size == "lots"
        await pilot.press("enter")
        await ended(pilot, export)
        assert "'lots' is not a valid size" in " ".join(text_of(pilot).split())
        pilot.app.set_focus(export.query_one(VimList))
        await pilot.press(*"jjj")
        await pilot.pause()
        assert not pieces.display and "--max-file-size" not in export.order.command()

    drive(walk, real_services(tmp_path))


def test_a_format_asks_for_what_it_takes_and_says_where_it_makes_no_sense(tmp_path: Path) -> None:
    one = package(tmp_path)

    async def walk(pilot: Pilot[Any]) -> None:
        export = await shown(pilot, one)
        assert not export.query_one("#export-base_image-line").display
        await pilot.press(*["j"] * list(FORMATS).index("docker"))
        await pilot.pause()
        pilot.app.set_focus(export.query_one("#export-base_image"))
        await pilot.press(*"mine/openvino@sha256:" + "0" * 64)
        assert f"--base-image mine/openvino@sha256:{'0' * 64}" in export.order.command()
        await pilot.press("enter")
        await until(pilot, lambda: export.exported, "the export")
        assert "mine/openvino@sha256" in (tmp_path / "tiny-docker" / "Dockerfile").read_text()
        pilot.app.set_focus(export.query_one(VimList))
        await pilot.press("k")
        await pilot.pause()
        assert "base_image" not in export.order.settings
        assert "✗ ollama cannot take a package for openvino: Ollama reads only GGUF" in " ".join(
            text_of(pilot).split()
        )

    drive(walk, real_services(tmp_path))


def test_what_stands_in_the_way_is_one_sentence_that_can_be_copied_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    one = package(tmp_path)
    (tmp_path / "tiny-dir").write_text("mine")

    async def walk(pilot: Pilot[Any]) -> None:
        export = await shown(pilot, one)
        await pilot.press("w")
        await ended(pilot, export)
        await pilot.press("ctrl+y")
        assert "already exists" in pilot.app.clipboard and export.exported is None

    drive(walk, real_services(tmp_path))
    assert (tmp_path / "tiny-dir").read_text() == "mine"


def test_licences_and_random_weights_go_out_only_when_that_is_said(tmp_path: Path) -> None:
    one = package(
        tmp_path,
        variant={"repo_id": "mine/model", "license": "qwen-research"},
        source={"kind": "dummy"},
    )

    async def walk(pilot: Pilot[Any]) -> None:
        export = await shown(pilot, one)
        for selector, sentence in (
            ("#export-dummy", "random weights"),
            ("#export-licence", "licence of the weights"),
        ):
            await pilot.press("w")
            await ended(pilot, export)
            assert sentence in " ".join(text_of(pilot).split()) and export.exported is None
            pilot.app.set_focus(export.query_one(selector))
            await pilot.press("l")
        assert "--accept-license qwen-research --allow-dummy" in export.order.command()
        await pilot.press("w")
        await until(pilot, lambda: export.exported, "the export")

    drive(walk, real_services(tmp_path))
    assert (tmp_path / "tiny-dir" / "manifest.json").is_file()


class Slow:
    """The real export, which waits after its first bytes until it is let go."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self, order: Order) -> Generator[Event, None, Exported]:
        events = core.export(order)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                yield event
                self.began.set()
                self.go.wait(60)
        finally:
            events.close()


@pytest.mark.parametrize(
    "position", [thorough(0), 1, thorough(2), thorough(3)], ids=list(FORMATS)[:4]
)
def test_a_cancelled_export_leaves_nothing_behind(position: int, tmp_path: Path) -> None:
    one, slow, out = package(tmp_path), Slow(), tmp_path / "out"
    out.mkdir()

    async def walk(pilot: Pilot[Any]) -> None:
        export = await shown(pilot, one)
        await pilot.press(*["j"] * position, "w")
        await until(pilot, slow.began.is_set, "the first bytes")
        await pilot.press("escape")
        await screen(pilot, ConfirmScreen)
        await pilot.press("n")
        assert export.busy
        await pilot.press("c")
        slow.go.set()
        await ended(pilot, export)
        assert export.exported is None

    drive(walk, replace(real_services(out), export=slow))
    assert list(out.iterdir()) == []
    assert verify(one.path) == []


def test_q_asks_while_an_export_runs_and_leaving_ends_it(tmp_path: Path) -> None:
    one, slow, out = package(tmp_path), Slow(), tmp_path / "out"
    out.mkdir()

    async def walk(pilot: Pilot[Any]) -> None:
        await shown(pilot, one)
        await pilot.press("w")
        await until(pilot, slow.began.is_set, "the first bytes")
        await pilot.press("q")
        await screen(pilot, ConfirmScreen)
        await pilot.press("y")
        slow.go.set()
        await until(pilot, lambda: pilot.app._exit, "the way out")

    assert drive(walk, replace(real_services(out), export=slow)).return_value == 0
    assert list(out.iterdir()) == []
