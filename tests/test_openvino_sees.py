"""A trained model that sees, through OpenVINO: its package is built, judged and asked, its server
answers, and a damaged vision tower is stopped."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.checkpoint import Checkpoint
from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.quality import embeddings, picture_answer, picture_limits, pictures
from packager.records.quality import PictureQuality
from targets.openvino.seeing import MERGER, graphs_of
from tests.support.make_checkpoint import Silent
from tests.support.serving import DAMAGE, refusal
from tests.support.serving import damaged as damaged_file
from tests.support.shipping_packages import exported
from tests.support.tiers import thorough
from tests.test_sees import (
    TRAINED,
    answered,
    cut_off,
    damaged,
    merged_otherwise,
    swapped,
    turned,
    without_deepstack,
)
from training.picture_questions import example

pytestmark = pytest.mark.engine

SESSION = "targets.openvino.vision:VisionSession"
SETTINGS: dict[str, Any] = {"context": 128, "kv": "f16", "threads": 1}
ASKED, LEAST = 20, 6
"""Questions, and how many of them the whole model answers at least; by chance it would be one."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sees")
    words = ["build", "--target", "laptop-cpu", "--recipe", "openvino:bf16", "--context", "256"]
    words += ["--prompt", "128", "--use-case", "vision", "--max-image-tokens", "64"]
    words += ["--max-ttft-ms", "1e8", "--weights", str(TRAINED), "--out", str(home / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_PACK_CACHE", str(home / "cache"))
        assert main(words) == ExitCode.DONE
    return home / "out"


def right(artifact: Path, count: int) -> int:
    """How many of the held-out questions are answered word for word."""
    from targets.openvino.vision import VisionSession

    return answered(VisionSession(str(artifact), SETTINGS), count)


def gate(artifact: Path) -> bool:
    """Whether the tower passes beside the unquantized one of the whole checkpoint."""
    asked = {"session": SESSION, "answers": False}
    facts = pictures.compare(Silent(), asked, str(artifact), SETTINGS, Checkpoint.open(TRAINED))
    limits = picture_limits.limits("16-bit")
    assert limits is not None
    judged = embeddings.rows(PictureQuality.from_json(facts["pictures"]), limits, "image")
    return all(row.passed for row in judged)


def test_its_package_is_whole_and_sees_the_right_thing(built: Path) -> None:
    found = manifest.read(built)
    contents = found.contents
    quality = contents.quality
    assert quality is not None and quality.passed and quality.pictures is not None
    seen = quality.pictures
    assert (seen.token_counts, seen.positions, seen.answer_own) == (1, None, 1)
    assert seen.answer_kl_mean is not None and seen.answer_tokens == picture_answer.TOKENS
    assert contents.vision is not None
    assert contents.vision.file == f"model/{MERGER}"
    assert (contents.vision.type, contents.vision.max_image_tokens) == ("BF16", 64)
    names = {entry.path for entry in found.files}
    tower = Checkpoint.open(TRAINED).vision().tower
    assert {f"model/{name}" for name in graphs_of(tower)} <= names
    settings = json.loads((built / "model/preprocessor_config.json").read_text())
    assert settings["max_pixels"] == 64 * 32 * 32
    readme = (built / "README.md").read_text()
    assert "VLMPipeline" in readme and "64 tokens at most" in readme
    assert "--task text_generation --pipeline_type VLM_CB" in readme
    measured = contents.measured
    assert measured is not None and measured.image_ttft_ms and measured.image_tokens == 64
    assert right(built / "model", ASKED) >= LEAST


@pytest.mark.thorough("test_its_package_is_whole_and_sees_the_right_thing")
def test_it_takes_no_adapter_and_a_rebuild_gives_its_files_again(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--adapter", str(tmp_path), "--base", str(built)]
    assert main([*words, "--weights", str(TRAINED)]) == ExitCode.USAGE
    assert "OpenVINO adds none to a model" in " ".join(capsys.readouterr().err.split())
    again = ["verify", str(built), "--rebuild", "--weights", str(TRAINED)]
    assert main(again) == ExitCode.DONE, capsys.readouterr()


@pytest.mark.thorough("test_its_package_is_whole_and_sees_the_right_thing")
def test_run_answers_about_a_picture_and_the_server_says_the_same(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    one = example("held out/0")
    Image.fromarray(one.rgb).save(tmp_path / "0.png")
    Image.fromarray(one.rgb[::-1]).save(tmp_path / "1.png")
    asked = ["run", str(built), one.question, "--max-tokens", "12"]
    assert main([*asked, "--image", str(tmp_path / "0.png")]) == ExitCode.DONE
    said = capsys.readouterr().out.strip()
    words = ["export", str(built), "--format", "docker", "--out", str(tmp_path / "docker")]
    assert main([*words, "--accept-license", "unstated"]) == ExitCode.DONE

    def answer_of(address: str, name: str) -> str:
        picture = base64.b64encode((tmp_path / name).read_bytes()).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": one.question},
        ]
        question = {"messages": [{"role": "user", "content": parts}], "max_tokens": 12}
        request = urllib.request.Request(
            f"{address}/chat/completions",
            json.dumps({**question, "temperature": 0}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"]).strip()

    program = [sys.executable, "-E", "serve.py", "--port", "0"]
    with subprocess.Popen(program, cwd=tmp_path / "docker", stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().decode().strip()
            # What prompts have in common is computed once, and no picture is taken for another.
            answers = [answer_of(address, name) for name in ("0.png", "1.png", "0.png")]
        finally:
            server.kill()
    assert answers[::2] == [said, said]


@pytest.mark.thorough("test_its_package_is_whole_and_sees_the_right_thing")
def test_what_it_says_of_a_picture_is_judged_in_one_turn_and_in_a_later_one(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    rows: list[dict[str, Any]] = []
    said: dict[str, str] = {}
    for number in range(4):
        one = example(f"held out/{number}")
        file = tmp_path / f"{number}.png"
        Image.fromarray(one.rgb).save(file)
        asked = ["run", str(built), one.question, "--max-tokens", "12", "--image", str(file)]
        assert main(asked) == ExitCode.DONE
        said[f"seen-{number}"] = capsys.readouterr().out.strip()
        turn = {"prompt": one.question, "checks": [{"kind": "equals", "any": [one.answer]}]}
        rows.append({"id": f"seen-{number}", "images": [file.name], "max_tokens": 12, **turn})
    later = {"prompt": "again", "checks": [{"kind": "stops"}], "may_be_cut": True}
    first = {"prompt": one.question, "checks": [{"kind": "stops"}], "may_be_cut": True}
    rows.append({"id": "later", "images": [file.name], "turns": [first, later]})
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["behave", str(built), "--prompts", str(tmp_path / "mine.jsonl"), "--json"]
    assert main([*words, "--no-save"]) == ExitCode.DONE
    tried = json.loads(capsys.readouterr().out)
    passed = {row["id"]: row["passed"] for row in tried["tasks"]}
    wanted = {name: text == example(f"held out/{name[-1]}").answer for name, text in said.items()}
    assert {name: passed[name] for name in wanted} == wanted
    assert set(passed) == {*wanted, "later"} and not tried["left_out"]


@pytest.mark.parametrize(
    "damages",
    [
        {"preprocessor_config.json": ["of wrong types"], "config.json": ["cut off"]},
        thorough(
            {
                "preprocessor_config.json": list(DAMAGE),
                "config.json": ["of wrong types"],
                "generation_config.json": ["of wrong types"],
            }
        ),
    ],
    ids=["one of each", "all"],
)
def test_a_server_of_a_damaged_package_ends_with_a_sentence(
    damages: dict[str, list[str]], built: Path, tmp_path: Path
) -> None:
    """The file of the limits of pictures, which the server reads itself, and one that the engine
    reads."""
    out = exported(built, "docker", tmp_path / "docker")
    for name, kinds in damages.items():
        for kind in kinds:
            with damaged_file(out / "package" / "model" / name, kind):
                code, said = refusal(out)
            assert code == ExitCode.INPUT, (name, kind)
            reads_it = name == "preprocessor_config.json"
            assert (name if reads_it else "openvino does not open") in said, (name, kind)


@pytest.mark.thorough("test_its_package_is_whole_and_sees_the_right_thing")
@pytest.mark.parametrize("damage", [swapped, turned, merged_otherwise, without_deepstack, cut_off])
def test_a_damaged_tower_is_stopped(
    tmp_path: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    from targets.openvino import light_vision

    checkpoint = damaged(tmp_path / "damaged", damage)
    light_vision.export(Silent(), checkpoint, None, tmp_path / "artifact", 128, None)
    assert not gate(tmp_path / "artifact")
