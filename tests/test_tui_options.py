"""Every flag of a build has its place on the screens, and the command that they show says what
stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from textual.pilot import Pilot

from packager.cli import app as command_line
from packager.cli.additions import additions_from
from packager.cli.options import workload_from
from packager.errors import PackError
from tests.support import tui_data as data
from tests.support.tui_helpers import drive, parsed, screen
from tui.ask import build_command
from tui.options import OPTIONS, YES, WrongOption, cleared, flags, written
from tui.screens.adapter import AdapterScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.need import NeedScreen
from tui.screens.options import OptionsScreen
from tui.screens.plan import PlanScreen
from tui.screens.reach import ReachScreen
from tui.screens.result import ResultScreen

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


@pytest.mark.slow
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
