"""The headless half of what the screens promise: typed limits, kept themes, changes that apply
themselves, whose figures are whose."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from packager.cli.options import workload_from
from packager.cli.tui import services as command_line_services
from packager.errors import PackError
from packager.pipeline.cache import BuildCache
from packager.pipeline.underway import is_underway, underway
from packager.predict.memory import KV_BITS
from packager.select import changes
from packager.select.cache_type import cache_types
from packager.select.misses import Miss
from targets import registry
from tests.support import tui_data as data
from tests.support.tui_helpers import parsed
from tui import core, describe, figures
from tui.ask import Ask, Wish, build_command
from tui.bindings import all_ids, all_keys
from tui.change import changed
from tui.contrast import PAIRS, as_seen, ratio, readable
from tui.points import of_candidates
from tui.settings import Settings, _is_key, keep_theme, split_keys
from tui.settings import read as read_settings
from tui.widgets.plots import MARKERS, ticks

pytestmark = pytest.mark.slow


def test_a_theme_is_kept_in_the_settings_and_nothing_else_there_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "config" / "tui.toml"
    keep_theme(path, "gruvbox")
    assert read_settings(path, all_ids(), ("gruvbox",)).theme == "gruvbox"
    path.write_text('# mine\ntheme = "nord"\n\n[keys]\n"build.cancel" = "f9"  # by the window\n')
    keep_theme(path, "dracula")
    assert (
        path.read_text()
        == '# mine\ntheme = "dracula"\n\n[keys]\n"build.cancel" = "f9"  # by the window\n'
    )
    path.write_text('[keys]\n"build.cancel" = "f9"\n')
    keep_theme(path, "nord")
    assert read_settings(path, all_ids(), ("nord",)) == Settings("nord", {"build.cancel": "f9"})


def test_every_default_key_is_written_as_the_settings_take_it() -> None:
    assert [
        name for name, key in all_keys().items() for one in split_keys(key) if not _is_key(one)
    ] == []


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("context", "6000", 6000),
        ("context", "16k", 16384),
        ("prompt", "1,000", 1000),
        ("min_decode_tps", "12.5", 12.5),
        ("max_ttft_ms", "3", 3000),
        ("max_ttft_ms", "250 ms", 250),
        ("max_artifact_bytes", "700", 700 * 10**6),
        ("max_memory_bytes", "1.5G", 1_500_000_000),
    ],
)
def test_a_limit_is_typed_as_people_write_it_and_refused_where_the_command_line_refuses_it(
    field: str, text: str, value: float
) -> None:
    assert describe.parsed(field, text) == value
    for wrong in ("", "lots", "1e999", "-4", "nan"):
        with pytest.raises(PackError):
            describe.parsed(field, wrong)


def test_no_two_answers_of_a_benchmark_are_drawn_alike() -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= 5


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_few_and_lie_within_the_range(
    low: float, width: float, most: int
) -> None:
    marks = ticks(low, low + width, most)
    assert 1 <= len(marks) <= most
    step = marks[1] - marks[0] if len(marks) > 1 else 0
    assert all(low - 1e-6 * width <= mark <= low + width * (1 + 1e-6) for mark in marks)
    if step:
        digits = f"{step:.3e}".partition("e")[0]
        assert digits in ("1.000", "2.000", "2.500", "5.000")


def test_figures_of_another_machine_say_whose_they_are_and_what_to_do_next() -> None:
    there = data.tried().contents
    head, warning = figures.column(there)
    assert (
        head == "NOISY on a processor"
        and "Copy the package to laptop-cpu" in warning
        and "qwen-pack bench" in warning
    )
    by_label = {row.label: row for row in figures.figures(there)}
    assert (
        by_label["decode"].measured
        and by_label["decode"].off == ""
        and by_label["model files"].off == "+1 %"
    )
    assert figures.column(data.package().contents) == ("measured", "")


def test_what_a_build_replaces_is_named_with_its_context_and_the_figures_that_would_go() -> None:
    kept = data.package()
    assert (
        figures.replaced(kept.contents)
        == "Replaces the package that is there (built 2026-01-02 03:04, context 4,096)."
    )
    assert figures.replaced(data.changed(kept, measurements=[{}, {}]).contents).endswith(
        "with 2 measurements added later."
    )


def test_a_folder_that_is_built_into_is_known_to_every_process_and_a_killed_build_is_forgotten(
    tmp_path: Path,
) -> None:
    out = tmp_path / "package"
    assert not is_underway(out)
    with underway(out), underway(out):
        assert is_underway(out) and not is_underway(tmp_path / "other")
    assert not is_underway(out)
    program = "import pathlib, sys, time; from packager.pipeline.underway import underway\n"
    program += "with underway(pathlib.Path(sys.argv[1])): print('here', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE
    ) as build:
        assert build.stdout is not None and build.stdout.readline() == b"here\n"
        assert is_underway(out)
        build.kill()
    assert not is_underway(out)


def test_two_processes_never_write_the_output_of_their_engines_into_one_file(
    tmp_path: Path,
) -> None:
    cache = BuildCache(tmp_path)
    mine = cache.log("convert")
    assert mine == cache.log("convert") == tmp_path / "logs" / "convert.log"
    program = "import pathlib, sys; from packager.pipeline.cache import BuildCache\n"
    program += "print(BuildCache(pathlib.Path(sys.argv[1])).log('convert').name)"
    command = [sys.executable, "-c", program, str(tmp_path)]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "convert-2.log"
    # A process that works in another cache has left this one to others.
    assert BuildCache(tmp_path / "elsewhere").log("convert").name == "convert.log"
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "convert.log"


def test_every_test_that_the_list_of_faults_names_is_there() -> None:
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "tui-tests.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 30
    missing = [
        name for file, name in named if f"def {name}(" not in (tests / file).read_text("utf-8")
    ]
    assert missing == []


def test_recipes_under_four_bits_and_what_does_not_fit_are_on_no_front() -> None:
    front = of_candidates(data.FOUND).front().values()
    assert front and not [point.label for point in front if "Q2_K" in point.label]
    assert {point.label for point in front} >= {"Qwen3-0.6B gguf:Q4_K_M", "Qwen3-0.6B gguf:Q8_0"}
    nothing = of_candidates(data.NOTHING)
    assert nothing.points and nothing.front() == {} and nothing.kind.endswith("nothing fits")


def test_every_change_of_a_miss_is_made_to_the_ask_and_to_the_command() -> None:
    flags = [
        "--context 1024",
        "--prompt 100",
        "--min-decode-tps 2.5",
        "--max-ttft-ms 12508",
        "--max-artifact-mb 900",
    ]
    flags += [
        "--max-memory-mb 1010",
        "--max-file-size 700M",
        "--license qwen-research",
        "--min-score 'IFEval=33.2'",
    ]
    of_inputs = {
        "--max-image-tokens 256 --prompt 356": "vision",
        "--max-audio-seconds 45": "audio",
        "--documents-per-second 0.25": "embed",
        "--query-ms 40": "embed",
        "--dimension 1024": "embed",
    }
    proposed = re.findall(r'"(--[a-z-]+) ', Path(changes.__file__).read_text("utf-8"))
    tried = {line.split()[0] for line in (*flags, *of_inputs)}
    assert len(proposed) > 9 and set(proposed) - tried == {"--target", "--recipe"}
    ask = Ask(registry.target("laptop-cpu"), machine="pi5")
    for flag, use_case in [*((flag, None) for flag in flags), *of_inputs.items()]:
        ask = replace(ask, wish=Wish(use_case=use_case))
        after = changed(ask, Miss(data.CHOSEN, "", flag, data.CHOSEN), registry.target)
        assert after != ask and after.machine == "pi5"
        assert (
            workload_from(parsed(build_command(after, data.CHOSEN)), after.target)
            == after.workload()
        ), flag
    miss = Miss(data.CHOSEN, "", "--recipe gguf:Q4_K_M/kv_q8_0", data.CHOSEN)
    assert changed(ask, miss, registry.target).kv == "q8_0"
    miss = Miss(data.CHOSEN, "", "--target rtx-4090", data.CHOSEN)
    elsewhere = changed(ask, miss, registry.target)
    # The machine of the lab is not that device.
    assert (elsewhere.target.name, elsewhere.machine) == ("rtx-4090", None)


def test_only_cache_types_that_a_runtime_keeps_are_offered_and_each_of_them_answers() -> None:
    services = command_line_services()
    for name in ("laptop-cpu", "rtx-4090"):
        target = registry.target(name)
        kinds = cache_types(target, core.served(services, Ask(target)))
        assert set(kinds) < set(KV_BITS) and "bf16" not in kinds
        for kind in kinds:
            assert core.find(services, Ask(target, kv=kind)).candidates, (name, kind)


@pytest.mark.parametrize("name", [name for name, theme in BUILTIN_THEMES.items() if not theme.ansi])
def test_every_theme_is_readable_on_every_ground_that_text_lies_on(name: str) -> None:
    variables = readable(BUILTIN_THEMES[name].to_color_system().generate())
    low = [
        (text, ground)
        for text, grounds in PAIRS
        for ground in grounds
        if not variables[text].startswith("auto")
        and min(
            ratio(Color.parse(variables[text]), seen)
            for seen in as_seen(Color.parse(variables[ground]), variables)
        )
        < 4.45
    ]
    assert low == []
