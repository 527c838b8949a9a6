"""A package is measured and run again by its engine, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.support.trained_package import write_trained

pytestmark = pytest.mark.engine


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_trained(tmp_path / "package")


def test_bench_measures_a_package_again_and_keeps_the_figures_only_when_asked(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (package / "manifest.json").read_bytes()
    assert main(["bench", str(package), "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "qwen-pack/bench/1"
    assert answer["measured"]["decode_tps"] > 0
    assert {row["figure"] for row in answer["rows"]} >= {
        "ttft_ms",
        "decode_tps",
        "peak_memory_bytes",
    }
    assert (package / "manifest.json").read_bytes() == before
    assert main(["bench", str(package), "--save"]) == ExitCode.DONE
    assert "decode" in capsys.readouterr().out
    assert len(json.loads((package / "manifest.json").read_text())["measurements"]) == 1
    assert verify(package) == []


def test_run_answers_on_stdout_and_twice_the_same(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for _ in range(2):
        assert main(["run", str(package), "Hello", "--max-tokens", "8"]) == ExitCode.DONE
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1
