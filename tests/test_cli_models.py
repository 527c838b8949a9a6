"""`qwen-pack models`: the list, the filters, one variant in full."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, timedelta

import pytest

from packager.catalog import REVIEWED, Variant, age, load
from packager.cli import main
from packager.errors import ExitCode

Output = pytest.CaptureFixture[str]


def test_the_list_has_one_line_per_variant_and_says_how_many_on_stderr(capsys: Output) -> None:
    assert main(["models"]) == 0
    answer = capsys.readouterr()
    lines = answer.out.splitlines()
    assert lines[0] == "name\tparameters\tcontext\tlicence\treads\treleased"
    assert len(lines) == len(load()) + 1
    assert "Qwen3-0.6B\t596M\t40,960\tapache-2.0\ttext\t2025-04-29" in lines
    assert "Qwen2.5-3B\t3.09B\t32,768\tqwen-research (research only)\ttext\t2024-09-19" in lines
    assert "Qwen3-TTS-12Hz-0.6B-Base\tnot stated\tnot stated\tapache-2.0\ttext\t2026-01-22" in lines
    assert answer.err.startswith(f"{len(load())} variants;")
    assert answer.err.splitlines()[1].startswith("The catalogue was last reviewed on 20")


def test_the_catalogue_says_how_old_it_is() -> None:
    found = age(date.fromisoformat(REVIEWED) + timedelta(days=40))
    assert (found.days, found.reviewed) == (40, REVIEWED) and found.newest <= REVIEWED
    assert "40 days ago" in str(found)
    assert age(date(2020, 1, 1)).days == 0


def test_as_json_it_is_one_object_with_the_fields_of_the_contract(capsys: Output) -> None:
    assert main(["models", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "qwen-pack/models/1"
    assert len(answer["variants"]) == len(load())
    assert answer["catalogue"]["reviewed"] == REVIEWED and answer["catalogue"]["age_days"] >= 0
    assert all(
        {"repo_id", "family", "params_total", "license"} <= set(variant)
        for variant in answer["variants"]
    )


def test_filters_go_together(capsys: Output) -> None:
    assert (
        main(
            [
                "models",
                "--family",
                "qwen2.5",
                "--license",
                "qwen-research",
                "--modality",
                "text",
                "--json",
            ]
        )
        == 0
    )
    assert [variant["name"] for variant in json.loads(capsys.readouterr().out)["variants"]] == [
        "Qwen2.5-3B",
        "Qwen2.5-3B-Instruct",
    ]


def test_one_variant_in_full_shows_shape_licence_and_scores_with_numbered_sources(
    capsys: Output,
) -> None:
    assert main(["models", "qwen3-30b-a3b"]) == 0
    facts, _, sources = capsys.readouterr().out.partition("\n\n")
    rows = {
        field.strip(): (value, cited)
        for field, value, cited in (line.split("\t") for line in facts.splitlines())
    }
    where = dict(line.split("\t") for line in sources.splitlines()[1:])
    assert rows["parameters"][0] == "30,532,122,624, 3.35B active"
    assert rows["experts"][0] == "8 of 128, each 768 wide"
    assert rows["licence"][0] == "apache-2.0"
    assert "Apache 2.0" in " ".join(where[number] for number in rows["licence"][1].split())
    assert (
        rows["MMLU-Redux"][0].endswith("(thinking)")
        and "Technical_Report" in where[rows["MMLU-Redux"][1]]
    )


def test_one_variant_as_json_carries_scores_and_published_counts(capsys: Output) -> None:
    assert main(["models", "Qwen/Qwen3-0.6B", "--json"]) == 0
    (variant,) = json.loads(capsys.readouterr().out)["variants"]
    assert {"benchmark": "MATH-500", "value": 77.6, "mode": "thinking"}.items() <= next(
        score.items()
        for score in variant["scores"]
        if score["benchmark"] == "MATH-500" and score["mode"] == "thinking"
    )
    (stored,) = variant["published_parameters"]
    assert (stored["value"], stored["difference"]) == (751_632_384, "redundant-output")


@pytest.mark.parametrize("variant", load(), ids=lambda variant: variant.name)
def test_every_variant_can_be_shown(variant: Variant, capsys: Output) -> None:
    assert main(["models", variant.name]) == 0
    shown = capsys.readouterr().out
    assert f"family\t{variant.family}\t" in shown
    # A source with a semicolon in its brackets stays one.
    for line in shown.rpartition("source\twhere")[2].splitlines():
        assert line.count("(") == line.count(")"), line


def test_what_cannot_be_built_says_so(capsys: Output) -> None:
    assert main(["models", "Qwen-VL-Chat"]) == 0
    assert (
        "No engine reads its vision tower, and its own Python is never run: it would take a graph of "
        "ViT-bigG and its resampler that qwen-pack writes itself; nearest: "
        "Qwen/Qwen2-VL-7B-Instruct" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["qwen3-06b"], "Did you mean 'Qwen3-0.6B'"),
        (["--family", "qwn3"], "has no family 'qwn3'. Did you mean 'Qwen3'"),
        (["--license", "gpl"], "has no licence 'gpl'"),
        (["--modality", "vido"], "has no modality 'vido'. Did you mean 'video'"),
        (["qwen3-0.6b", "--family", "qwen3"], "NAME and filters do not go together"),
    ],
)
def test_what_does_not_exist_is_a_usage_error_with_nothing_on_stdout(
    arguments: list[str], complaint: str, capsys: Output
) -> None:
    assert main(["models", *arguments]) == 2
    answer = capsys.readouterr()
    assert answer.out == "" and complaint in answer.err


def test_listing_imports_no_engine_no_numpy_and_no_rich_when_piped() -> None:
    code = """
import sys
from packager.cli import main
from packager.errors import ExitCode
main(["models", "--json"])
main(["models", "qwen3-0.6b"])
heavy = {"numpy", "torch", "transformers", "openvino", "onnxruntime", "llama_cpp", "huggingface_hub", "rich", "textual"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stderr.splitlines()[-1] == "[]"


def test_a_row_that_the_hub_does_not_give_names_a_way_on_that_this_command_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "add", "nobody/nothing-here", "--offline"]) == ExitCode.SOURCE
    said = capsys.readouterr().err
    assert "--weights" not in said and "Build" not in said
    assert "Leave --offline out. Or give a folder with a config.json that you have." in said
