"""A plan file and the matrix that follows from it: nothing is built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.sweep.cell import Cell
from packager.sweep.expect import Pace
from packager.sweep.matrix import cells, matrix
from packager.sweep.plan_file import read
from packager.sweep.plan_schema import SECTIONS, complaint
from tests.conftest import REPOSITORY
from tests.support.plain_runtime import PlainRuntime
from tests.support.sweeps import known, plan_of

PLAN = """
name = "nightly"
[axes]
variants = ["qwen3-0.6b", "Qwen/Qwen3-1.7B"]
recipes = ["plain:b8", "plain:b4"]
kv = ["default", "q8_0"]
contexts = [512, 4096]
targets = ["big", "small"]
"""


def test_the_matrix_is_the_product_of_the_axes_each_cell_once(tmp_path: Path) -> None:
    plan = plan_of(PLAN, tmp_path)
    found = list(cells(plan, known()))
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2 * 2
    assert len({cell.id for cell in found}) == len(found)
    assert found[0] == Cell("Qwen/Qwen3-0.6B", "plain:b8", "big", "default", 512)
    assert {cell.recipe_id for cell in found} == {
        "plain:b8",
        "plain:b4",
        "plain:b8/kv_q8_0",
        "plain:b4/kv_q8_0",
    }


def test_without_recipes_each_target_has_its_own(tmp_path: Path) -> None:
    house = known(recipes=("plain:b4", "plain:b2"))
    plan = plan_of('[axes]\nvariants = ["Qwen3-0.6B"]\ntargets = ["big"]', tmp_path, house)
    assert [cell.recipe for cell in cells(plan, house)] == ["plain:b4", "plain:b2"]


def test_a_cell_that_does_not_fit_says_why_and_the_others_have_their_figures(
    tmp_path: Path,
) -> None:
    found = matrix(plan_of(PLAN, tmp_path), known()).planned
    by = {
        (one.cell.short, one.cell.recipe_id, one.cell.target, one.cell.context): one
        for one in found
    }
    fits = by["Qwen3-0.6B", "plain:b8", "big", 512]
    assert fits.problem is None and fits.artifact_bytes == fits.parameters
    assert fits.memory_bytes > fits.artifact_bytes
    too_large = by["Qwen3-1.7B", "plain:b8", "small", 4096]
    assert too_large.exit_code == ExitCode.NOTHING_FITS
    assert too_large.problem is not None and "memory: needs" in too_large.problem


def test_stages_that_cells_share_are_expected_once(tmp_path: Path) -> None:
    text = PLAN.replace('"Qwen/Qwen3-1.7B"', "").replace('"qwen3-0.6b",', '"qwen3-0.6b"')
    text = text.replace('kv = ["default", "q8_0"]', "").replace("[512, 4096]", "[512]")
    planned = matrix(plan_of(text.replace('"small"', ""), tmp_path), known()).planned
    first, second = (one.expected.seconds for one in planned)
    assert "reference" in first and "reference" not in second
    assert second["measure"] == first["measure"] > 0


def test_what_a_folder_has_seen_takes_the_place_of_published_paces() -> None:
    pace = Pace()
    before = pace.of("plain", 600_000_000)
    pace.learn("plain", 300_000_000, {"convert": 7.0})
    after = pace.of("plain", 600_000_000)
    assert (before.basis, after.basis) == ("estimated", "measured")
    assert after.seconds["convert"] == 14.0
    assert after.seconds["measure"] == before.seconds["measure"]
    assert "reference" not in pace.of("plain", 600_000_000, random=True).seconds


EXCLUDED = [
    ('variant = "*1.7*"', 16),
    ('recipe = "plain:b8"\ntarget = "small"', 8),
    ("context = 512", 16),
    ('kv = "q8_0"\nvariant = "qwen3-0.6b"', 8),
]


@pytest.mark.parametrize(("table", "count"), EXCLUDED)
def test_an_exclusion_takes_away_what_all_its_patterns_fit(
    table: str, count: int, tmp_path: Path
) -> None:
    plan = plan_of(f'{PLAN}[[exclude]]\n{table}\nwhy = "known"', tmp_path)
    found = matrix(plan, known())
    assert len(found.excluded) == count
    assert len(found.planned) == 32 - count
    assert {why for _, why in found.excluded} == {"known"}


def test_an_exclusion_that_fits_nothing_is_told_and_one_that_takes_all_is_refused(
    tmp_path: Path,
) -> None:
    plan = plan_of(f'{PLAN}[[exclude]]\nvariant = "nothing"', tmp_path)
    assert matrix(plan, known()).notes == ("exclude[1] matches no cell.",)
    with pytest.raises(PackError, match="leaves no cell"):
        matrix(plan_of(f'{PLAN}[[exclude]]\nvariant = "*"', tmp_path), known())


WRONG = [
    ("nmae = 'x'", "nmae is not a key of a plan file. Did you mean 'name'"),
    ("contexts = [1]", "contexts is not a key of a plan file. It belongs below [axes]."),
    ("[axes]\nvariants = ['Qwen3-0.6']", "axes.variants names 'Qwen3-0.6'"),
    ("[axes]\nvariants = 'Qwen3-0.6B'", "axes.variants must be a list of texts"),
    ("[axes]\nrecipes = ['plain:b9']", "axes.recipes names 'plain:b9'"),
    ("[axes]\nrecipes = ['plian:b8']", "Did you mean 'plain'?"),
    ("[axes]\nrecipes = ['plain:b8/kv_q8_0']", "has a cache type in it. Put"[:23]),
    ("[axes]\ncontexts = [1]", "axes.contexts is 1, but must be between 16 and"),
    ("[axes]\ncontexts = [true]", "axes.contexts must be a whole number."),
    ("[axes]\ntargets = ['bgi']", "Did you mean 'big'"),
    (
        "[axes]\ncheckpoints = ['nowhere']",
        "axes.checkpoints names 'nowhere', which is not a folder.",
    ),
    ("[axes]\nprofiles = ['p.toml']", "axes.profiles names 'p.toml'"),
    ("[axes]\nadapters = ['./nowhere']", "axes.adapters names './nowhere', which is not a folder."),
    ("[axes]\nadapters = [3]", "axes.adapters must be a text"),
    ("[axes]\ntargets = ['big']\n[on]\nbgi = 'pi5'", "on.bgi is not one of the targets in [axes]."),
    ("[axes]\ntargets = ['big']\n[on]\nbig = 'ssh:x'", "on.big names 'ssh:x': "),
    ("[axes]\ntargets = ['big']\n[on]\nbig = 3", "on.big must be a text"),
    ("on = 3", "on must be a table of target and machine"),
    ("[filter]\nfamily = ['Qwen33']", "filter.family has 'Qwen33', which no variant has."),
    ("[filter]\nmax_params = 1", "filter matches no variant"),
    (
        "[weights]\nsource = 'modelscope'",
        "weights.source is 'modelscope', but must be one of hub, dummy.",
    ),
    ("[budgets]\nuse_case = 'chta'", "Did you mean 'chat'?"),
    ("[budgets]\nmin_scores = {IFEvla = 3}", "Did you mean 'IFEval'"),
    ("[budgets]\nmin_scores = {IFEval = 300}", "budgets.min_scores has 'IFEval', which is 300"),
    (
        "[budgets]\nmax_artifact_bytes = '3 XB'",
        "budgets.max_artifact_bytes is '3 XB', which is not a valid size",
    ),
    ("[budgets]\nmin_decode_tps = nan", "budgets.min_decode_tps is nan"),
    ("[limits]\nkeep_packages = 'some'", "limits.keep_packages is 'some', but must be one of all,"),
    ("[prune]\nby = ['quality']", "prune.by has no effect without keep"),
    ("[prune]\nkeep = 0", "prune.keep is 0, but must be between 1 and"),
    ("[route]\ntasks = ['chta']", "route.tasks names 'chta'"),
    ("[[exclude]]\nwhy = 'x'", "exclude[1] names nothing"),
    (
        "[[compare]]\nname = 'x'\none = {variant = 'y'}",
        "compare[1].other must be a table of patterns",
    ),
    (
        "[[compare]]\none = {target = 'y'}\nother = {vraiant = 'x'}",
        "compare[1].other.vraiant is not",
    ),
    ("[compare]\nname = 'x'", "compare must be a list of tables"),
    ("[exclude]\nvariant = 'x'", "exclude must be a list of tables"),
    ("axes = 3", "axes must be a table, written [axes]."),
    ("name = 'Upper Case'", "name must be small letters"),
    ("name = 'a\\u001b'", "name must"),
    ("[axes", "this is not TOML"),
]


def test_a_slip_is_named_with_file_key_and_the_nearest_name(tmp_path: Path) -> None:
    for text, sentence in WRONG:
        with pytest.raises(PackError) as caught:
            plan_of(text, tmp_path)
        assert caught.value.exit_code == ExitCode.USAGE, text
        assert caught.value.message.startswith("plan.toml: "), text
        assert sentence in caught.value.message, text


def test_all_slips_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        plan_of("[axes]\nvariants = ['a']\nrecipes = ['b']\ntargets = ['c']", tmp_path)
    assert len(caught.value.message.splitlines()) >= 3


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "deep.toml").write_text("a = " + "[" * 10_000)
    for name in ("bytes", "large", "folder", "deep", "absent"):
        with pytest.raises(PackError) as caught:
            read(tmp_path / f"{name}.toml", known())
        assert caught.value.exit_code == ExitCode.USAGE, name


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_any_value_is_taken_or_refused_in_words(value: Any) -> None:
    for rules in SECTIONS.values():
        for rule in rules.values():
            wrong = complaint(rule, value)
            assert wrong is None or wrong.endswith(".") or "size" in wrong


def test_a_filter_takes_variants_by_family_size_and_licence_and_no_base_models(
    tmp_path: Path,
) -> None:
    text = """
