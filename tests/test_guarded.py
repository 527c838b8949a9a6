"""Guarded: a runtime of another distribution that fails in its forecasts is named, and leaves the
others their answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager import catalog
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.need.workload import workload_for
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.runtime import HoldsBack, Retrieves, Runtime
from packager.select import candidates, choose
from targets import registry
from targets.guarded import guarded
from tests.support.plain_runtime import PLAIN, PlainRuntime, target

WHOSE = "the runtime 'theirs' (third_party:Adapter)"
SHAPE = catalog.find("Qwen3-0.6B").shape
RECIPE = PLAIN.recipes()[0]


def failing(method: str, answer: Any) -> Runtime:
    """A plug-in of which one method raises the answer, or gives it."""

    def told(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    adapter = PlainRuntime("theirs", "theirs")
    setattr(adapter, method, told)
    return guarded(adapter, WHOSE)


FORECASTS = (
    "obstacle",
    "artifact_bytes",
    "footprint",
    "decode_bytes",
    "speed",
)


@pytest.mark.parametrize("method", FORECASTS)
def test_a_forecast_that_raises_is_an_obstacle_of_that_runtime_and_the_others_still_answer(
    method: str,
) -> None:
    broken = failing(method, KeyError("a table is missing"))
    judged = candidates(
        target(runtimes=("theirs", "plain")),
        workload_for("chat"),
        [catalog.find("Qwen3-0.6B")],
        [broken, PLAIN],
        every=True,
    )
    chosen = choose(judged)
    assert chosen is not None and chosen.runtime == "plain"
    theirs = [one for one in judged if one.runtime == "theirs"]
    assert theirs and not any(one.passes for one in theirs)
    assert str(theirs[0].reasons[0].has) == (
        "The runtime 'theirs' (third_party:Adapter) "
        f"fails in {method}(): KeyError: 'a table is missing'"
    )


@pytest.mark.parametrize(
    ("method", "answer", "says"),
    [
        ("footprint", 10**9, "1000000000, which is not a valid Footprint"),
        (
            "footprint",
            Footprint(math.nan, 0, 0, 0),
            "weights = nan, which is not a valid number of bytes",
        ),
        (
            "footprint",
            Footprint(1, -1, 0, 0),
            "kv_cache = -1, which is not a valid number of bytes",
        ),
        ("artifact_bytes", math.nan, "nan, which is not a valid int"),
        ("artifact_bytes", -5, "-5, which is not a valid number of bytes"),
        ("decode_bytes", None, "None, which is not a valid int"),
        ("speed", 1.0, "1.0, which is not a valid Speed"),
        ("speed", Speed(bandwidth=math.inf), "bandwidth = inf, which is not a valid factor"),
        ("obstacle", False, "False, which is not a valid str or NoneType"),
    ],
)
def test_an_answer_against_the_contract_is_refused_before_limits_are_compared_with_it(
    method: str, answer: Any, says: str
) -> None:
    judged = candidates(
        target(runtimes=("theirs",)),
        workload_for("chat"),
        [catalog.find("Qwen3-0.6B")],
        [failing(method, answer)],
        every=True,
    )
    assert choose(judged) is None
    assert f"answers {method}() with {says}" in str(judged[0].reasons[0].has)


def test_a_list_of_recipes_that_raises_or_holds_something_else_names_the_plug_in() -> None:
    for answer, says in (
        (ZeroDivisionError("division by zero"), "fails in recipes(): ZeroDivisionError"),
        (["b16"], "'b16' among them, which is not a valid Recipe"),
    ):
        with pytest.raises(PackError, match="The runtime 'theirs'") as failure:
            failing("recipes", answer).recipes()
        assert says in failure.value.message and failure.value.exit_code == ExitCode.USAGE
        assert "QWEN_PACK_PLUGINS=0" in failure.value.hint


def test_what_a_runtime_fails_to_say_of_holding_back_puts_its_recipe_behind_the_others() -> None:
    broken = failing("held_back", RuntimeError("no table"))
    judged = candidates(
        target(runtimes=("theirs", "plain")),
        workload_for("chat"),
        [catalog.find("Qwen3-0.6B")],
        [broken, PLAIN],
        every=True,
    )
    chosen = choose(judged)
    assert chosen is not None and chosen.runtime == "plain"
    held = next(one for one in judged if one.runtime == "theirs")
    assert any("fails in held_back(): RuntimeError: no table" in note for note in held.notes)


def test_a_guarded_runtime_is_what_it_was_and_its_own_errors_pass() -> None:
    adapter = PlainRuntime("theirs", "theirs")
    seen = guarded(adapter, WHOSE)
    assert isinstance(seen, Runtime)
    assert not isinstance(seen, Retrieves) and not isinstance(seen, HoldsBack)
    assert (seen.name, seen.extra, seen.build_job) == ("theirs", "plain", adapter.build_job)
    assert SHAPE is not None
    assert seen.footprint(SHAPE, RECIPE, 512) == adapter.footprint(SHAPE, RECIPE, 512)
    with pytest.raises(PackError, match="theirs has no recipe 'b3'"):
        seen.recipe("b3")


@pytest.fixture
def broken_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plug-in on the path, as an installer leaves it, whose footprint divides by zero."""
    information = tmp_path / "third_party-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\ntheirs = third_party_dividing:Adapter\n"
    )
    (tmp_path / "third_party_dividing.py").write_text(
        "from tests.support.plain_runtime import PlainRuntime\n"
        "class Adapter(PlainRuntime):\n"
        "    def __init__(self):\n"
        "        super().__init__('theirs', 'theirs')\n"
        "    def footprint(self, shape, recipe, context):\n"
        "        return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(registry.PLUG_INS)
    registry._entry_points.cache_clear()
    registry.runtime.cache_clear()
    yield
    monkeypatch.undo()
    registry._entry_points.cache_clear()
    registry.runtime.cache_clear()


@pytest.mark.usefixtures("broken_plug_in")
def test_fit_answers_with_the_other_runtimes_and_lists_the_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (registry.DEVICES / "laptop-cpu.toml").read_text(encoding="utf-8")
    assert text.count('runtimes = ["') == 1
    device = tmp_path / "mine.toml"
    device.write_text(text.replace('runtimes = ["', 'runtimes = ["theirs", "'), encoding="utf-8")
    words = ["fit", "--target", str(device), "--model", "Qwen3-0.6B", "--all", "--json"]
    assert main(words) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"]["runtime"] == "openvino"
    theirs = [one for one in found["candidates"] if one["runtime"] == "theirs"]
    assert "fails in footprint(): ZeroDivisionError" in theirs[0]["reasons"][0]["has"]
