"""When a build will end: foretold from the plan, corrected by what its stages take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from packager.events import StageFinished, StageNote, StageProgress, StageStarted
from packager.pipeline.run import STAGES
from packager.sources import Source
from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, settled, text_of
from tui import core
from tui.progress import Left, Progress, advance, before, roughly
from tui.screens.build import BuildScreen

EXPECTED = {"fetch": 0.0, "convert": 20.0, "measure": 80.0, "quality": 60.0, "package": 0.0}


def began(stage: str, at: float, progress: Progress) -> Progress:
    return advance(progress, StageStarted(stage, STAGES[stage], 1, 5), at)


def test_the_end_of_a_build_is_foretold_from_the_plan_and_follows_the_pace_of_its_stages() -> None:
    build = began("convert", 100.0, before(STAGES, {**EXPECTED}))
    build = advance(build, StageFinished("fetch", 3.0, True, "in the cache"), 100.0)
    assert build.left(100.0) == Left(160.0)
    fetching = began("fetch", 90.0, before(STAGES, EXPECTED))
    assert fetching.left(95.0) == Left(160.0), "what takes next to nothing is not late"
    assert build.left(110.0) == Left(150.0), "what is done of the running stage is not left"
    halfway = advance(build, StageProgress("convert", 1, 2), 120.0)
    assert halfway.left(120.0) == Left(20.0 + 2 * 140.0), "twice as slow as foretold"
    late = build.left(130.0)
    assert late is not None and late.at_least and "at least" in str(late)
    slow = began("measure", 140.0, advance(build, StageFinished("convert", 40.0, False, ""), 140.0))
    assert slow.left(140.0) == Left(2 * 140.0)


def test_without_knowledge_nothing_is_foretold() -> None:
    from_the_hub = {name: value for name, value in EXPECTED.items() if name != "fetch"}
    build = began("fetch", 0.0, before(STAGES, from_the_hub))
    assert build.left(10.0) is None
    assert advance(build, StageProgress("fetch", 1, 2), 10.0).left(10.0) == Left(10.0 + 160.0)
    assert began("convert", 0.0, before(STAGES)).left(1.0) is None
    assert before(STAGES, EXPECTED).left(0.0) is None, "nothing runs yet"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2, "5 s"),
        (23, "25 s"),
        (61, "1 min"),
        (3500, "58 min"),
        (3700, "1 h"),
        (4900, "1 h 20 min"),
    ],
)
def test_what_is_foretold_is_no_finer_than_it_is_known(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_a_plan_foretells_every_stage_that_is_known_before_it_is_run() -> None:
    known = core.expected(data.PLAN)
    assert set(known) == set(STAGES) - {"fetch"}, "nobody knows how fast the line is"
    random = core.expected(replace(data.PLAN, source=Source("dummy", "x", None, "x")))
    assert random["quality"] < known["quality"] and random["fetch"] == 0.0


def test_a_build_shows_what_it_took_in_all_and_when_all_of_it_is_over() -> None:
    running = advance(before(STAGES, EXPECTED), StageFinished("fetch", 0.4, True, ""), 980.0)
    running = began("convert", 990.0, running)
    running = advance(running, StageNote("convert", "loading"), 990.0)

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(BuildScreen(data.PLAN, "qwen-pack build", running))
        await screen(pilot, BuildScreen)
        await settled(pilot)
        assert "10.0 s so far, about 2 min left" in text_of(pilot)
        assert "~ 1 min" in text_of(pilot), "a stage that waits says what it will take"

    drive(walk, data.services())
