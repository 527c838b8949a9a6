"""A model of one's own on the screens: adapters that are merged, how it is to behave, vectors and
scores, and figures from another machine."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from packager.cli.profile import profile_from
from packager.cli.tui import services as command_line_services
from packager.errors import PackError, unreachable
from packager.events import Event, StageProgress
from packager.need.usecases import use_case_names
from packager.package import manifest
from packager.records import Measurement
from packager.records.measurement import OnDevice
from packager.select import Reason
from tests.conftest import REPOSITORY
from tests.support import tui_data as data
from tests.support.adapters import QUERY, low_rank
from tests.support.gguf_checkpoints import build
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import write_package
from tests.support.tui_helpers import drive, parsed, real_services, screen, settled, text_of, until
from tui import core, explain, figures
from tui.ask import Ask, DeploymentProfile, build_command, specs
from tui.screens.candidates import CandidatesScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.need import NeedScreen
from tui.screens.reach import ReachScreen
from tui.screens.result import ResultScreen
from tui.screens.shelf import ShelfScreen
from tui.widgets.lists import VimList
from tui.widgets.problem import Problem
from tui.widgets.profile_lines import ProfileLines
from tui.widgets.slider import Slider


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("  one ", ("one",)),
        ("./a:0.5 Qwen/b@v1", ("./a:0.5", "Qwen/b@v1")),
        ("'with space' other", ("with space", "other")),
    ],
)
def test_adapters_are_words_as_in_a_shell_and_a_folder_with_a_space_is_one(
    text: str, found: tuple[str, ...], tmp_path: Path
) -> None:
    assert specs(text) == found
    (tmp_path / "my adapter").mkdir()
    assert specs(f"{tmp_path}/my adapter") == (f"{tmp_path}/my adapter",)
    with pytest.raises(PackError, match="a quote that does not end"):
        specs("'half")


def test_the_command_shown_merges_and_behaves_as_the_screen_says(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.")
    (tmp_path / "tools.json").write_text('[{"type": "function", "function": {"name": "now"}}]')
    said = DeploymentProfile(
        "budget:256", f"{tmp_path}/system.txt", f"{tmp_path}/tools.json", "temperature=0.7,top_k=20"
    )
    ask = replace(data.ASK, lora=("./a:0.5", "Qwen/b@v1"), profile=said)
    flags = parsed(build_command(ask, data.CHOSEN))
    assert flags["loras"] == ask.lora
    assert profile_from(flags) == said.read() and said.read().thinking_budget == 256
    assert explain.profile(said.read()) == (
        "thinking on, at most 256 tokens, a system prompt of 9 characters, 1 tool, temperature 0.7, "
        "top_k 20"
    )
    assert explain.profile(DeploymentProfile().read()) == ""


def test_adapters_are_part_of_what_is_found_and_of_the_plan_and_a_wrong_one_is_refused(
    tmp_path: Path, own_cache: Path
) -> None:
    folder = write_tiny(tmp_path / "mine")
    given = real_services(tmp_path)
    ask = Ask(given.read_target("cpu-gguf"), weights=str(folder)).wishing(context=256)
    fitting = low_rank(tmp_path / "style", {QUERY: (64, 64)})
    asked = replace(ask, lora=(f"{fitting}:0.5",), profile=DeploymentProfile("off"))
    found = core.find(given, asked)
    assert found.chosen is not None
    plan = core.plan(given, asked, found.chosen, None)
    [adapter] = plan.source.adapters
    assert (adapter.scale, plan.profile.thinking) == (0.5, "off")
    assert plan.out == tmp_path / plan.name and "-lora-" in plan.name
    assert figures.adapters([(adapter.location, adapter.scale)]) == "style times 0.5"
    other = low_rank(tmp_path / "wide", {QUERY: (96, 96)})
    with pytest.raises(PackError):
        core.find(given, replace(ask, lora=(str(other),)))


def test_a_gguf_is_found_and_planned_as_what_it_is(tmp_path: Path, own_cache: Path) -> None:
    path = build(REPOSITORY / "tests" / "models" / "tiny-qwen3", tmp_path / "tiny.gguf", "Q8_0")
    given = real_services(tmp_path)
    ask = Ask(given.read_target("cpu-gguf"), weights=str(path)).wishing(context=256)
    found = core.find(given, ask)
    assert [one.recipe.id for one in found.candidates] == ["gguf:Q8_0"]
    assert found.chosen is not None
    plan = core.plan(given, ask, found.chosen, None)
    assert plan.source.kind == "gguf" and plan.recognised is not None
    assert parsed(build_command(ask, found.chosen))["weights"] == str(path)


def test_the_need_takes_adapters_and_a_profile_keeps_them_and_refuses_where_they_are_wrong(
    tmp_path: Path,
) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        problem = need.query_one("#need-problem", Problem)
        for name, text, said in (
            ("lora", "'half", "Adapters"),
            ("sampling", "heat=1", "Sampling knows no 'heat'"),
            ("tools", str(tmp_path), "cannot be read"),
        ):
            field = need.query_one(f"#{name}", Input)
            field.focus()
            field.value = text
            await pilot.press("enter")
            assert said in problem.text and "--" not in problem.text
            assert pilot.app.screen is need and pilot.app.focused is field
            field.value = ""
        need.query_one("#lora", Input).value = "Qwen/b:0.5"
        need.query_one("#thinking", Slider).focus()
        await pilot.press("end")
        budget = need.query_one("#thinking-budget", Slider)
        assert budget.display and need.query_one(ProfileLines).value.thinking == "budget:512"
        await pilot.press("tab", *"300", "enter", "n")
        table = await screen(pilot, CandidatesScreen)
        assert table.ask.lora == ("Qwen/b:0.5",) and table.ask.profile.thinking == "budget:300"
        await pilot.press("escape")
        assert "Adapters •" in text_of(pilot) and "Thinking •" in text_of(pilot)
        await pilot.press("r", "n")
        assert (await screen(pilot, CandidatesScreen)).ask.profile == DeploymentProfile()

    drive(walk, data.services(), size=(120, 44))


def test_a_limit_that_means_nothing_for_a_use_case_is_not_asked_and_waits_for_one_that_shows_it() -> (
    None
):
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK.wishing(min_decode_tps=20)))
        need = await screen(pilot, NeedScreen)
        await settled(pilot)
        await pilot.press("G", "k")
        assert need.ask.wish.use_case == "embed" and need.ask.wish.min_decode_tps is None
        need.query_one("#limit-dimension", Slider).focus()
        await pilot.press(*"512", "enter")
        assert need.ask.workload().dimension == 512
        need.query_one("#use-cases").focus()
        await pilot.press("j")
        assert need.ask.wish.use_case == "rerank" and need.ask.wish.dimension is None
        assert not need.query_one("#limit-dimension").display
        await pilot.press("k")
        assert need.ask.wish.dimension == 512
        await pilot.press("g")
        assert need.ask.wish == data.ASK.wishing(min_decode_tps=20).wish

    drive(walk, data.services())


def test_where_pictures_come_in_that_is_said_and_their_size_is_asked() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        await settled(pilot)
        cases, size = (
            need.query_one("#use-cases", VimList),
            need.query_one("#limit-max_image_tokens", Slider),
        )
        assert not size.display
        cases.highlighted = use_case_names().index("vision")
        await pilot.pause()
        assert "Pictures come in, each up to" in str(need.query_one("#why-text", Static).content)
        size.focus()
        await pilot.press(*"256", "enter")
        assert need.ask.workload().max_image_tokens == 256
        assert "--max-image-tokens 256" in " ".join(need.ask.wish.flags())
        cases.focus()
        await pilot.press("g")
        assert not size.display and need.ask.wish.max_image_tokens is None
        need.ask.workload()

    drive(walk, data.services())


def test_a_wait_that_is_too_long_is_that_of_a_text_where_no_answer_is_given() -> None:
    reason = Reason("ttft", "10000 ms", "19900 ms for 512 tokens", 10000, 19900)
    assert explain.why_not(reason).startswith("first token after 19.9 s, limit 10.0 s (512 tokens")
    assert explain.why_not(reason, "embed") == (
        "vector of a text after 19.9 s, limit 10.0 s (512 tokens)"
    )


def test_a_result_says_what_was_merged_how_it_behaves_and_what_it_gives() -> None:
    chat = {"profile": {"thinking": "off", "sampling": {"top_p": 0.8, "\x1b[2J": 1}}}
    merged = [{"location": "style", "scale": 0.5, "files": []}]
    source = {"kind": "local", "location": "x", "adapters": merged}
    talks = data.changed(data.package(), chat=chat, source=source)
    vectors = {
        "task": "embed",
        "pooling": "last",
        "normalized": True,
        "hidden": 1024,
        "dimension": 512,
    }
    measured = {"prompt_tokens": 512, "task": "embed", "ttft_ms": 800, "documents_512_dps": 1.4}
    embeds = data.changed(data.package(), retrieval=vectors, measured=measured)

    async def walk(pilot: Pilot[Any]) -> None:
        for package, words in (
            (talks, ("adapters  style times 0.5", "behaves   thinking off, top_p 0.8")),
            (
                embeds,
                (
                    "vectors of 512 of 1,024 numbers, the last token's, brought to length 1",
                    "vector of a text, 512",
                    "documents of 512 tokens",
                ),
            ),
        ):
            pilot.app.push_screen(ResultScreen(package))
            await screen(pilot, ResultScreen)
            await settled(pilot)
            text = text_of(pilot)
            assert all(one in text for one in words), text
            await pilot.press("escape")

    drive(walk, data.services(), size=(200, 50))


def there(on_device: bool) -> Measurement:
    place = OnDevice(on_device=on_device, why="this is no laptop")
    return data.measured_on_the_shelf().but(place=place)


def sent(figures_there: Measurement) -> Any:
    def bench_on(*_: object) -> Generator[Event, None, Measurement]:
        yield StageProgress("push", 10**6, 4 * 10**6)
        return figures_there

    return bench_on


def test_figures_of_the_device_judge_its_budgets_and_are_on_the_screen_once_they_are_saved(
    tmp_path: Path,
) -> None:
    path = write_package(tmp_path / "p")
    written = manifest.read(path).data
    here = {**data.package().manifest.data["measured"], "place": {"on_device": False}}
    kept = data.changed(
        data.package(), files=written["files"], schema=written["schema"], measured=here
    )
    manifest.write(path, kept.manifest.data)
    asked: list[object] = []

    def bench_on(*given: object) -> Any:
        asked.append(given)
        return sent(there(True))()

    async def walk(pilot: Pilot[Any]) -> None:
        package = replace(kept, path=path, manifest=manifest.read(path))
        pilot.app.push_screen(ResultScreen(package))
        result = await screen(pilot, ResultScreen)
        await pilot.press("M")
        await screen(pilot, ReachScreen)
        await pilot.press(*"adb:X", "tab", *"aarch64", "enter")
        await screen(pilot, FiguresScreen)
        assert asked == [(path, "adb:X", "aarch64")]
        assert "the device." in text_of(pilot) and "✓ passed" in text_of(pilot)
        await pilot.press("s")
        await until(pilot, lambda: pilot.app.screen is result, "the result")
        assert result.package.contents.telling == there(True)
        # The next question begins where the last one ended.
        await pilot.press("M")
        reach = await screen(pilot, ReachScreen)
        assert reach.query_one("#reach-address", Input).value == "adb:X"
        await pilot.press("escape")

    drive(walk, data.services(bench_on=bench_on))


def test_a_package_that_is_gone_once_its_figures_are_saved_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("packager.pipeline.bench.save", lambda *_: None)

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ResultScreen(data.package()))
        result = await screen(pilot, ResultScreen)
        await pilot.press("m")
        await screen(pilot, FiguresScreen)
        await pilot.press("s")
        await until(pilot, lambda: pilot.app.screen is result, "the result")
        await until(pilot, lambda: "is not a package" in text_of(pilot), "the sentence")

    drive(walk, data.services(bench=sent(there(True))))


def test_a_machine_that_cannot_be_reached_is_a_sentence_and_an_empty_shelf_asks_for_none() -> None:
    def refuse(*_: object) -> Any:
        raise unreachable("pi cannot be reached by ssh.", "Check that this works: ssh pi true")

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ShelfScreen())
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the packages")
        await pilot.press("M")
        await screen(pilot, ReachScreen)
        await pilot.press(*"ssh://pi", "enter")
        problem = shelf.query_one("#shelf-problem", Problem)
        await until(pilot, lambda: "ssh pi true" in problem.text, "the refusal")
        assert not shelf.busy and pilot.app.measuring == ""

    drive(walk, data.services(bench_on=refuse))

    async def nothing(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ShelfScreen())
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: "Nothing on the shelf" in text_of(pilot), "the empty shelf")
        await pilot.press("M")
        assert pilot.app.screen is shelf

    drive(nothing, data.services(packages=lambda _: ()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "is made for openvino"),
        (
            {"runtime": {"name": "llama.cpp"}, "retrieval": {"task": "embed"}},
            "this one makes vectors",
        ),
    ],
)
def test_what_the_agent_does_not_run_is_refused_before_anything_is_sent(
    fields: dict[str, Any], said: str, tmp_path: Path, own_cache: Path
) -> None:
    path = write_package(tmp_path / "p")
    manifest.write(path, {**manifest.read(path).data, **fields})
    with pytest.raises(PackError, match=said):
        next(command_line_services().bench_on(path, "local:", None))
