"""`qwen-pack fit` as people and scripts call it, with the real catalogue, devices and runtimes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.cli.rate_limits import per_sequence, rate_limits
from packager.errors import ExitCode

TINY = """
name = "tiny"
summary = "a device on which nothing fits"
kind = "laptop"

[device]
memory_bytes = {memory}
reserve_bytes = 0
isa = ["x86_64"]
cores = 2
bandwidth = 10e9
compute = 50e9
confidence = "estimated"

[source]
memory_bytes = "written for this test"
reserve_bytes = "written for this test"
cores = "written for this test"
bandwidth = "written for this test"
compute = "written for this test"

[target]
runtimes = ["openvino"]
recipes = ["openvino:int4_sym_g128"]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(memory=200_000_000))
    return str(path)


def fit_json(
    capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.DONE
) -> dict[str, Any]:
    """The one object that `fit --json` prints, after checking the exit code."""
    assert main(["fit", *arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema"] == "qwen-pack/fit/1"
    return found


def test_for_a_laptop_it_chooses_the_smallest_qwen_that_chats_in_the_laptops_first_runtime(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu")
    chosen = found["chosen"]
    assert (chosen["variant"], chosen["runtime"], chosen["recipe"]) == (
        "Qwen/Qwen3-0.6B",
        "openvino",
        "openvino:int4_sym_g128",
    )
    assert chosen["verdict"] == "chosen" and chosen["reasons"] == []


def test_json_has_the_fields_that_scripts_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu")
    assert found["target"] == "laptop-cpu" and found["workload"]["use_case"] == "chat"
    assert [one["verdict"] for one in found["candidates"]].count("chosen") == 1
    assert found["candidates"][0] == found["chosen"]
    for one in found["candidates"]:
        assert {
            "variant",
            "runtime",
            "recipe",
            "context",
            "verdict",
            "reasons",
            "footprint",
            "artifact_bytes",
            "forecast",
            "scores",
        } <= set(one)
        assert (one["verdict"] == "rejected") == bool(one["reasons"])
        assert all({"rule", "needs", "has"} <= set(reason) for reason in one["reasons"])
        if one["footprint"] is not None:
            parts = one["footprint"]
            assert (
                parts["total"]
                == parts["weights"] + parts["kv_cache"] + parts["compute"] + parts["overhead"]
            )
            assert (
                one["forecast"]["low"] <= one["forecast"]["decode_tps"] <= one["forecast"]["high"]
            )


def test_every_variant_of_the_catalogue_gets_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    from packager import catalog

    found = fit_json(capsys, "--target", "laptop-cpu")
    assert {one["variant"] for one in found["candidates"]} == {
        variant.repo_id
        for variant in catalog.load()
        if variant.kind not in ("embedding", "reranking")
    }


def test_all_measures_every_recipe_of_what_could_be_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lean, whole = (
        fit_json(capsys, "--target", "laptop-cpu"),
        fit_json(capsys, "--target", "laptop-cpu", "--all"),
    )
    assert whole["chosen"] == lean["chosen"]
    recipes = {one["recipe"] for one in whole["candidates"] if one["variant"] == "Qwen/Qwen3-0.6B"}
    assert {"openvino:int4_sym_g128", "openvino:int8_sym"} <= recipes


def test_when_nothing_fits_the_exit_code_is_3_and_json_is_printed_all_the_same(
    capsys: pytest.CaptureFixture[str], tiny: str
) -> None:
    found = fit_json(capsys, "--target", tiny, code=ExitCode.NOTHING_FITS)
    assert found["chosen"] is None
    assert all(one["reasons"] for one in found["candidates"])


def test_when_nothing_fits_each_of_the_nearest_names_the_change_and_its_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = ["--target", "laptop-cpu", "--max-memory-mb", "400"]
    found = fit_json(capsys, *limits, code=ExitCode.NOTHING_FITS)
    assert found["nearest_misses"]
    for miss in found["nearest_misses"]:
        assert miss["reasons"] and not miss["then"]["reasons"]
        assert main(["fit", *limits, *shlex.split(miss["flag"])]) == ExitCode.DONE


def test_people_read_the_choice_in_one_sentence_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--target", "laptop-cpu"]) == ExitCode.DONE
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Qwen3-0.6B as openvino:int4_sym_g128 for laptop-cpu")
    assert "least memory" in first and "tok/s" in first


def test_people_read_what_is_missing_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["fit", "--target", "laptop-cpu", "--max-memory-mb", "400"]) == ExitCode.NOTHING_FITS
    )
    out = capsys.readouterr().out
    assert out.startswith("None of 178 variants fits laptop-cpu")
    assert "--max-memory-mb" in out


def test_several_targets_give_one_row_each(capsys: pytest.CaptureFixture[str], tiny: str) -> None:
    assert main(["fit", "--target", "laptop-cpu", "--target", tiny]) == ExitCode.DONE
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:3] == ["laptop-cpu", "Qwen3-0.6B", "openvino:int4_sym_g128"]
    assert rows[2][0] == "tiny" and rows[2][-1].startswith("nothing fits")


