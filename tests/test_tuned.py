"""First recipes by measurement: every row is one that can be built and whose figures are published;
what a device's file says goes before it, and a table without rows changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.select.ways import ways_of
from targets import registry
from targets.devices.tuned import read, tuned
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "targets" / "tuned.toml"
ROW = """
[[default]]
runtime = "onnxruntime"
isa = ["x86_64", "avx512_vnni"]
recipe = "onnx:int4_sym_b128"
model = "Qwen3-0.6B"
decode_tps = 60.5
beside = { "onnx:int4_asym_b32" = 30.25 }
divergence = 0.0625
source = "docs/measurements/runtimes.md"
"""


@pytest.fixture
def one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with one row, whose figures are made up."""
    file = tmp_path / "one-row.toml"
    file.write_text(ROW)
    rows = read(file)
    monkeypatch.setattr("targets.devices.tuned._rows", lambda: rows)


def test_every_row_names_a_recipe_of_its_runtime_and_a_measurement_that_is_there() -> None:
    for row in read(FILE):
        runtime = registry.runtime(row.runtime)
        for name in (row.recipe, *row.beside):
            prefix, _, weights = name.partition(":")
            assert prefix == runtime.prefix and runtime.recipe(weights).id == name
        assert row.decode_tps > max(row.beside.values(), default=0)
        pages = [word.strip(",()") for word in row.source.split() if word.startswith("docs/")]
        assert pages and all((REPOSITORY / page).is_file() for page in pages)
        figures = "\n".join((REPOSITORY / page).read_text() for page in pages)
        assert f"{row.decode_tps:g}" in figures and f"{row.divergence:g}" in figures


def test_a_table_without_rows_leaves_each_runtime_its_own_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text("# no row\n")
    assert read(file) == ()
    monkeypatch.setattr("targets.devices.tuned._rows", tuple)
    target = replace(registry.target("cloud-epyc-2c"), runtimes=("onnxruntime",), recipes=())
    target = tuned(target)
    assert target.tuned == ()
    assert all(way.note is None for way in ways_of(target, registry.runtimes(), None))


@pytest.mark.usefixtures("one_row")
def test_a_recipe_that_was_measured_first_stands_first_and_says_why() -> None:
    target = registry.target("cloud-epyc-2c")
    target = tuned(replace(target, runtimes=("onnxruntime",), recipes=()))
    first = ways_of(target, registry.runtimes(), None)[0]
    assert first.recipe.id == "onnx:int4_sym_b128" and first.note is not None
    assert "60.5 tok/s" in first.note and "docs/measurements/runtimes.md" in first.note
    # What the device's file names goes before it, and so does --recipe.
    own = replace(target, recipes=("onnx:int8_sym_b32",))
    first = ways_of(own, registry.runtimes(), None)[0]
    assert first.recipe.id == "onnx:int8_sym_b32" and first.note is None
    named = ways_of(target, registry.runtimes(), "onnx:int4_asym_b32")
    assert [(way.recipe.id, way.note) for way in named] == [("onnx:int4_asym_b32", None)]
    # Another processor, or another unit of this one, was not measured.
    for device in (
        replace(target.device, isa="x86_64 avx2"),
        replace(target.device, runs_on="gpu"),
    ):
        assert tuned(replace(target, device=device, tuned=())).tuned == ()


@pytest.mark.usefixtures("one_row")
def test_fit_says_where_the_first_recipe_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPOSITORY / "targets" / "devices" / "cloud-epyc-2c.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("runtimes", "recipes"))]
    at = lines.index("[target]")
    lines.insert(at + 1, 'runtimes = ["onnxruntime"]')
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(lines))
    asked = ["fit", "--target", str(file), "--model", "Qwen3-0.6B", "--json"]
    assert main(asked) == ExitCode.DONE
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    assert chosen["recipe"] == "onnx:int4_sym_b128"
    assert any("docs/measurements/runtimes.md" in note for note in chosen["notes"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[default]]\nruntime = 3\n", "runtime"),
        ("[[default]]\nruntme = 'x'\n", "runtme"),
        ("default = 1\n", "default"),
        ("[[default\n", "line 1"),
        (ROW.replace('["x86_64", "avx512_vnni"]', "[]"), "isa"),
        (ROW.replace("60.5", "0"), "decode_tps"),
        (ROW.replace("30.25", "nan"), "beside"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_key(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(text)
    with pytest.raises(PackError, match=words) as caught:
        read(file)
    assert caught.value.exit_code is ExitCode.INPUT and str(file) in caught.value.message
