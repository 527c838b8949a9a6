"""The machines of the lab on the first step: who answers, which device that is, and where the result
is measured then."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from packager.cli.lab import everybody
from packager.device.identity import Here, devices_of
from packager.errors import PackError
from packager.lab import machines
from packager.lab.seen import Seen
from targets import registry
from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, text_of, until
from tui.ask import build_command
from tui.screens.build import BuildScreen
from tui.screens.device import DeviceScreen
from tui.screens.need import NeedScreen
from tui.screens.reach import Place, ReachScreen
from tui.screens.result import ResultScreen
from tui.widgets.lists import VimList

pytestmark = pytest.mark.slow

PI = Seen(
    "pi5", "ssh://pi@pi5", True, "Raspberry Pi 5", 8 * 10**9, "aarch64", "", ("raspberry-pi-5",)
)
UNKNOWN = Seen("", "adb:R5CT", True, "SM-X", 6 * 10**9, "aarch64")
GONE = Seen("old", "ssh://old", False, error="old does not answer within 10 s.")


def test_machines_that_answer_late_stand_above_the_devices_and_the_row_under_the_cursor_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = threading.Event()
    monkeypatch.setenv(machines.FILE, str(tmp_path / "lab.toml"))
    machines.add("pi5", "ssh://pi@pi5")

    def lab() -> tuple[Seen, ...]:
        assert answer.wait(60)
        return (PI, UNKNOWN, GONE)

    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("j", "j")
        devices = device.query_one(VimList)
        before = devices.highlighted_option
        assert before is not None and "Machines of the lab" not in text_of(pilot)
        answer.set()
        await until(pilot, lambda: "Machines of the lab" in text_of(pilot), "the lab")
        after = devices.highlighted_option
        assert after is not None and after.id == before.id
        await pilot.press("g", "j")
        # The picture of the device stands next to it, and breaks the line.
        text = str(device.query_one("#device-title", Static).content)
        assert "Enter continues with raspberry-pi-5, and what is built is measured on it." in text
        await pilot.press("j")
        assert "No known device matches it" in text_of(pilot)
        await pilot.press("enter")
        assert pilot.app.screen is device
        await pilot.press("j")
        assert "old does not answer within 10 s." in text_of(pilot)
        await pilot.press("k", "k", "enter")
        need = await screen(pilot, NeedScreen)
        assert need.ask.target.name == "raspberry-pi-5" and need.ask.machine == "pi5"
        commands = {one.runtime: build_command(need.ask, one) for one in data.CANDIDATES}
        assert commands["llama.cpp"].endswith(" --on pi5") and "--on" not in commands["openvino"]
        # What is built is measured there at once, and again only when that is asked for.
        pilot.app.push_screen(BuildScreen(data.PLAN, "", on="pi5"))
        result = await screen(pilot, ResultScreen)
        await until(pilot, lambda: asked == ["pi5"] and not result.busy, "the measurement")
        assert "It has gone." in text_of(pilot)
        await pilot.press("M")
        reach = await screen(pilot, ReachScreen)
        await pilot.press("enter")
        await until(pilot, lambda: not reach.is_attached, "the dialog is answered")
        assert pilot.app.last_place == Place("pi5") and asked == ["pi5", "pi5"]

    def bench_on(package: Path, address: str, agent: str | None) -> Any:
        asked.append(address)
        yield from ()
        raise PackError("It has gone.", "Try again.")

    def build(plan: object) -> Any:
        yield from ()
        return data.package(recipe="gguf:Q4_K_M")

    asked: list[str] = []
    drive(walk, data.services(lab=lab, bench_on=bench_on, build=build))


def test_a_machine_is_the_devices_that_know_it_by_name_before_the_classes_of_its_memory() -> None:
    pi = registry.target("raspberry-pi-5-8gb").device
    names = (pi.known_by[0],)
    there = Here(tuple(pi.isa.split()), pi.cores, pi.memory_bytes, names)
    assert devices_of(there, registry.targets())[0].name == "raspberry-pi-5-8gb"
    less = replace(there, memory_bytes=pi.memory_bytes // 2)
    assert "raspberry-pi-5-8gb" not in [one.name for one in devices_of(less, registry.targets())]
    assert not [one for one in devices_of(there, registry.targets()) if one.device.runs_on != "cpu"]


def test_the_lab_is_asked_as_the_command_line_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machines.FILE, str(tmp_path / "lab.toml"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert everybody() == []
    machines.add("here", "local:")
    [here] = everybody()
    assert here.reached and here.label == "here" and here.memory_bytes
    assert all(registry.target(name).device.runs_on == "cpu" for name in here.targets)