def test_in_a_matrix_a_choice_that_may_miss_a_limit_says_so_and_what_fails_is_one_that_serves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    devices = ["--target", "android-6gb", "--target", "core-ultra-7-155h-npu"]
    assert main(["fit", *devices, "--use-case", "vision", "--json"]) == ExitCode.DONE
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["chosen"]["may_miss"]
    assert main(["fit", *devices, "--use-case", "vision"]) == ExitCode.DONE
    slow, npu = capsys.readouterr().out.splitlines()[-2:]
    assert "may miss ttft: needs 30000 ms, has " in slow
    assert "pictures" in npu and "modality" not in npu


def test_a_model_without_a_target_is_tried_on_every_device(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from targets import registry

    results = fit_json(capsys, "--model", "Qwen3-4B")["results"]
    assert [result["target"] for result in results] == list(registry.target_names())
    assert {one["variant"] for result in results for one in result["candidates"]} == {
        "Qwen/Qwen3-4B"
    }


def test_a_named_model_is_shown_in_all_its_forms_and_forgiven_its_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu", "--model", "Qwen2.5-0.5B-Instruct")
    assert found["chosen"]["variant"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert any("IFEval" in note for note in found["chosen"]["notes"])
    assert len({one["recipe"] for one in found["candidates"]}) > 3


def test_where_the_first_runtime_is_too_large_a_later_one_of_the_target_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu", "--max-memory-mb", "900")
    assert found["chosen"]["runtime"] == "llama.cpp"


def test_a_named_recipe_is_the_only_one_considered(capsys: pytest.CaptureFixture[str]) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu", "--recipe", "openvino:int8_sym")
    assert {one["recipe"] for one in found["candidates"]} == {"openvino:int8_sym"}


def test_steps_say_what_the_neighbours_cost_and_gain(capsys: pytest.CaptureFixture[str]) -> None:
    found = fit_json(capsys, "--target", "laptop-cpu", "--steps")
    down, up = found["steps"]
    assert (down["direction"], up["direction"]) == ("down", "up")
    assert down["difference"]["memory_bytes"] < 0 < up["difference"]["memory_bytes"]
    assert down["candidate"]["reasons"][0]["rule"] == "score"


def test_another_use_case_moves_the_floors(capsys: pytest.CaptureFixture[str]) -> None:
    found = fit_json(capsys, "--target", "xeon-8480", "--use-case", "assistant")
    assert found["chosen"]["scores"]["BFCL v3"] >= 50


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--context", "-5"], "'-5' is not between 16 and 16777216"),
        (["--context", "many"], "'many' is not a whole number"),
        (["--context", "1" + "0" * 30], "is not between 16 and 16777216"),
        (["--max-ttft-ms", "nan"], "'nan' is not between"),
        (["--max-memory-mb", "1e400"], "is not between"),
        (["--min-score", "IFEval"], "is not BENCHMARK=SCORE"),
        (["--min-score", "IFEvil=50"], "Did you mean 'IFEval'"),
        (["--min-score", "IFEval=101"], "'101' is not between 0 and 100"),
        (["--use-case", "chta"], "Did you mean 'chat'"),
        (["--license", "apache"], "Did you mean 'apache-2.0'"),
        (["--prefer", "cheapest"], "'cheapest' is not one of"),
        (["--context", "64", "--prompt", "64"], "leaves no room for an answer"),
        (["--model", "Qwen3-0.7B"], "Did you mean"),
        (["--recipe", "int4"], "is not a recipe"),
        (["--recipe", "openvino:int5"], "has no recipe 'int5'"),
    ],
)
def test_a_bad_value_ends_in_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["fit", "--target", "laptop-cpu", *arguments]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    assert part in " ".join(shown.err.split())


def test_neither_target_nor_model_is_a_mistake_in_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == ExitCode.USAGE
    assert "Neither a device nor a model is given" in capsys.readouterr().err


def test_a_bad_recipe_is_one_mistake_and_not_one_per_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--model", "Qwen3-4B", "--recipe", "nonsense"]) == ExitCode.USAGE
    assert capsys.readouterr().err.count("is not a recipe") == 1


@pytest.mark.parametrize("memory", ["-1", '"much"', "1" + "0" * 30, "nan"])
def test_a_device_file_that_lies_ends_in_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, memory: str
) -> None:
    path = tmp_path / "liar.toml"
    path.write_text(TINY.format(memory=memory))
    assert main(["fit", "--target", str(path)]) == ExitCode.USAGE
    assert "memory_bytes" in capsys.readouterr().err


