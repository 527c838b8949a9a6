"""A small model that was trained, asked through its real engine: what it can do passes, what it
cannot fails by its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.manifest import read
from packager.package.verify import verify
from tests.support.trained_package import write_trained
from training.tasks import tool

pytestmark = pytest.mark.engine

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
TASKS: list[dict[str, Any]] = [
    {
        "id": "sum",
        "prompt": "16 - 11 = ?",
        "checks": [
            {"kind": "regex", "pattern": r"\A-?\d+\Z", "fails_as": "format"},
            {"kind": "stops"},
        ],
    },
    {
        "id": "json",
        "pass": "stress",
        "prompt": "As JSON, please: age 81, name Uwe",
        "checks": [{"kind": "json", "schema": AGE}],
    },
    {
        "id": "tool",
        "tools": [tool("get_weather"), tool("set_timer")],
        "turns": [
            {
                "prompt": "Set a timer for 4 minutes.",
                "checks": [{"kind": "tool_call", "name": "set_timer"}],
            }
        ],
    },
    {
        "id": "needless",
        "tools": [tool("set_timer")],
        "prompt": "Set a timer for 4 minutes.",
        "checks": [{"kind": "no_tool_call"}],
    },
    {
        "id": "capital",
        "prompt": "What is the capital of Japan?",
        "checks": [{"kind": "regex", "pattern": "Tokyo"}],
    },
    {
        "id": "short",
        "prompt": "As JSON, please: age 81, name Uwe",
        "max_tokens": 2,
        "checks": [{"kind": "stops"}],
    },
]
"""The model learned forms, hardly facts."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return write_trained(folder / "q8"), write_trained(folder / "q4", "Q4_K_M")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))


def test_a_users_own_tasks_are_asked_of_two_sizes_and_the_results_stay_with_the_packages(
    packages: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, smaller = packages
    prompts = tmp_path / "mine.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in TASKS))
    for percent, code in (("50", ExitCode.DONE), ("51", ExitCode.BUDGET)):
        assert (
            main(
                [
                    "behave",
                    str(package),
                    "--prompts",
                    str(prompts),
                    "--no-save",
                    "--fail-under",
                    percent,
                ]
            )
            == code
        )
        capsys.readouterr()
    assert (
        main(
            ["behave", str(package), "--smaller", str(smaller), "--prompts", str(prompts), "--json"]
        )
        == ExitCode.DONE
    )
    out = json.loads(capsys.readouterr().out)
    assert out["schema"] == "qwen-pack/behave/1" and out["saved"] and out["set"] == "mine.jsonl"
    assert {row["id"]: row["passed"] for row in out["tasks"]} == {
        **dict.fromkeys(("sum", "json", "tool"), True),
        **dict.fromkeys(("needless", "capital", "short"), False),
    }, [row["answers"] for row in out["tasks"]]
    assert out["failures"] == {
        "wrong_answer": 1,
        "lost_fact": 0,
        "format": 0,
        "tool_misuse": 1,
        "wrong_stop": 1,
    }
    assert (
        out["neighbours"]["smaller"]["name"] == "tiny-Q4_K_M"
        and out["neighbours"]["smaller"]["total"] == 6
    )
    for path in packages:
        assert verify(path) == [] and read(path).data["behaviour"]["total"] == 6

    assert (
        main(["compare", str(package), str(smaller), "--json", "--price-per-hour", "3.6"])
        == ExitCode.DONE
    )
    rows = {row["figure"]: row["values"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["tasks_passed"][0] == pytest.approx(50)
    assert rows["cost_per_successful_task"][0] == pytest.approx(0.001 * out["seconds"] / 3)


def test_our_own_tasks_run_to_their_end_and_nothing_is_saved_where_that_is_not_wanted(
    packages: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (packages[0] / "manifest.json").read_bytes()
    assert main(["behave", str(packages[0]), "--no-save"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0][1:3] == ["baseline", "stress"] and lines[1][0] == "tiny-Q8_0"
    assert "capital: wrong answer: has none of Tokyo" in err and "long-late: lost fact" in err
    assert (packages[0] / "manifest.json").read_bytes() == before