[axes]
targets = ["big"]
[filter]
family = ["qwen3"]
kind = ["general"]
max_params = 2e9
license = ["apache-2.0"]
"""
    names = [name.partition("/")[2] for name in plan_of(text, tmp_path).variants]
    assert {"Qwen3-0.6B", "Qwen3-1.7B"} <= set(names)
    assert not any("Base" in name or name == "Qwen3-4B" for name in names)


def test_a_profile_file_takes_the_flags_of_build(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.")
    (tmp_path / "quiet.toml").write_text(
        'thinking = "off"\nsystem_prompt = "system.txt"\nsampling = "temperature=0.5"'
    )
    text = (
        '[axes]\nvariants = ["Qwen3-0.6B"]\ntargets = ["big"]\nprofiles = ["default", "quiet.toml"]'
    )
    plan = plan_of(text, tmp_path)
    profile = plan.profiles[str(tmp_path / "quiet.toml")]
    assert (profile.thinking, profile.system_prompt) == ("off", "Be brief.")
    assert dict(profile.sampling) == {"temperature": 0.5}
    (tmp_path / "quiet.toml").write_text('thinkign = "off"')
    with pytest.raises(PackError, match=r"thinkign is not a key of a profile file\. Did you mean"):
        plan_of(text, tmp_path)
    (tmp_path / "system.txt").write_text("Be short.")
    (tmp_path / "quiet.toml").write_text('system_prompt = "system.txt"')
    assert plan_of(text, tmp_path).digest != plan.digest


def test_a_cell_goes_through_json_and_its_id_is_a_name_for_files() -> None:
    cell = Cell("/tmp/a b/ü" + "x" * 300, "plain:b8", "/t/pi.toml", "q8_0", 64, local=True)
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert "/" not in cell.id and len(cell.id.encode()) < 200
    for wrong in ({}, {"variant": 1, "recipe": "r", "target": "t"}, {**cell.to_json(), "x": 1}):
        with pytest.raises(ValueError, match="is not a cell"):
            Cell.from_json(wrong)


def test_memory_that_a_conversion_lacks_here_is_told_before_anything_starts(tmp_path: Path) -> None:
    from dataclasses import replace

    class Hungry(PlainRuntime):
        def build_needs(self, shape: Any, recipe: Any) -> Any:
            from packager.runtime import BuildNeeds

            return BuildNeeds(10**12, 0)

    house = replace(known([Hungry()]), memory=lambda: 10**9)
    (one, *_) = matrix(plan_of(PLAN, tmp_path, house), house).planned
    assert one.problem == "The conversion needs 1.00 TB of memory and 1.00 GB are available."
    assert one.exit_code == ExitCode.RESOURCE


@pytest.mark.engine
def test_a_dry_run_shows_the_matrix_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly.toml").write_text(f"""
[axes]
variants = ["Qwen3-0.6B"]
checkpoints = ["{REPOSITORY / "tests" / "models" / "tiny-qwen3"}"]
recipes = ["gguf:Q8_0", "openvino:int8_asym"]
targets = ["laptop-cpu", "raspberry-pi-5-8gb"]
contexts = [1024]
""")
    assert main(["sweep", "nightly.toml", "--dry-run", "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "qwen-pack/sweep/1" and answer["dry_run"] is True
    assert answer["totals"]["cells"] == 8
    problems = {(one["recipe"], one["target"]): one["problem"] for one in answer["cells"]}
    assert problems["openvino:int8_asym", "raspberry-pi-5-8gb"] == (
        "raspberry-pi-5-8gb is not served by openvino."
    )
    assert main(["sweep", "nightly.toml", "--dry-run"]) == ExitCode.DONE
    said = capsys.readouterr()
    assert "cells can be built" in said.err and "Qwen3-0.6B\tgguf:Q8_0" in said.out
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["nightly.toml"]


def test_a_report_of_what_is_no_sweep_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "report"]) == ExitCode.USAGE
    assert main(["sweep", "report", str(tmp_path)]) == ExitCode.USAGE
    assert "is not the folder of a sweep" in capsys.readouterr().err
    plan = tmp_path / "p.toml"
    plan.write_text('[axes]\nvariants = ["Qwen3-0.6B"]\ntargets = ["laptop-cpu"]')
    assert main(["sweep", str(plan), "more"]) == ExitCode.USAGE
    capsys.readouterr()
    assert main(["sweep", str(plan), "--keep", "1", "--by", "sped"]) == ExitCode.USAGE
    assert "--by knows no 'sped'. Did you mean 'speed'" in capsys.readouterr().err
    assert main(["sweep", str(plan), "--by", "speed"]) == ExitCode.USAGE
    assert "has no effect without --keep" in capsys.readouterr().err
