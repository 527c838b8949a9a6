"""The headless half of the terminal interface: asks, commands, progress, figures, settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli.options import workload_from
from packager.errors import PackError
from packager.events import (
    AlternativeFinished,
    AlternativeStarted,
    Compared,
    StageFailed,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.need.workload import PREFERENCES
from packager.package import shelf
from packager.package.manifest import read as read_manifest
from packager.records import Machine
from packager.report.compare import rows as compared
from packager.select import candidates
from packager.select.cache_type import with_cache_type
from targets import registry
from tests.support import tui_data as data
from tests.support.contents import contents_of
from tests.support.make_package import write_package
from tests.support.tui_helpers import parsed
from tui import describe, explain, figures
from tui.ask import Ask, Wish, build_command
from tui.bindings import all_ids, all_keys
from tui.points import Point, Scatter, of_candidates
from tui.progress import advance, before, stopped
from tui.settings import Settings
from tui.settings import read as read_settings

pytestmark = pytest.mark.slow

STAGES = {"fetch": "Get the weights", "convert": "Convert"}
WISHES = st.builds(
    Wish,
    use_case=st.none() | st.sampled_from(["chat", "code", "retrieval"]),
    context=st.none() | st.sampled_from([1024, 4096, 32768]),
    prompt=st.none() | st.integers(1, 500),
    min_decode_tps=st.none() | st.sampled_from([0, 0.5, 6, 33.3]),
    max_ttft_ms=st.none() | st.sampled_from([250.0, 10000.0, 600000.0]),
    max_artifact_bytes=st.none() | st.integers(10**6, 64 * 10**12),
    max_memory_bytes=st.none() | st.integers(10**6, 64 * 10**12),
    prefer=st.none() | st.sampled_from(PREFERENCES),
)


@given(WISHES)
def test_the_command_shown_asks_for_exactly_the_workload_on_the_screen(wish: Wish) -> None:
    ask = Ask(registry.target("laptop-cpu"), wish)
    flags = parsed(build_command(ask, data.CHOSEN))
    assert flags["target"] == "laptop-cpu"
    assert workload_from(flags, ask.target) == ask.workload()


def test_the_command_names_a_choice_only_where_it_is_not_the_tools_own() -> None:
    other = data.CANDIDATES[1]
    assert build_command(data.ASK, data.CHOSEN) == "qwen-pack build --target laptop-cpu"
    assert (
        build_command(data.ASK, other)
        == f"qwen-pack build --target laptop-cpu --model {other.variant.name} --recipe "
        f"{other.recipe.id}"
    )
    assert "--recipe" in build_command(replace(data.ASK, kv="u8"), data.CHOSEN)
    assert "--model" not in build_command(replace(data.ASK, weights="/my model"), other)
    assert "--weights '/my model'" in build_command(replace(data.ASK, weights="/my model"), other)
    assert build_command(Ask(data.HERE), data.CHOSEN).endswith(
        "--target /home/me/.cache/qwen-pack/this-machine.toml"
    )


def test_budgets_that_were_set_by_hand_are_enforced() -> None:
    assert Wish().enforced() == frozenset()
    assert Wish(min_decode_tps=3, max_ttft_ms=900).enforced() == {"decode", "ttft"}


def test_a_build_is_read_from_its_events_alone() -> None:
    build = before(STAGES)
    assert [stage.status for stage in build.stages] == ["waiting", "waiting"]
    build = advance(build, StageStarted("fetch", "Get the weights", 1, 2), 5.0)
    build = advance(build, StageProgress("fetch", 250, 1000), 6.0)
    build = advance(build, StageMemory("fetch", 77), 6.5)
    running = build.running
    assert (
        running is not None
        and running.share == 0.25
        and running.amount() == "250 B of 1.00 kB"
        and running.time(7.0) == "2.0 s"
    )
    assert advance(build, StageMemory("fetch", 0), 6.6).memory == build.memory == (77,)
    build = advance(build, StageFinished("fetch", 2.5, True, "1 kB"), 7.5)
    assert (
        build.running is None
        and build.stages[0].share == 1.0
        and build.stages[0].time(99) == "cached"
    )
    build = advance(build, StageNote("convert", "hm"), 8.0)
    build = advance(build, StageFailed("convert", "It broke.", "Mend it.", 6), 9.0)
    assert (
        build.state == "failed" and build.failure is not None and build.failure.hint == "Mend it."
    )
    assert build.lines == ("[1/2] Get the weights", "hm", "failed: It broke.")


def test_of_several_recipes_each_begins_with_waiting_rows_and_a_failed_one_ends_nothing() -> None:
    build = advance(before(STAGES), AlternativeStarted("llama.cpp", "gguf:Q8_0", 1, 2), 0.0)
    build = advance(build, StageStarted("fetch", "Get the weights", 1, 2), 5.0)
    build = advance(build, StageFailed("fetch", "It broke.", "Mend it.", 6, fatal=False), 9.0)
    assert build.state == "running" and build.failure is None and build.stages[0].status == "failed"
    build = advance(
        build, AlternativeFinished("llama.cpp", "gguf:Q8_0", "not built: It broke."), 9.0
    )
    build = advance(build, AlternativeStarted("openvino", "openvino:int8_asym", 2, 2), 9.0)
    assert [stage.status for stage in build.stages] == ["waiting", "waiting"]
    build = advance(build, Compared("openvino:int8_asym", "the only one that was built"), 9.5)
    assert build.lines[-1] == "kept: openvino:int8_asym, the only one that was built"


def test_what_the_device_has_not_judged_is_open_and_what_was_not_measured_says_why(
    tmp_path: Path,
) -> None:
    row = {
        "rule": "decode",
        "limit": 6.0,
        "unit": "tok/s",
        "enforced": True,
        "measured": None,
        "passed": None,
    }
    data = contents_of(verdicts=[row], measured=None, not_measured="There is no CUDA.")
    assert figures.verdicts(data) == [
        (None, "decode: at least 6.0 tok/s, not yet measured on the device")
    ]
    assert figures.budgets(data) == "○ 1 open"
    assert figures.provenance(data) == "not yet measured on the device: There is no CUDA."
    there = {
        "decode_tps": 9.0,
        "place": {"on_device": True, "why": "it is"},
        "measured_at": "2026-11-21",
        "machine": {"processor": "A76"},
    }
    elsewhere = {**there, "decode_tps": 90.0, "place": {"on_device": False, "why": "it is not"}}
    assert "not yet measured on the device" in figures.provenance(contents_of(measured=elsewhere))
    shown = figures.figures(contents_of(measured=elsewhere, measurements=[elsewhere, there]))
    assert [one.measured for one in shown if one.label == "decode"] == ["9.0 tok/s"]


def test_a_cancelled_build_marks_the_stage_that_ran() -> None:
    build = stopped(
        advance(before(STAGES), StageStarted("fetch", "Get the weights", 1, 2), 5.0), None, 8.0
    )
    assert [stage.status for stage in build.stages] == ["cancelled", "waiting"]
    assert not build.busy


def test_the_pareto_front_holds_what_nothing_beats_on_all_three_axes() -> None:
    best, slow, larger, same, worse = (
        Point("best", 1e9, 50, 60),
        Point("slow and better", 1e9, 20, 70),
        Point("larger and better", 3e9, 20, 80),
        Point("same as best", 1e9, 50, 60),
        Point("worse", 2e9, 40, 55),
    )
    front = Scatter("", "predicted", (best, slow, larger, same, worse)).front()
    assert [point.label for point in front.values()] == [
        "best",
        "slow and better",
        "larger and better",
    ]
    assert list(front) == ["A", "B", "C"]


def test_what_is_held_back_for_a_task_is_on_no_front_and_counted() -> None:
    held = Point("smallest", 1e9, 50, 60, held=True)
    scatter = Scatter("", "predicted", (held, Point("larger", 2e9, 40, 60)))
    assert [point.label for point in scatter.front().values()] == ["larger"]
    assert (scatter.held, scatter.coarse) == (1, 0)


def test_points_of_candidates_are_those_that_fit_with_the_limits_they_were_held_to() -> None:
    scatter = of_candidates(data.FOUND)
    assert len(scatter.points) == sum(one.passes for one in data.CANDIDATES)
    assert scatter.memory_limit == data.LAPTOP.device.available_bytes
    assert scatter.speed_floor == 6.0


def test_figures_stand_beside_their_prediction_with_the_distance() -> None:
    by_label = {row.label: row for row in figures.figures(data.package().contents)}
    assert by_label["decode"].off == "+5 %"
    assert by_label["load"].predicted == "" and by_label["load"].measured == "1.4 s"
    assert len(figures.token_times(data.package().contents)) == 3
    assert figures.token_times(data.package(tokens=False).contents) == []


def test_a_manifest_that_says_little_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    found = read_manifest(write_package(tmp_path / "p")).contents
    assert figures.figures(found) == [] and figures.verdicts(found) == []
    assert figures.provenance(found) == "not measured"


def test_only_figures_of_one_machine_are_ranked() -> None:
    first, second = (package.contents for package in data.SHELF[:2])
    assert {row.label: row.best for row in compared([first, second])}["decode"] == 0
    assert second.measured is not None
    another = second.measured.but(machine=Machine(processor="another"))
    elsewhere = second.but(measured=another)
    ranked = {row.label: row.best for row in compared([first, elsewhere])}
    assert ranked["decode"] is None and ranked["model files"] == 0


def test_another_cache_type_reaches_every_recipe_and_none_at_all_is_refused() -> None:
    runtimes = with_cache_type(registry.runtimes(), "q8_0")
    assert all(recipe.kv == "q8_0" for runtime in runtimes for recipe in runtime.recipes())
    target = registry.target("cpu-gguf")
    found = candidates(target, Ask(target).workload(), _one(), runtimes, named=True, every=True)
    assert found and all(one.recipe.kv == "q8_0" for one in found)
    with pytest.raises(PackError, match="q17"):
        with_cache_type(registry.runtimes(), "q17")


def _one() -> tuple[Any, ...]:
    from packager import catalog

    return (catalog.find("Qwen3-0.6B"),)


def test_the_shelf_finds_packages_in_a_folder_and_those_built_elsewhere(tmp_path: Path) -> None:
    here, elsewhere = (
        write_package(tmp_path / "here" / "a"),
        write_package(tmp_path / "there" / "b"),
    )
    (tmp_path / "here" / "photos").mkdir()
    shelf.remember(elsewhere)
    shelf.remember(elsewhere)
    assert [one.path for one in shelf.find(tmp_path / "here")] == [elsewhere, here]
    shelf.delete(elsewhere)
    assert [one.path for one in shelf.find(tmp_path / "here")] == [here]


def test_a_package_with_a_strangers_file_is_not_deleted(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")
    (package / "notes.txt").write_text("mine")
    with pytest.raises(PackError, match=r"notes\.txt"):
        shelf.delete(package)
    assert (package / "manifest.json").is_file() and (package / "notes.txt").read_text() == "mine"


def test_every_limit_has_steps_that_hold_its_own_value_and_a_reason() -> None:
    base = Ask(registry.target("laptop-cpu")).workload()
    for field in (
        "context",
        "prompt",
        "min_decode_tps",
        "max_ttft_ms",
        "max_artifact_bytes",
        "max_memory_bytes",
        "prefer",
    ):
        value = getattr(base, field)
        assert value in [step for step, _ in describe.steps(field, value)]
        assert len(describe.reason(field, base)) > 20


def test_memory_of_a_device_is_divided_without_a_rest() -> None:
    for target in registry.targets():
        total = sum(size for _, size in describe.memory_parts(target))
        gpus = (target.device.gpu_memory_bytes or 0) * target.device.gpus
        assert total in (target.device.memory_bytes, gpus)


def test_settings_are_read_and_mistakes_in_them_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    assert read_settings(path, (), ()) == Settings()
    path.write_text(
        'theme = "nord"\n[keys]\n"build.cancel" = "f9"\n"build.cancle" = "f8"\n"plan.build" = 3\n'
    )
    found = read_settings(path, all_ids(), ("nord",))
    assert found.theme == "nord" and found.keys == {"build.cancel": "f9"}
    assert "Did you mean 'build.cancel'" in found.problems[0] and "plan.build" in found.problems[1]
    path.write_text(
        '[keys]\n"app.quit" = "s"\n"list.down" = "notakey"\n"plan.build" = "ctrl+b,f9"\n'
    )
    found = read_settings(path, all_ids(), ("nord",), all_keys())
    assert found.keys == {"plan.build": "ctrl+b,f9"}
    assert (
        "there is no key 'notakey'" in found.problems[0]
        and "s is the key of app.shelf" in found.problems[1]
    )
    path.write_text('theme = "nrod"\ncolour = 1')
    assert len(read_settings(path, (), ("nord",)).problems) == 2
    path.write_text("theme = ")
    assert "cannot be read" in read_settings(path, (), ()).problems[0]


def test_a_split_model_says_how_much_of_it_the_gpu_takes_and_what_is_left_beside_it() -> None:
    text = "".join(part for part, _ in explain.candidate(data.PARTLY))
    assert "gpu     26 of 41 layers there, 4.05 GB in the system's memory" in text
    assert "gpu     " not in "".join(part for part, _ in explain.candidate(data.CHOSEN))


def test_the_quality_of_a_package_is_one_line_or_the_reason_why_there_is_none() -> None:
    same = {"findings": []}
    measured = {
        "skipped": None,
        "kl_mean": 0.0207,
        "top1": 0.896,
        "loss_allowed": False,
        "parity": same,
    }
    assert (
        figures.quality(contents_of(quality=measured))
        == "same tokens, template and end of turn; divergence 0.0207 nats, same top token 89.6%"
    )
    assert figures.quality(contents_of(quality={**measured, "loss_allowed": True})).endswith(
        "; loss allowed"
    )
    assert (
        figures.quality(contents_of(quality={"skipped": "the weights are random", "parity": None}))
        == "quality not compared: the weights are random"
    )
    assert figures.quality(contents_of(quality=None)) == "not measured"
