"""A trained model that sees: it names what is on the left and on the right of a drawn picture, as a
package does; a damaged vision tower is stopped, and says something else (training/picture_questions.py)."""

from __future__ import annotations

import json
import shutil
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
from targets.gguf.convert import convert
from targets.gguf.projector import convert_projector
from targets.llama_cpp.vision import VisionSession
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.tiers import thorough
from training.picture_questions import example

pytestmark = pytest.mark.engine

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3-vl"
ASKED, LEAST = 60, 18
"""Questions, and how many of them the whole model answers at least; by chance it would be two."""
SETTINGS: dict[str, Any] = {"context": 128, "kv": "f16", "threads": 1}
SESSION = "targets.llama_cpp.vision:VisionSession"


class Quiet(Silent):
    def text(self, piece: str) -> None:
        pass


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "model.gguf"
    convert(TRAINED, path, "BF16")
    return path


def artifact(decoder: Path, checkpoint: Path, folder: Path, kind: str = "F16") -> Path:
    """Both files: the decoder as it is, and the tower of a checkpoint."""
    folder.mkdir()
    (folder / "model.gguf").symlink_to(decoder)
    convert_projector(checkpoint, folder / "mmproj.gguf", kind, report=Quiet())
    return folder


def damaged(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A copy of the checkpoint, its weights and its vision_config changed."""
    pytest.importorskip("torch", reason="changes the weights")
    from safetensors.torch import load_file, save_file

    shutil.copytree(TRAINED, folder)
    weights, config = (
        load_file(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text("utf-8")),
    )
    change(weights, config["vision_config"])
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(contiguous, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def right(files: Path) -> int:
    """How many of the held-out questions are answered word for word."""
    return answered(VisionSession(str(files), SETTINGS), ASKED)


def answered(session: Any, count: int) -> int:
    """How many of the first held-out questions a packager.session.VisionSession answers word for
    word; it is closed."""
    same = 0
    try:
        for number in range(count):
            one = example(f"held out/{number}")
            height, width, _ = one.rgb.shape
            picture = {"data": one.rgb.tobytes(), "width": width, "height": height}
            texts = ["<|im_start|>user\n", f"{one.question}<|im_end|>\n<|im_start|>assistant\n"]
            seen = session.look(texts, [picture], 12, lambda _: None)
            same += session.decode(seen.tokens) == one.answer
    finally:
        session.close()
    return same


def gate(files: Path, grade: str) -> bool:
    """Whether the encoder passes beside the unquantized tower of the whole checkpoint."""
    asked = {"session": SESSION, "answers": False}
    facts = pictures.compare(Quiet(), asked, str(files), SETTINGS, Checkpoint.open(TRAINED))
    limits = picture_limits.limits(grade)
    assert limits is not None
    return all(
        row.passed
        for row in embeddings.rows(PictureQuality.from_json(facts["pictures"]), limits, "image")
    )


@pytest.mark.parametrize(("kind", "grade"), [thorough("F16", "16-bit"), ("Q8_0", "8-bit")])
def test_it_sees_the_right_thing(decoder: Path, tmp_path: Path, kind: str, grade: str) -> None:
    files = artifact(decoder, TRAINED, tmp_path / "whole", kind)
    assert right(files) >= LEAST
    assert gate(files, grade)


def swapped(weights: dict[str, Any], _: dict[str, Any]) -> None:
    name = "model.visual.patch_embed.proj.weight"
    weights[name] = weights[name].flip(1)


def turned(weights: dict[str, Any], _: dict[str, Any]) -> None:
    name = "model.visual.patch_embed.proj.weight"
    weights[name] = weights[name].transpose(3, 4)


def merged_otherwise(weights: dict[str, Any], _: dict[str, Any]) -> None:
    for name in list(weights):
        if name.startswith("model.visual.") and name.endswith("merger.linear_fc1.weight"):
            wide = weights[name]
            weights[name] = wide.view(len(wide), 4, -1)[:, [3, 2, 1, 0]].reshape(wide.shape)


def without_deepstack(weights: dict[str, Any], _: dict[str, Any]) -> None:
    for name in weights:
        if "deepstack_merger_list" in name and "linear_fc2" in name:
            weights[name] = weights[name] * 0


def cut_off(weights: dict[str, Any], vision: dict[str, Any]) -> None:
    vision["depth"] -= 1
    for name in [name for name in weights if f"visual.blocks.{vision['depth']}." in name]:
        del weights[name]


@pytest.mark.parametrize(
    "damage",
    [swapped, *map(thorough, (turned, merged_otherwise, without_deepstack)), cut_off],
)
def test_a_damaged_tower_is_stopped(
    decoder: Path, tmp_path: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    files = artifact(decoder, damaged(tmp_path / "damaged", damage), tmp_path / "files")
    assert not gate(files, "8-bit")
    if damage is swapped:
        assert right(files) < LEAST - 3


def test_its_package_is_built_judged_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    words = ["build", "--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--context", "256"]
    words += ["--prompt", "128", "--use-case", "vision", "--max-image-tokens", "64"]
    words += ["--max-ttft-ms", "1e8", "--weights", str(TRAINED), "--out", str(tmp_path / "out")]
    assert main(words) == ExitCode.DONE
    quality = manifest.read(tmp_path / "out").contents.quality
    assert quality is not None and quality.passed and quality.pictures is not None
    seen = quality.pictures
    assert (seen.token_counts, seen.positions, seen.answer_own) == (1, 1, 1)
    assert seen.answer_kl_mean is not None and seen.answer_tokens == picture_answer.TOKENS
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "8 of 8 sizes get the published number of image tokens." in readme
    assert f"A text of {picture_answer.TOKENS} tokens after a picture: divergence" in readme
    answers = []
    for number in range(6):
        one = example(f"held out/{number}")
        Image.fromarray(one.rgb).save(tmp_path / f"{number}.png")
        capsys.readouterr()
        asked = ["run", str(tmp_path / "out"), one.question, "--max-tokens", "12"]
        assert main([*asked, "--image", str(tmp_path / f"{number}.png")]) == ExitCode.DONE
        answers.append(capsys.readouterr().out.strip() == one.answer)
    assert any(answers)
    # The same as tasks: what `run` says is what `behave` judges, in one turn and in a later one.
    rows: list[dict[str, Any]] = []
    for number, right_one in enumerate(answers):
        one = example(f"held out/{number}")
        turn = {"prompt": one.question, "checks": [{"kind": "equals", "any": [one.answer]}]}
        rows.append({"id": f"seen-{number}", "images": [f"{number}.png"], "max_tokens": 12, **turn})
        if right_one:
            twice = [turn, {"prompt": "again", "checks": [{"kind": "stops"}], "may_be_cut": True}]
            rows.append({"id": f"later-{number}", "images": [f"{number}.png"], "turns": twice})
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    words = ["behave", str(tmp_path / "out"), "--prompts", str(tmp_path / "mine.jsonl"), "--json"]
    assert main([*words, "--no-save"]) == ExitCode.DONE
    tried = json.loads(capsys.readouterr().out)
    found = {row["id"]: row["passed"] for row in tried["tasks"]}
    assert [found[f"seen-{number}"] for number in range(6)] == answers
    assert all(passed for name, passed in found.items() if name.startswith("later"))
    assert len(found) == len(rows) and not tried["left_out"]
