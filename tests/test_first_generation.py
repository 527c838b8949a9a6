"""First-generation checkpoints: opened without the Python that they bring; everything else with
Python stays refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.checkpoint import Checkpoint, template
from packager.checkpoint.tiktoken import SPECIAL
from packager.errors import ExitCode, PackError
from packager.process import run_job
from packager.shape import Shape
from packager.sources import local
from tests.support.make_checkpoint import Silent, write_tiny

SHAPE = Shape("qwen", 64, 2, 2, 2, 32, 128, 1024, False, True, False, 2048, 10_000.0)
AUTO_MAP = {
    "AutoConfig": "configuration_qwen.QWenConfig",
    "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the hub has it: an auto_map in both configs, and Python that would leave a trace if it
    ran."""
    folder = write_tiny(tmp_path / "qwen", shape=SHAPE)
    edit(folder / "config.json", auto_map=AUTO_MAP)
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
    )
    for name in ("modeling_qwen.py", "tokenization_qwen.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    return folder


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(PackError) as failure:
        Checkpoint.open(folder)
    assert failure.value.exit_code == ExitCode.INPUT
    assert all(word in failure.value.message for word in words), failure.value.message


def test_it_opens_with_its_shape_its_tokenizer_file_and_the_format_that_it_chats_in(
    folder: Path,
) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.shape == SHAPE
    assert checkpoint.tiktoken == folder / "qwen.tiktoken" and checkpoint.tokenizer_json is None
    assert template.render(checkpoint.chat_template or "", [{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful "
        "assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_turn_of_ones_own_takes_the_place_of_the_usual_one(folder: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rendered = template.render(Checkpoint.open(folder).chat_template or "", messages)
    assert (
        rendered == "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_base_model_has_no_chat_format(folder: Path) -> None:
    edit(folder / "generation_config.json", chat_format="raw")
    assert Checkpoint.open(folder).chat_template is None


def test_its_python_is_no_part_of_it_and_that_is_said(folder: Path) -> None:
    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    facts = local.fetch(
        Listening(), folder=str(folder), repo_id="tests/qwen", shape=fields(), out=""
    )
    assert not any(file["path"].endswith(".py") for file in facts["files"])
    assert (
        len(notes) == 1 and "its own Python code" in notes[0] and "neither read nor run" in notes[0]
    )
    assert not (folder.parent / "trace").exists()


@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoModelForCausalLM": "modeling_other.QWenLMHeadModel"},
        {**AUTO_MAP, "AutoModel": "helpers.Something"},
        {"AutoConfig": 7},
        ["configuration_qwen.QWenConfig"],
    ],
    ids=["another module", "one more class", "a number", "a list"],
)
def test_any_other_python_is_refused_still(folder: Path, auto_map: Any) -> None:
    edit(folder / "config.json", auto_map=auto_map)
    refused(folder, "config.json", "auto_map", "never run")


def test_the_same_python_under_another_architecture_is_refused_still(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    edit(folder / "config.json", auto_map=AUTO_MAP)
    refused(folder, "config.json", "auto_map", "never run")


def test_a_fine_tune_that_names_the_repository_of_the_classes_is_the_same(folder: Path) -> None:
    edit(
        folder / "config.json",
        auto_map={key: f"Qwen/Qwen-7B-Chat--{value}" for key, value in AUTO_MAP.items()},
    )
    assert Checkpoint.open(folder).shape == SHAPE


@pytest.mark.parametrize("encoder", ["visual", "audio"])
def test_its_image_and_audio_models_are_not_mistaken_for_it(folder: Path, encoder: str) -> None:
    edit(folder / "config.json", **{encoder: {"layers": 48}})
    refused(folder, "config.json")


@pytest.mark.parametrize("encoder", ["visual", "audio"])
def test_without_python_they_are_named_for_what_they_are(folder: Path, encoder: str) -> None:
    edit(folder / "config.json", auto_map=None, **{encoder: {"layers": 48}})
    edit(folder / "tokenizer_config.json", auto_map=None)
    refused(folder, "config.json", "image or audio encoder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "ranks"),
        (b"IQ== 0\nIg== 2\n", "ranks"),
        (b"IQ== 0\nIg==\n", "line 2"),
        (b"IQ== 0\n!!!! 1\n", "line 2"),
        (b"IQ== zero\n", "line 1"),
    ],
    ids=["empty", "a gap", "no rank", "no base64", "no number"],
)
def test_a_damaged_vocabulary_is_named(folder: Path, text: bytes, words: str) -> None:
    (folder / "qwen.tiktoken").write_bytes(text)
    refused(folder, "qwen.tiktoken", words)


def test_a_vocabulary_larger_than_the_embedding_is_refused(folder: Path) -> None:
    path = folder / "qwen.tiktoken"
    ranks = len(path.read_bytes().splitlines())
    assert ranks + len(SPECIAL) == SHAPE.vocab
    path.write_bytes(path.read_bytes() + b"YWFhYWFhYWE= %d\n" % ranks)
    refused(folder, "qwen.tiktoken", str(SHAPE.vocab + 1), str(SHAPE.vocab))


def test_opening_in_a_child_process_runs_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    list(
        run_job(
            "packager.sources.local:fetch",
            {"folder": str(folder), "repo_id": "tests/qwen", "shape": fields(), "out": ""},
            tmp_path / "log",
        )
    )
    assert not (tmp_path / "trace").exists()


def fields() -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(SHAPE)
