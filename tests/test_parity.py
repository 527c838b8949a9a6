"""An artifact speaks its checkpoint's language: intact ones do, damaged ones are caught, with every
engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.template import render_both_apart
from packager.process import run_job
from packager.quality import paper
from packager.quality.parity_corpus import TEXTS, shipped_texts
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.records import Quality
from packager.records.quality import Parity
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import keys
from tests.support.make_checkpoint import write_tiny
from tests.support.parity_jobs import copy, rewrite_gguf, shift_vocabulary
from tests.support.tiers import thorough

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
RECIPES = {"llama.cpp": "Q8_0", "openvino": "int8_sym", "onnxruntime": "int8_sym_b32"}
OTHER_TEMPLATE = "{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}"

pytestmark = pytest.mark.engine


def job(name: str, arguments: dict[str, Any], log: Path) -> dict[str, Any]:
    work = run_job(name, arguments, log)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: dict[str, Any] = stop.value.value
            return value


@pytest.fixture(scope="module", params=["llama.cpp", thorough("openvino"), thorough("onnxruntime")])
def checked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the check says of an engine's artifact and of three damaged copies of it."""
    engine = request.param
    folder = tmp_path_factory.mktemp(engine)
    runtime = registry.runtime(engine)
    recipe = asdict(runtime.recipe(RECIPES[engine]))
    artifact = folder / "artifact"
    arguments = {
        "checkpoint": str(TINY),
        "recipe": recipe,
        "workload": {"context": 512},
        "out": str(artifact),
    }
    job(runtime.build_job, arguments, folder / "build.log")
    artifacts = {"intact": artifact, **DAMAGE[engine](artifact, folder)}
    arguments = {
        "session": runtime.session,
        "engine": engine,
        "artifacts": {name: str(path) for name, path in artifacts.items()},
        "checkpoint": str(TINY),
        "log": str(folder / "log"),
    }
    found = job("tests.support.parity_jobs:check_all", arguments, folder / "check.log")
    yield {**found, "engine": engine}


def damage_gguf(artifact: Path, folder: Path) -> dict[str, Path]:
    (source,) = artifact.glob("*.gguf")
    base = len(Checkpoint.open(TINY).tokenizer_config["added_tokens_decoder"])
    tokens = keys(source)["tokenizer.ggml.tokens"]
    ordinary = tokens[:-base]
    return {
        "template": rewrite_gguf(source, folder / "template.gguf", chat_template=OTHER_TEMPLATE),
        "end": rewrite_gguf(
            source,
            folder / "end.gguf",
            ggml__eos_token_id=len(ordinary) + 1,
            ggml__eot_token_id=len(ordinary) + 1,
        ),
        "vocabulary": rewrite_gguf(
            source,
            folder / "shift.gguf",
            ggml__tokens=[*ordinary[1:], ordinary[0], *tokens[-base:]],
        ),
    }


def damage_openvino(artifact: Path, folder: Path) -> dict[str, Path]:
    template, end, vocabulary = (
        copy(artifact, folder / name) for name in ("template", "end", "vocabulary")
    )
    # The engine reads this one and not the file chat_template.jinja.
    described = (template / "openvino_tokenizer.xml").read_text()
    changed, count = re.subn(
        r'<chat_template value="[^"]*"',
        f"<chat_template value={quoteattr(OTHER_TEMPLATE)}",
        described,
    )
    assert count == 1
    (template / "openvino_tokenizer.xml").write_text(changed)
    set_json(end / "generation_config.json", eos_token_id=5)
    shifted = shifted_checkpoint(folder / "shifted")
    job(
        "tests.support.parity_jobs:write_openvino_tokenizer",
        {"checkpoint": str(shifted), "out": str(vocabulary)},
        folder / "shift.log",
    )
    return {"template": template, "end": end, "vocabulary": vocabulary}


