"""`build` for a device that is not here, and with several recipes or runtimes: real engines on a
tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from packager.paths import cache_dir
from targets import registry
from tests.support.calm import calm
from tests.support.make_checkpoint import write_tiny

pytestmark = pytest.mark.engine

PI = ["build", "--target", "raspberry-pi-5-8gb", "--context", "256"]
PC = ["build", "--target", "cpu-gguf", "--context", "256"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


def manifest(package: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((package / "manifest.json").read_text())
    return found


def test_a_package_for_another_device_is_checked_here_and_judged_there(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "p"
    flags = [
        *PI,
        "--recipe",
        "gguf:Q4_0",
        "--min-decode-tps",
        "1",
        "--weights",
        str(checkpoint),
        "--out",
        str(package),
    ]
    assert main(flags) == ExitCode.DONE
    said = capsys.readouterr()
    assert "Not yet measured on the device: the device is" in said.out
    assert "`qwen-pack bench` on raspberry-pi-5-8gb adds its figures" in said.err
    before = manifest(package)
    assert before["measured"]["decode_tps"] > 0
    assert before["measured"]["place"]["on_device"] is False
    assert before["device"]["known_by"] == ["Raspberry Pi 5"]
    assert {"memory", "decode"} <= {row["rule"] for row in before["verdicts"]}
    assert {(row["measured"], row["passed"]) for row in before["verdicts"]} == {(None, None)}
    assert "**Not yet measured on the device**" in (package / "README.md").read_text()

    assert main(["bench", str(package)]) == ExitCode.DONE
    assert "The budgets stay as they are" in capsys.readouterr().err
    assert manifest(package) == before

    assert main(["bench", str(package), "--on-device", "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["saved"] is True
    after = manifest(package)
    assert after["measured"] == before["measured"]
    assert [one["place"]["on_device"] for one in after["measurements"]] == [True]
    assert {row["rule"]: row["passed"] for row in after["verdicts"]}["decode"] is True
    assert answer["verdicts"] == after["verdicts"]
    assert verify(package) == []


@pytest.mark.thorough(
    "test_a_package_for_another_device_is_checked_here_and_judged_there",
    "test_a_session_for_a_missing_provider_ends_in_a_sentence",
)
def test_a_package_for_a_provider_that_is_not_here_is_built_and_says_why_it_was_not_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "p"
    flags = [
        "--target",
        "edge-gpu",
        "--recipe",
        "onnx:cuda_int4_sym_b32",
        "--context",
        "256",
        "--weights",
        str(checkpoint),
    ]
    assert main(["build", *flags, "--out", str(package)]) == ExitCode.DONE
    said = capsys.readouterr()
    assert "Not yet measured on the device: This package is made for CUDA" in said.out
    found = manifest(package)
    assert found["measured"] is None
    assert "CUDA, which ONNX Runtime does not have on this machine" in found["not_measured"]
    assert {row["passed"] for row in found["verdicts"]} == {None}
    assert found["quality"]["skipped"] == "the artifact cannot be run on this machine"
    assert found["quality"]["passed"] is None and found["quality"]["parity"] is None
    assert found["recipe"]["provider"] == "cuda"
    readme = (package / "README.md").read_text()
    assert "execution provider cuda" in readme
    assert "pip install onnxruntime-genai-cuda" in readme
    assert main(["verify", str(package)]) == ExitCode.DONE
    for command in (["bench", str(package)], ["run", str(package), "Hello"]):
        capsys.readouterr()
        assert main(command) == ExitCode.USAGE
        assert (
            "Run it on a machine with an NVIDIA GPU after: pip install" in capsys.readouterr().err
        )


def test_several_recipes_are_built_and_measured_and_the_best_is_kept_with_the_figures_of_the_others(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "p"
    recipes = ["--recipe", "gguf:F16", "--recipe", "gguf:Q8_0"]
    flags = [
        *PC,
        *recipes,
        "--prefer",
        "quality",
        "--weights",
        str(checkpoint),
        "--out",
        str(package),
    ]
    assert main(flags) == ExitCode.DONE
    said = capsys.readouterr()
    assert "gguf:F16 with llama.cpp (1 of 2)" in said.err
    assert "gguf:Q8_0 with llama.cpp (2 of 2)" in said.err
    assert "Kept: " in said.err
    found = manifest(package)
    (other,) = found["alternatives"]
    assert {found["recipe"]["id"], other["recipe"]} == {"gguf:F16", "gguf:Q8_0"}
    assert other["measured"]["decode_tps"] > 0
    assert other["predicted"]["footprint"]["peak"] > 0
    assert other["reason"] is None
    assert verify(package) == []
    rows = {line.split("\t")[0]: line.split("\t") for line in said.out.splitlines()}
    assert (
        len(rows["gguf:F16"]) == len(rows["gguf:Q8_0"])
        and "kept" in rows[found["recipe"]["id"]][-1]
    )

    # What was noisy is measured again, and then the package is another one; so the comparison
    # starts from calm figures.
    calm(cache_dir())
    assert main([*flags, "--json"]) == ExitCode.DONE
    once = json.loads(capsys.readouterr().out)["manifest"]
    assert main([*flags, "--json"]) == ExitCode.DONE
    again = capsys.readouterr()
    assert again.err.count("cached") >= 4
    assert json.loads(again.out)["manifest"] == once, "the same comparison finds its package again"


@pytest.mark.thorough(
    "test_several_recipes_are_built_and_measured_and_the_best_is_kept_with_the_figures_of_the_others",
    "test_a_runtime_that_cannot_build_the_variant_is_a_row_with_its_reason",
)
def test_the_three_engines_are_built_by_one_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "p"
    flags = [
        "--target",
        "laptop-cpu",
        "--runtime",
        "all",
        "--context",
        "256",
        "--weights",
        str(checkpoint),
        "--out",
        str(package),
    ]
    assert main(["build", *flags]) == ExitCode.DONE
    capsys.readouterr()
    found = manifest(package)
    rows = [{**found, "reason": None}, *found["alternatives"]]
    built = {row["runtime"]["name"] for row in rows if row["reason"] is None}
    assert built == {"llama.cpp", "openvino", "onnxruntime"}, [row["reason"] for row in rows]
    for row in rows:
        figures = row["measured"]
        assert row["artifact_bytes"] > 0
        assert all(
            figures[name] > 0
            for name in ("peak_memory_bytes", "ttft_ms", "prefill_tps", "decode_tps")
        )
        assert figures["machine"] == found["measured"]["machine"]


def test_a_runtime_that_cannot_build_the_variant_is_a_row_with_its_reason(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry.runtime("onnxruntime"), "distributions", ("no-such-engine",))
    package = tmp_path / "p"
    flags = [*PI, "--runtime", "llama.cpp", "--runtime", "onnxruntime", "--recipe", "gguf:Q8_0"]
    assert main([*flags, "--weights", str(checkpoint), "--out", str(package)]) == ExitCode.DONE
    assert "pip install 'qwen-pack[onnx]'" in capsys.readouterr().err
    (row,) = manifest(package)["alternatives"]
    assert row["measured"] is None and "no-such-engine missing" in row["reason"]


@pytest.mark.parametrize(
    ("flags", "words", "code"),
    [
        (
            ["--runtime", "openvin"],
            "There is no runtime 'openvin'. Did you mean 'openvino'",
            ExitCode.USAGE,
        ),
        (["--runtime", "openvino"], "raspberry-pi-5-8gb is not served by openvino", ExitCode.USAGE),
        (
            ["--runtime", "all", "--recipe", "openvino:int8_asym"],
            "belongs to no runtime that is compared",
            ExitCode.USAGE,
        ),
        (["--runtime", "all", "--recipe", "gguf:Q9"], "Q9", ExitCode.USAGE),
        (["--runtime", "all", "--max-memory-mb", "1"], "Nothing fits", ExitCode.NOTHING_FITS),
    ],
)
def test_what_cannot_be_compared_ends_in_a_sentence(
    flags: list[str],
    words: str,
    code: ExitCode,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*PI, *flags, "--weights", str(checkpoint), "--out", str(tmp_path / "p")]) == code
    said = capsys.readouterr()
    assert words in said.err and "Traceback" not in said.err
    assert not (tmp_path / "p").exists()
