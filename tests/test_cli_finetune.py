"""`qwen-pack fit --finetune`: verdict by the range, components, more GPUs, exit codes, JSON."""

from __future__ import annotations

import json

import pytest

from packager.cli import main
from packager.errors import ExitCode

Output = pytest.CaptureFixture[str]


def test_one_variant_is_shown_by_component_with_what_the_method_cannot_do(capsys: Output) -> None:
    assert (
        main(
            [
                "fit",
                "--target",
                "a100-80gb",
                "--finetune",
                "qlora",
                "--model",
                "Qwen-72B-Chat",
                "--sequence",
                "512",
            ]
        )
        == ExitCode.DONE
    )
    shown = capsys.readouterr().out
    assert "Qwen-72B-Chat by qlora with sequences of 512 tokens" in shown and "it fits." in shown
    assert "not merged" in shown and "AdamW's two moments" in shown


def test_what_does_not_fit_says_with_how_many_gpus_it_would(capsys: Output) -> None:
    code = main(
        [
            "fit",
            "--target",
            "a100-80gb",
            "--finetune",
            "lora",
            "--model",
            "Qwen-72B-Chat",
            "--sequence",
            "512",
        ]
    )
    assert code == ExitCode.NOTHING_FITS
    assert "With 4 of them it fits" in (shown := capsys.readouterr().out) and "ZeRO-3" in shown


def test_as_json_every_figure_has_its_range_its_parts_and_its_source(capsys: Output) -> None:
    assert main(["fit", "--target", "rtx-4090", "--finetune", "lora", "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["finetune"]) == ("qwen-pack/fit/1", "lora")
    for row in answer["results"]:
        assert row["low_bytes"] < row["each_bytes"] < row["high_bytes"]
        assert sum(row["components"].values()) == row["each_bytes"] and row["source"]
        fits, may = (
            row["high_bytes"] <= row["available_bytes"],
            row["low_bytes"] <= row["available_bytes"],
        )
        assert row["verdict"] == ("fits" if fits else "may miss" if may else "rejected")


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "laptop-cpu", "--finetune", "lora"],
        ["--target", "rtx-4090", "--gpus", "2"],
        ["--target", "rtx-4090", "--finetune", "lora", "--prefer", "quality"],
        ["--target", "rtx-4090", "--finetune", "lora", "--recipe", "gguf:Q4_0"],
        ["--target", "rtx-4090", "--finetune", "lora", "--repack"],
        ["--target", "rtx-4090", "--finetune", "lora", "--all"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(words: list[str]) -> None:
    assert main(["fit", *words]) == ExitCode.USAGE


def test_a_named_device_that_cannot_train_is_left_out_aloud(capsys: Output) -> None:
    words = ["--target", "rtx-4090", "--target", "laptop-cpu", "--finetune", "qlora"]
    assert main(["fit", *words]) == ExitCode.DONE
    assert "Left out, as fine-tuning needs a CUDA GPU: laptop-cpu." in capsys.readouterr().err
    assert main(["fit", "--model", "Qwen3-4B", "--finetune", "qlora"]) == ExitCode.DONE
    assert "Left out" not in capsys.readouterr().err
    none = ["--target", "laptop-cpu", "--target", "cpu-gguf", "--finetune", "qlora"]
    assert main(["fit", *none]) == ExitCode.USAGE
    assert "none of laptop-cpu, cpu-gguf has one" in capsys.readouterr().err