def test_the_best_scores_are_the_best_of_all_but_coarse_recipes_where_one_of_those_has_better(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--target", "jetson-orin-nano", "--prefer", "quality"]) == ExitCode.DONE
    assert "it has the best published scores, coarse recipes aside (" in capsys.readouterr().out
    found = fit_json(capsys, "--target", "jetson-orin-nano", "--prefer", "quality")
    best = max(row["quality"] or 0 for row in found["candidates"] if row["verdict"] == "fits")
    assert best > found["chosen"]["quality"]


def test_an_empty_model_is_no_model_and_not_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--target", "laptop-cpu", "--model", ""]) == ExitCode.USAGE
    assert "no variant ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--recipe", "gguf:Q4_0", "--repack"], ["--recipe", "onnx:int4_sym_b32", "--adapter-inputs"]],
)
def test_the_command_that_builds_has_every_addition(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["fit", "--target", "laptop-cpu", *words]) == ExitCode.DONE
    assert capsys.readouterr().err.strip().endswith(" ".join(words))


def test_a_score_is_repeated_in_the_command_with_every_digit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["fit", "--target", "laptop-cpu", "--min-score", "IFEval=54.50000001"])
    assert "--min-score IFEval=54.50000001" in capsys.readouterr().err


def test_what_a_runtime_builds_is_not_said_to_be_built_by_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["fit", "--target", "laptop-cpu", "--recipe", "gguf:IQ2_M", "--model", "Qwen3-0.6B"])
        == ExitCode.NOTHING_FITS
    )
    assert "builds" not in capsys.readouterr().out


def test_a_price_shows_what_a_million_tokens_cost_and_a_limit_on_it_is_a_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = fit_json(
        capsys, "--target", "rtx-4090", "--price-per-hour", "0.36", "--max-cost-per-million", "0.5"
    )
    assert answer["workload"]["min_decode_tps"] == 200
    cost, speed = answer["chosen_cost_per_million"], answer["chosen"]["forecast"]
    assert cost["cost"] == pytest.approx(100 / speed["decode_tps"], rel=0.01)
    assert cost["low"] < cost["cost"] < cost["high"]
    # Energy counts as a price of the hour: 1000 W at 0.36 a kilowatt-hour.
    other = fit_json(
        capsys,
        "--target",
        "rtx-4090",
        "--watts",
        "1000",
        "--price-per-kwh",
        "0.36",
        "--max-cost-per-million",
        "0.5",
    )
    assert other["chosen_cost_per_million"] == cost


def test_a_days_tokens_are_a_rate_and_stay_in_the_command_that_builds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--target", "laptop-cpu", "--tokens-per-day", "1728000"]) == ExitCode.DONE
    assert "--min-decode-tps 20" in capsys.readouterr().err
    # What is asked anyway stays where it is more.
    answer = fit_json(capsys, "--target", "laptop-cpu", "--tokens-per-day", "100")
    assert answer["workload"]["min_decode_tps"] > 1 and "chosen_cost_per_million" not in answer


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (["--max-cost-per-million", "0.05"], ["--price-per-hour", "0.35"]),
        (["--tokens-per-day", "500000000"], ["--use-case", "assistant", "--parallel", "2"]),
    ],
)
def test_a_limit_that_nothing_meets_is_mended_by_its_own_flag(
    capsys: pytest.CaptureFixture[str], limit: list[str], words: list[str]
) -> None:
    asked = ["--target", "rtx-4090", "--model", "Qwen3-4B", *words]
    answer = fit_json(capsys, *asked, *limit, code=ExitCode.NOTHING_FITS)
    miss = next(one for one in answer["nearest_misses"] if one["flag"].startswith(limit[0]))
    assert miss["change"].endswith(f"(for {limit[0]})") and "--min" not in miss["flag"]
    again = fit_json(capsys, *asked, *miss["flag"].split(), "--recipe", miss["recipe"])
    assert again["chosen"]["recipe"] == miss["recipe"]


def test_the_limit_that_is_said_for_a_rate_asks_for_no_more_than_that_rate() -> None:
    for limits in (rate_limits(5e8, None, None), rate_limits(None, 0.05, 0.36)):
        for rate in (0.07, 4.53, 28.67, 199.88):
            for parallel in (1, 2, 7):
                value = float(limits[0].at(rate * parallel).split()[1])
                cost = limits[0].is_cost
                said = rate_limits(None, value, 0.36) if cost else rate_limits(value, None, None)
                assert 0.97 * rate < per_sequence(said, parallel) <= rate


@pytest.mark.parametrize(
    "words", [["--max-cost-per-million", "3"], ["--price-per-kwh", "0.3"], ["--watts", "30"]]
)
def test_half_a_price_is_refused(words: list[str]) -> None:
    assert main(["fit", "--target", "laptop-cpu", *words]) == ExitCode.USAGE
