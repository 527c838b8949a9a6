"""Every flag of a build has its place on the screens, and the command that they show says what
stands there."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from packager.cli import app as command_line
from packager.cli.additions import additions_from
from packager.cli.options import workload_from
from packager.errors import PackError, unreachable
from packager.events import Event
from packager.package.package import Package
from packager.pipeline import adapter_package
from packager.plan.drafts import Proposal
from packager.plan.plan import Plan
from packager.predict.memory import Drafting
from packager.process import Progress, Resident
from packager.sources.hub_file import HubFile
from tests.conftest import REPOSITORY
from tests.support import tui_data as data
from tests.support.gguf_checkpoints import build
from tests.support.make_checkpoint import write_tiny
from tests.support.quantized_checkpoints import gptq
from tests.support.quantized_checkpoints import write as write_quantized
from tests.support.tui_helpers import drive, parsed, real_services, screen, settled, text_of, until
from tui import core
from tui.ask import Ask, DeploymentProfile, FileOfHub, build_command
from tui.options import OPTIONS, YES, WrongOption, cleared, flags, written
from tui.screens.adapter import AdapterScreen
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.fetch import FetchScreen
from tui.screens.need import NeedScreen
from tui.screens.options import OptionsScreen
from tui.screens.plan import PlanScreen
from tui.screens.reach import ReachScreen
from tui.screens.result import ResultScreen
from tui.widgets.problem import Problem
from tui.widgets.slider import Slider

ELSEWHERE: dict[str, tuple[Any, str]] = {
    "--target": (lambda: DeviceScreen(), "#devices"),
    "--model": (lambda: CandidatesScreen(data.ASK), "#table"),
    "--recipe": (lambda: CandidatesScreen(data.ASK), "#table"),
    "--out": (lambda: PlanScreen(data.FOUND, data.CHOSEN), "#plan-folder"),
    "--adapter": (lambda: AdapterScreen("base"), "#adapter"),
    "--base": (ResultScreen, "a"),
    "--on": (lambda: ReachScreen("base"), "#reach-address"),
    "--agent": (lambda: ReachScreen("base"), "#reach-agent"),
}
"""Flags of a build whose control is on another screen than those of the need, and where."""
WITHOUT = {
    "--runtime": "a candidate names its runtime; the space bar shows those of every runtime",
    "--cool": "a wait for a cool processor is for measurements that nobody watches",
    "--json": "the screens are for people",
    "--help": "? shows the keys",
    # What only `fit` has.
    "--all": "the table holds every candidate; x hides the rejected ones",
    "--steps": "the plan shows the neighbours, the table all of them",
    "--with": "several models are planned one after the other, each with what is left of the memory",
    "--price-per-hour": "costs are figures of a server's operator: `fit` and `compare` show them",
    "--watts": "as the price of an hour",
    "--price-per-kwh": "as the price of an hour",
    "--max-cost-per-million": "as the price of an hour",
    "--tokens-per-day": "as the price of an hour",
    "--finetune": "a question of its own that builds nothing",
    "--sequence": "with --finetune",
    "--batch": "with --finetune",
    "--gpus": "with --finetune",
}
"""Flags that have no control, and why."""


def options_of(name: str) -> set[str]:
    command = command_line.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    found = {
        text
        for one in command.params
        if isinstance(one, click.Option)
        for text in one.opts
        if text.startswith("--")
    }
    # The other names of --parallel and --language.
    return found - {"--concurrent-users", "--languages"}


def test_every_flag_of_a_build_and_of_a_fit_has_its_control_or_a_reason_why_it_has_none() -> None:
    known = {**NeedScreen.CONTROLS, **OptionsScreen.CONTROLS}
    flagged = options_of("build") | options_of("fit")
    assert flagged - set(known) - set(ELSEWHERE) == set(WITHOUT) - {"--help"}
    assert set(known) <= flagged and set(ELSEWHERE) <= flagged
    assert not set(known) & set(WITHOUT) and not set(ELSEWHERE) & set(WITHOUT)

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        for selector, _ in NeedScreen.CONTROLS.values():
            assert not selector or need.query_one(selector).focusable or selector in HIDDEN
        await pilot.press("o")
        options = await screen(pilot, OptionsScreen)
        for selector, _ in OptionsScreen.CONTROLS.values():
            assert options.query_one(selector).focusable
        for make, selector in ELSEWHERE.values():
            if make is not ResultScreen:
                pilot.app.push_screen(make())
                await pilot.pause()
                assert pilot.app.screen.query_one(selector)
                pilot.app.pop_screen()

    drive(walk, data.services())


HIDDEN = {
    "#hub-file",
    "#limit-dimension",
    "#limit-documents_per_second",
    "#limit-query_ms",
    "#limit-max_audio_seconds",
    "#limit-max_image_tokens",
    "#weights-folder",
}
"""Controls of what something else has to be chosen for first."""


def samples(folder: Path) -> dict[str, str]:
    """A text for every line of the options."""
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(60))
    (folder / "t.txt").write_text("Read this. " * 200)
    return {
        "parallel": "4",
        "max-file-size": "1500M",
        "license": "apache-2.0, any",
        "min-score": "IFEval=60, mmlu-redux=40.5",
        "modality": "vision",
        "revision": "v1",
        "offline": YES,
        "against": "Qwen/Qwen3-0.6B",
        "tokenizer": str(folder),
        "imatrix": str(folder / "m.gguf"),
        "calibration": "",
        "tensor-type": "attn_v=Q8_0 ffn_down=Q6_K",
        "repack": "",
        "adapter-inputs": "",
        "sustained": "30 s",
        "quality-text": str(folder / "t.txt"),
        "quality-tokens": "1,000",
        "allow-quality-loss": YES,
        "package-version": "1.4.0",
    }


def test_the_command_shown_says_every_option_as_the_screen_does(tmp_path: Path) -> None:
    texts = samples(tmp_path)
    ask = written(data.ASK, texts)
    said = parsed(build_command(ask, data.CHOSEN))
    assert workload_from(said, ask.target) == ask.workload()
    assert ask.workload().modality == ("text", "image") and ask.workload().parallel == 4
    assert additions_from(said) == ask.options.additions()
    own = ask.options
    names = ("revision", "offline", "against", "tokenizer", "quality_tokens", "version")
    assert {name: said[name] for name in names} == {name: getattr(own, name) for name in names}
    assert (said["sustained"], said["allow_quality_loss"]) == (30, True)
    assert own.gate().file == said["quality_text"] and own.gate().allow_loss
    # What was written reads as it was meant, and reading it again changes nothing.
    read = {option.name: option.read(ask) for option in OPTIONS}
    assert written(data.ASK, read) == ask
    assert read["min-score"] == "IFEval=60, MMLU-Redux=40.5"
    assert cleared(ask) == data.ASK and flags(data.ASK) == []
    other = dict.fromkeys(texts, "") | {"calibration": texts["quality-text"]}
    assert "--calibration" in flags(written(data.ASK, other))
    assert flags(written(data.ASK, dict.fromkeys(texts, "") | {"repack": YES})) == ["--repack"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("parallel", "0", "not a whole number from 1 to 4,096"),
        ("parallel", "½", "not a whole number"),
        ("parallel", "²", "not a whole number"),
        ("parallel", "9" * 5000, "not a whole number"),
        ("max-file-size", "big", "not a valid size"),
        ("license", "apach-2.0", "There is no licence 'apach-2.0'"),
        ("min-score", "IFEval", "not BENCHMARK=SCORE"),
        ("min-score", "IFEval=nan", "not BENCHMARK=SCORE"),
        ("min-score", "Nobody=3", "There is no benchmark"),
        ("modality", "smell", "There is no input 'smell'"),
        ("tokenizer", "/nowhere", "There is no folder"),
        ("imatrix", "/nowhere", "There is no file"),
        ("sustained", "inf", "not a number of seconds"),
        ("package-version", "one", "version"),
    ],
)
def test_a_line_that_is_none_is_named_with_a_sentence(name: str, text: str, said: str) -> None:
    texts = {option.name: "" for option in OPTIONS} | {name: text}
    with pytest.raises(WrongOption, match=said) as caught:
        written(data.ASK, texts)
    assert caught.value.name == name


def test_what_is_not_an_importance_matrix_or_contradicts_another_line_is_refused(
    tmp_path: Path,
) -> None:
    texts = samples(tmp_path)
    for wrong in ({"repack": YES}, {"imatrix": texts["quality-text"]}):
        with pytest.raises(PackError):
            written(data.ASK, texts | wrong)


def test_options_are_typed_refused_once_kept_and_shown_in_the_need(tmp_path: Path) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        assert "Options (o)  all as usual" in text_of(pilot)
        await pilot.press("o")
        options = await screen(pilot, OptionsScreen)
        await pilot.press("tab")
        assert "Largest single file of the model" in text_of(pilot)
        await pilot.press("shift+tab", *"4x", "enter")
        problem = options.query_one(Problem)
        assert "'4x' is not a whole number" in problem.text and pilot.app.screen is options
        assert pilot.app.focused is options.query_one("#parallel")
        await pilot.press("backspace")
        options.query_one("#repack", Slider).focus()
        await pilot.press("space", "escape")
        await screen(pilot, NeedScreen)
        assert need.ask.wish.parallel == 4 and need.ask.options.repack
        assert "--parallel 4 --repack" in text_of(pilot)
        # A wrong line that is left twice is forgotten, with the others of that visit.
        await pilot.press("o")
        options = await screen(pilot, OptionsScreen)
        options.query_one("#license", Input).value = "nobody's"
        await pilot.press("escape", "escape")
        assert (
            pilot.app.screen is options and "There is no licence" in options.query_one(Problem).text
        )
        await pilot.press("escape", "escape")
        await screen(pilot, NeedScreen)
        assert need.ask.wish.licenses is None and need.ask.wish.parallel == 4
        await pilot.press("r")
        assert need.ask == data.ASK and "all as usual" in text_of(pilot)

    drive(walk, data.services(folder=tmp_path), size=(120, 40))


def test_sources_and_starts_are_in_the_plan_and_in_its_command(
    tmp_path: Path, own_cache: Path
) -> None:
    path = build(REPOSITORY / "tests" / "models" / "tiny-qwen3", tmp_path / "tiny.gguf", "Q8_0")
    given = real_services(tmp_path)
    target = given.read_target("cpu-gguf")
    there = Ask(target, weights="modelscope", profile=DeploymentProfile(warm=True)).wishing(
        context=256
    )
    # Where everything is asked for that a GGUF has no part in, the core refuses as it would later.
    taken = FileOfHub("some/GGUF", "tiny.gguf", HubFile(path, "some/GGUF", "a" * 40, "mit", None))
    ask = Ask(target, hub_file=taken).wishing(context=256)
    found = core.find(given, ask)
    assert [one.recipe.id for one in found.candidates] == ["gguf:Q8_0"]
    assert found.chosen is not None
    plan = core.plan(given, ask, found.chosen, None)
    assert plan.recognised is not None and plan.recognised.origin == taken.file
    said = parsed(build_command(ask, found.chosen))
    assert (said["model"], said["hub_file"], said["weights"]) == ("some/GGUF", "tiny.gguf", "hub")
    with pytest.raises(PackError, match="--lora goes into a conversion"):
        core.find(given, replace(ask, lora=("style",)))
    with pytest.raises(PackError, match="--tokenizer is for a model that was converted"):
        core.find(given, replace(there, options=replace(there.options, tokenizer=str(tmp_path))))
    found = core.find(given, there)
    assert found.chosen is not None
    drafted = replace(there.profile, speculate="lookup")
    plan = core.plan(given, replace(there, profile=drafted), found.chosen, None)
    assert (plan.source.kind, plan.warm, plan.speculate) == ("modelscope", True, ("lookup",))
    words = parsed(build_command(replace(there, profile=drafted), found.chosen))
    assert (words["weights"], words["warm"], words["speculate"]) == ("modelscope", True, "lookup")


def test_the_plan_offers_the_models_that_can_draft_and_counts_what_they_take() -> None:
    draft = Proposal(data.CHOSEN, Drafting(weights=400_000_000, kv_cache=50_000_000), 0.3)
    value = f"draft:{data.CHOSEN.variant.name}"

    def planned(_: Any, ask: Ask, *more: Any) -> Plan:
        if ask.profile.speculate != value:
            return data.PLAN
        prints = replace(data.CHOSEN.footprint, drafting=draft.drafting)
        return replace(data.PLAN, chosen=replace(data.CHOSEN, footprint=prints))

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        choice = plan.query_one("#plan-draft", Slider)
        await until(pilot, lambda: choice.display, "the line with the drafts")
        assert "drafting" not in text_of(pilot)
        choice.focus()
        await pilot.press("end")
        await until(pilot, lambda: "drafting" in text_of(pilot), "what the draft takes")
        assert choice.value == value and f"--speculate {value}" in plan.command
        assert "450 MB" in choice.text
        await pilot.press("home")
        await until(pilot, lambda: "drafting" not in text_of(pilot), "the plan without")
        assert "--speculate" not in plan.command
        # Back in the need, the choice stands as it was made.
        asked = replace(data.ASK, profile=replace(data.ASK.profile, speculate=value))
        pilot.app.push_screen(NeedScreen(asked))
        need = await screen(pilot, NeedScreen)
        assert need.query_one("#speculate", Slider).value == value

    outlook = replace(data.OUTLOOK, drafts=(draft,))
    drive(walk, data.services(plan=planned, outlook=lambda *_: outlook))


def test_what_is_added_to_a_recipe_is_in_the_table_and_the_recipe_is_named_without_it(
    tmp_path: Path, own_cache: Path
) -> None:
    given = real_services(tmp_path)
    options = replace(
        data.ASK.options, tensor_types=("attn_v=Q8_0",), sustained_s=5, version="2.0.0"
    )
    # One checkpoint: the tensors of every recipe are looked at one by one.
    folder = write_tiny(tmp_path / "mine")
    ask = Ask(given.read_target("cpu-gguf"), weights=str(folder), options=options)
    ask = ask.wishing(context=256)
    found = core.find(given, ask)
    assert found.candidates and all(one.recipe.marks for one in found.candidates)
    other = next(one for one in found.candidates if one.passes and one is not found.chosen)
    plan = core.plan(given, ask, other, None)
    assert plan.chosen.recipe.id == other.recipe.id
    assert (plan.sustained_s, plan.version) == (5, "2.0.0")
    said = parsed(build_command(ask, other))
    assert said["recipes"] == (f"gguf:{other.recipe.weights}",)
    assert said["tensor_type"] == ("attn_v=Q8_0",)
    # The size of groups is that of the checkpoint, as it is in the plan.
    told = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    write_quantized(folder, tmp_path / "packed", gptq(4, 32), told)
    taken = replace(data.ASK.options, repack=True)
    ask = replace(ask, weights=str(tmp_path / "packed"), options=taken)
    groups = [one.recipe.settings["repack_group"] for one in core.find(given, ask).candidates]
    assert set(groups) == {32}


def test_a_file_of_the_hub_is_fetched_on_the_way_on_once_and_can_be_cancelled() -> None:
    asked: list[tuple[Any, ...]] = []
    ends: list[str] = []
    file = HubFile(Path("/cache/m.gguf"), "a/b", "c" * 40, None, None)

    def hub_file(*given: Any) -> Generator[object, None, HubFile]:
        asked.append(given)
        try:
            if len(asked) == 1:
                yield Progress(10**6, 4 * 10**6, "B")
                while True:
                    time.sleep(0.005)
                    yield Resident(10**6)
            if len(asked) == 2:
                raise unreachable("a/b has no file m.gguf.", "Check --hub-file NAME.")
        finally:
            ends.append("closed")
        return file

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        need.query_one("#weights", Slider).focus()
        await pilot.press("home", "l", "l", "tab", *"a/b", "enter")
        problem = need.query_one("#need-problem", Problem)
        assert "which is not a .gguf file" in problem.text
        assert pilot.app.focused is need.query_one("#hub-file")
        await pilot.press(*"m.gguf", "enter")
        await screen(pilot, FetchScreen)
        await until(pilot, lambda: "1.00 MB of 4.00 MB" in text_of(pilot), "how far it is")
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is need, "the need")
        assert ends == ["closed"] and not problem.text
        await pilot.press("enter")
        await until(pilot, lambda: "has no file m.gguf" in problem.text, "the refusal")
        assert "--" not in problem.text
        await pilot.press("enter")
        table = await screen(pilot, CandidatesScreen)
        assert table.ask.hub_file == FileOfHub("a/b", "m.gguf", file)
        await pilot.press("escape")
        await settled(pilot)
        need.query_one("#use-cases").focus()
        await pilot.press("n")
        await screen(pilot, CandidatesScreen)
        assert asked == [("a/b", "m.gguf", None, False)] * 3
        # Another revision is another file.
        await pilot.press("escape", "o")
        options = await screen(pilot, OptionsScreen)
        options.query_one("#revision", Input).value = "v2"
        await pilot.press("enter")
        await screen(pilot, NeedScreen)
        await pilot.press("n")
        last = await screen(pilot, CandidatesScreen)
        assert asked[-1] == ("a/b", "m.gguf", "v2", False)
        assert "--revision v2" in build_command(last.ask, data.CHOSEN)

    drive(walk, data.services(hub_file=hub_file))


def test_sound_that_comes_in_is_said_and_its_length_is_asked() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(NeedScreen(data.ASK))
        need = await screen(pilot, NeedScreen)
        length = need.query_one("#limit-max_audio_seconds", Slider)
        seen = [bool(length.display)]
        await pilot.press(*"jjjjjjjjjj")
        seen.append(bool(length.display))
        assert need.ask.wish.use_case == "audio" and seen == [False, True]
        assert "Sound comes in, up to 30 s at once" in str(
            need.query_one("#why-text", Static).content
        )
        length.focus()
        await pilot.press(*"120", "enter")
        assert need.ask.workload().max_audio_seconds == 120
        assert parsed(build_command(need.ask, data.CHOSEN))["max_audio_seconds"] == 120
        need.query_one("#use-cases").focus()
        await pilot.press("g")
        assert need.ask.wish.max_audio_seconds is None

    drive(walk, data.services())


def test_an_adapter_is_asked_for_checked_and_built_for_the_package_on_the_screen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []
    plan = SimpleNamespace(name="base-style-adapter", out=tmp_path / "base-style-adapter")

    def adapter_plan(_: object, *given: Any) -> Any:
        asked.append(given)
        if len(asked) == 1:
            raise unreachable("The hub does not answer.", "Write --adapter DIR.")
        return plan

    def made(given: object) -> Generator[Event, None, Package]:
        assert given is plan
        yield from ()
        return data.package()

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(ResultScreen(data.package()))
        result = await screen(pilot, ResultScreen)
        await pilot.press("a")
        await screen(pilot, AdapterScreen)
        await pilot.press("enter")
        assert "Enter an adapter" in text_of(pilot)
        await pilot.press(*"Qwen/style", "tab", *"/nowhere", "enter")
        assert "There is no folder '/nowhere'" in text_of(pilot)
        await pilot.press(*["backspace"] * 8, "enter")
        problem = result.query_one(Problem)
        await until(pilot, lambda: "does not answer" in problem.text, "the refusal")
        # The next question begins where the last one ended.
        await pilot.press("a")
        await screen(pilot, AdapterScreen)
        await pilot.press("enter")
        # The build goes on to its result by itself.
        await until(pilot, lambda: len(pilot.app.screen_stack) > 3, "the build and its result")
        steps = [one for one in pilot.app.screen_stack if isinstance(one, BuildScreen)]
        assert [stage.name for stage in steps[0].progress.stages] == [
            *("fetch", "convert", "quality", "package")
        ]
        assert steps[0].command.startswith("qwen-pack build --adapter Qwen/style --base /")
        assert asked == [(data.package().path, "Qwen/style", None)] * 2
        assert result.pack.measuring == ""

    drive(walk, data.services(adapter_plan=adapter_plan, build=made, expected=lambda _: {}))

    # The pipeline of adapters takes what is one.
    monkeypatch.setattr(adapter_package, "run", lambda plan: iter([plan]))
    parts: Any = dict.fromkeys(("base", "known", "runtime", "source", "shape", "out", "gate"), None)
    real = adapter_package.AdapterPlan(**parts)
    built: Any = core.build(real)
    assert next(built) is real
    assert core.expected(real) == {}
