"""No dead end: refusals, answers without a row, limits that are typed, words of the screen."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from textual.widgets._footer import FooterKey

from packager.errors import PackError, usage
from packager.select.misses import Miss
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive, real_services, screen, settled, text_of, until
from tui.ask import Ask
from tui.core import Found
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.export import ExportScreen
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.widgets.candidates import CandidateTable
from tui.widgets.lists import VimList
from tui.widgets.problem import Problem
from tui.widgets.slider import Slider

pytestmark = pytest.mark.slow


async def answered(pilot: Pilot[Any], ask: Ask = data.ASK) -> CandidatesScreen:
    pilot.app.push_screen(CandidatesScreen(ask))
    shown = await screen(pilot, CandidatesScreen)
    await until(pilot, lambda: shown.found, "the candidates")
    return shown


def again(answer: Any) -> Any:
    """The first question gets all candidates, every other one the answer, or its refusal."""

    def find(_: object, ask: Ask) -> Found:
        if ask.workload() == data.ASK.workload():
            return replace(data.FOUND, ask=ask)
        if isinstance(answer, PackError):
            raise answer
        return replace(data.FOUND, ask=ask, candidates=answer)

    return find


@pytest.mark.parametrize(
    "answer",
    [usage("None of the runtimes keeps its cache as f32."), (), thorough(data.CANDIDATES[:1])],
    ids=["refusal", "nothing", "one"],
)
def test_an_answer_shorter_than_the_cursor_and_a_refusal_leave_a_table_that_can_be_used(
    answer: Any,
) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        shown = await answered(pilot)
        table = shown.query_one(CandidateTable)
        await pilot.press("u", "G", "w", "l")
        await until(
            pilot,
            lambda: table.candidates is not data.CANDIDATES and len(table.candidates) < 2,
            "the second answer",
        )
        await pilot.pause()
        assert len(table.rows) == len(table.candidates)
        if isinstance(answer, PackError):
            assert "None of the runtimes keeps its cache as f32." in text_of(pilot)
        await pilot.press("h")
        await until(
            pilot, lambda: len(table.candidates) == len(data.CANDIDATES), "the first answer again"
        )

    drive(walk, data.services(find=again(answer)))


def test_every_cache_type_that_is_offered_answers_with_the_real_catalogue(tmp_path: Path) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        target = pilot.app.services.read_target("laptop-cpu")
        shown = await answered(pilot, Ask(target))
        await pilot.press("G", "w", "tab")
        slider = shown.query_one("#if-kv", Slider)
        for _ in range(len(slider._steps) - 1):
            await pilot.press("l")
            await until(pilot, lambda: shown.found and shown.found.ask == shown.ask, "the answer")
            assert (
                shown.query_one("#candidates-problem", Problem).text == ""
                and shown.found
                and shown.found.candidates
            )

    drive(walk, real_services(tmp_path))


def test_where_nothing_fits_a_sentence_says_so_and_the_change_that_mends_it_is_one_key() -> None:
    miss = Miss(
        data.CANDIDATES[1], "a memory limit of 1700 MB", "--max-memory-mb 1700", data.CANDIDATES[1]
    )
    nothing = replace(data.NOTHING, misses=(miss,))

    def find(_: object, ask: Ask) -> Found:
        return replace(data.FOUND if ask.wish.max_memory_bytes else nothing, ask=ask)

    async def walk(pilot: Pilot[Any]) -> None:
        shown = await answered(pilot)
        assert "None of 7 variants fits laptop-cpu" in text_of(
            pilot
        ) and "--max-memory-mb 1700" in text_of(pilot)
        await until(pilot, lambda: pilot.app.focused is shown.query_one("#misses"), "the ways on")
        await pilot.press("enter")
        await until(
            pilot,
            lambda: shown.found and shown.found.ask.wish.max_memory_bytes == 1700 * 10**6,
            "the changed question",
        )
        table = shown.query_one(CandidateTable)
        await until(pilot, lambda: table.highlighted is data.CANDIDATES[1], "the row that fits now")
        assert (
            not shown.query_one("#misses").display
            and shown.query_one("#if-memory", Slider).value == 1700 * 10**6
        )
        # Back on the need, the limit that was tried is the limit that is asked.
        await pilot.press("escape")

    drive(walk, data.services(find=find))


def test_use_cases_that_no_runtime_serves_are_marked_before_a_person_goes_on(
    tmp_path: Path,
) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        unserved = await until(pilot, lambda: need._unserved, "what is not served")
        assert "chat" not in unserved
        cases = need.query_one("#use-cases", VimList)
        cases.highlighted = cases.get_option_index(sorted(unserved)[0])
        await until(
            pilot,
            lambda: "nothing fits, on any device" in " ".join(text_of(pilot).split()),
            "the reason",
        )

    drive(walk, replace(real_services(tmp_path), unserved=lambda: frozenset({"vision"})))


def test_an_error_in_a_text_field_is_copied_by_a_key_that_is_no_letter() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("slash", *"x.toml", "enter")
        await until(pilot, lambda: "shapes.toml" in text_of(pilot), "the error")
        assert "ctrl+y copies this" in text_of(pilot)
        await pilot.press("ctrl+y")
        assert "Install qwen-pack again" in pilot.app.clipboard
        assert device.query_one(Input).value == "x.toml"

    drive(walk, data.services(read_target=data.refuse))


def test_a_filter_typed_at_once_that_matches_nothing_leaves_no_device_on_the_screen() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("slash")
        # The laptop matches the first letter and is gone with the next: what is said of it late
        # counts no more.
        device.query_one(Input).value = "l"
        device.query_one(Input).value = "lzz"
        await pilot.pause()
        await until(pilot, lambda: "No device matches." in text_of(pilot), "the sentence")
        assert "This machine" not in text_of(pilot) and "A mainstream" not in text_of(pilot)
        assert device.copied() is None
        await pilot.press("enter")
        assert pilot.app.screen is device

    drive(walk, data.services())


def test_hints_name_the_control_of_the_screen_and_lead_to_it() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK.wishing(context=512, prompt=600)))
        need = await screen(pilot, NeedScreen)
        await pilot.press("n")
        problem = need.query_one("#need-problem", Problem)
        assert "Give a larger Context." in problem.text and "--context" not in problem.text
        assert pilot.app.focused is need.query_one("#limit-context")
        pilot.app.push_screen(ExportScreen(data.package(source="dummy")))
        export = await screen(pilot, ExportScreen)
        await pilot.press("w")
        await until(pilot, lambda: not export.busy, "the refusal")
        assert (
            pilot.app.focused is export.query_one("#export-dummy")
            and "--allow-dummy" not in export.query_one(Problem).text
        )

    def refuse(*_: object) -> Any:
        raise usage(
            "The weights are random.",
            "Choose other weights, or export it all the same with --allow-dummy.",
        )

    drive(walk, data.services(export=refuse))


def test_digits_type_a_limit_and_a_wrong_one_changes_nothing() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        slider = need.query_one("#limit-context", Slider)
        slider.focus()
        await pilot.press(*"6000", "enter")
        assert slider.value == need.ask.wish.context == 6000 and slider.changed
        await pilot.press(*"7", "escape")
        assert pilot.app.screen is need and slider.value == 6000
        await pilot.press(*"9x", "enter")
        assert slider.value == 6000 and any(
            "'9x' is not a valid value." in note.message for note in pilot.app._notifications
        )
        need.query_one("#limit-max_memory_bytes", Slider).focus()
        await settled(pilot)
        keys = list(need.query(FooterKey))
        await pilot.press(*"1.5g", "tab")
        # The line of keys is drawn anew only for other keys: that is most of what a Tab costs.
        await settled(pilot)
        assert keys == list(need.query(FooterKey)) != []
        assert need.ask.wish.max_memory_bytes == 1_500_000_000
        assert pilot.app.focused is need.query_one("#limit-prefer")

    drive(walk, data.services())


def test_a_missing_engine_is_said_at_the_device_and_at_the_candidate_and_enter_on_the_plan_hides_nothing() -> (
    None
):
    absent = {
        "openvino": "openvino is not installed here. Install it with: pip install "
        "'qwen-pack[openvino]'"
    }

    def find(_: object, ask: Ask) -> Found:
        return replace(data.FOUND, ask=ask, absent=absent)

    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        await pilot.press("j")
        assert "openvino (not installed here)" in text_of(pilot)
        await answered(pilot)
        assert "openvino is not installed here" in " ".join(text_of(pilot).split())
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        await pilot.press("enter")
        assert pilot.app.screen is plan and not pilot.app._notifications
        assert "This build cannot start" in text_of(pilot)

    drive(
        walk, data.services(absent=lambda *_: absent, find=find, problems=lambda *_: data.PROBLEMS)
    )


@pytest.mark.parametrize("first", ["the layout", "the check"])
def test_what_stands_against_a_build_is_seen_whole_whichever_comes_first(first: str) -> None:
    laid_out = threading.Event()

    def problems(*_: Any) -> tuple[PackError, ...]:
        assert first == "the check" or laid_out.wait(60)
        return data.PROBLEMS

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        if first == "the layout":
            await settled(pilot, workers=False)
        laid_out.set()
        await until(pilot, lambda: plan.checked, "the check")
        await settled(pilot)
        pane, shown = plan.query_one("#plan"), plan.query_one(Problem)
        assert shown.region in pane.region
        assert shown.region.bottom == pane.region.bottom, "scrolled further than it takes"

    drive(walk, data.services(problems=problems), size=(80, 24))


def test_the_first_screen_says_what_the_tool_does_and_lists_phones_before_graphics_cards(
    tmp_path: Path,
) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        device = await screen(pilot, DeviceScreen)
        await until(pilot, lambda: device._targets, "the devices")
        text = text_of(pilot)
        assert "picks the smallest Qwen model" in text and "Where will it run?" in text
        assert text.index("Phones") < text.index("Single-board computers")
        assert "esc Back" not in text.splitlines()[-1]
        await pilot.press("j")
        assert "CPU only" in str(device.query_one("#device-facts", Static).content)

    drive(walk, real_services(tmp_path))


def test_a_path_is_completed_while_it_is_typed(tmp_path: Path) -> None:
    (tmp_path / "my-checkpoint").mkdir()
    (tmp_path / "my-file").touch()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        need.query_one("#weights", Slider).focus()
        await pilot.press("end")
        field = need.query_one("#weights-folder", Input)
        await until(pilot, lambda: pilot.app.focused is field, "the field")
        field.value = f"{tmp_path}/my"
        await until(pilot, lambda: field._suggestion, "the completion")
        field.cursor_position = len(field.value)
        await pilot.press("right")
        assert field.value == f"{tmp_path}/my-checkpoint/"
        # The home of nobody is a name like any other.
        field.value = "~nobody-of-this-name/x"
        await pilot.press("enter")
        await until(pilot, lambda: need.query_one(Problem).text, "the sentence")
        assert "~nobody-of-this-name/x" in need.query_one(Problem).text
        assert pilot.app.screen is need

    drive(walk, data.services())