def damage_onnx(artifact: Path, folder: Path) -> dict[str, Path]:
    template, end, vocabulary = (
        copy(artifact, folder / name) for name in ("template", "end", "vocabulary")
    )
    (template / "chat_template.jinja").write_text(OTHER_TEMPLATE)
    config = json.loads((end / "genai_config.json").read_bytes())
    config["model"]["eos_token_id"] = 5
    (end / "genai_config.json").write_text(json.dumps(config))
    shift_vocabulary(vocabulary / "tokenizer.json")
    return {"template": template, "end": end, "vocabulary": vocabulary}


DAMAGE = {"llama.cpp": damage_gguf, "openvino": damage_openvino, "onnxruntime": damage_onnx}


def set_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


def shifted_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    shift_vocabulary(folder / "tokenizer.json")
    return folder


def test_an_intact_artifact_has_no_findings_and_its_answers_end(checked: dict[str, Any]) -> None:
    result = checked["intact"]
    assert result["findings"] == []
    assert result["texts"] == len(TEXTS) + 6
    assert result["tokens"] > 20_000
    assert result["control_tokens"] == 26
    # llama.cpp's file holds the checkpoint's own text; the others render in a language of theirs.
    assert result["same_template"]
    assert result["conversations"] == (0 if checked["engine"] == "llama.cpp" else 7)
    assert 0 < result["stopped_after"] < 10


def test_a_swapped_chat_template_is_caught(checked: dict[str, Any]) -> None:
    (finding,) = checked["template"]["findings"]
    assert finding.startswith("The chat template writes '[INST] ")
    assert "'<|im_start|>" in finding


def test_a_wrong_end_of_turn_is_caught(checked: dict[str, Any]) -> None:
    findings = checked["end"]["findings"]
    assert findings
    assert all(
        "The artifact does not stop at" in finding or "The artifact stops at" in finding
        for finding in findings
    )


def test_a_vocabulary_shifted_by_one_is_caught(checked: dict[str, Any]) -> None:
    findings = checked["vocabulary"]["findings"]
    assert findings[0].startswith("Token 0 of ")


def test_vocab_and_merges_alone_make_the_same_reference(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    whole = Checkpoint.open(folder)
    definition = json.loads((folder / "tokenizer.json").read_bytes())
    texts = [*TEXTS, *shipped_texts()]
    wanted = [reference_tokenizer(whole).encode(text).ids for text in texts]
    (folder / "vocab.json").write_text(json.dumps(definition["model"]["vocab"]))
    (folder / "merges.txt").write_text(
        "".join(" ".join(pair) + "\n" for pair in definition["model"]["merges"])
    )
    (folder / "tokenizer.json").unlink()
    assert [
        reference_tokenizer(Checkpoint.open(folder)).encode(text).ids for text in texts
    ] == wanted


def test_templates_that_differ_only_in_letters_that_do_not_show_are_equal(tmp_path: Path) -> None:
    one = "{% for m in messages %}{{ m.content }}{% endfor %}"
    other = "{%- for m in messages -%}{{- m['content'] -}}{%- endfor -%}"
    refusing = "{{ raise_exception('no') }}"
    conversations = {"a": {"messages": [{"role": "user", "content": "x"}]}}
    assert render_both_apart(one, other, conversations, tmp_path / "log") == [("x", "x")]
    assert render_both_apart(one, refusing, conversations, tmp_path / "log") == [("x", None)]


@pytest.mark.parametrize(
    ("compared", "words"),
    [
        ({"conversations": 7, "same_template": True}, "template and end of turn are"),
        (
            {"conversations": 7, "same_template": True},
            "24 texts encoded, 7 conversations rendered.",
        ),
        ({"same_template": True}, "24 texts encoded, the template equal letter by letter."),
        ({}, "tokens and end of turn are the checkpoint's, 24 texts encoded."),
    ],
)
def test_the_sentence_says_what_was_compared_and_no_more(
    compared: dict[str, Any], words: str
) -> None:
    quality = Quality(parity=Parity(texts=24, ends=(1,), **compared))
    assert words in paper.parity(quality)[0]
