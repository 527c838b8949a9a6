"""The small real model that comes with the tests: small, whole, and worth something."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from packager.checkpoint import Checkpoint
from packager.checkpoint.template import render
from packager.reference import Reference
from targets.llama_cpp.session import Session
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import build
from tests.support.make_checkpoint import Silent
from training import corpus, tokenizer
from training.questions import held_out
from training.tasks import Task

pytestmark = pytest.mark.engine

FOLDER = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(FOLDER)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def perplexity(checkpoint: Checkpoint, sequences: list[list[int]]) -> float:
    """Of every token behind the first, by the numpy forward pass."""
    nats = []
    for block in Reference.compute(checkpoint, sequences, Silent()).blocks():
        following = sequences[block.sequence][block.start + 1 :][: len(block.log_probabilities)]
        nats += [-block.log_probabilities[place, token] for place, token in enumerate(following)]
    return float(np.exp(np.mean(nats)))


def test_it_is_small_enough_to_be_kept_with_the_source(checkpoint: Checkpoint) -> None:
    assert checkpoint.weight_bytes == 2 * checkpoint.shape.parameters()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
    rows = {tensor.shape[-1] for tensor in checkpoint.tensors.values() if len(tensor.shape) == 2}
    assert all(row % 256 == 0 for row in rows)


def test_the_ends_of_a_turn_are_its_control_tokens(
    checkpoint: Checkpoint, words: Tokenizer
) -> None:
    ends = [words.id_to_token(number) for number in checkpoint.generation_config["eos_token_id"]]
    assert ends == ["<|im_end|>", "<|endoftext|>"]
    assert checkpoint.tokenizer_config["eos_token"] == "<|im_end|>"


def test_its_template_is_the_one_in_the_training_folder(checkpoint: Checkpoint) -> None:
    assert checkpoint.chat_template == corpus.TEMPLATE


def test_the_template_writes_chatml_with_tools_and_a_switch_for_thinking() -> None:
    question = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    plain = (
        "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(corpus.TEMPLATE, question) == plain
    assert (
        render(corpus.TEMPLATE, question, enable_thinking=False)
        == plain + "<think>\n\n</think>\n\n"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    turns = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "<think>\nThree.\n</think>\n\n3"},
    ]
    assert render(corpus.TEMPLATE, turns, tools=[{"x": 1}], add_generation_prompt=False) == (
        '<|im_start|>system\nTools that can be called:\n<tools>\n{"x": 1}\n</tools>\nA call looks '
        "like this:\n<tool_call>\n"
        '{"name": NAME, "arguments": ARGUMENTS}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nAdd.<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": '
        "2}}\n</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n3<|im_end|>\n"
    )


def test_the_text_follows_from_its_seed_and_its_parts_share_no_conversation() -> None:
    first, again = (list(itertools.islice(corpus.documents("x"), 200)) for _ in range(2))
    assert first == again
    assert first != list(itertools.islice(corpus.documents("y"), 200))
    seen = {
        document.prompt
        for document in itertools.islice(corpus.documents("x"), 3000)
        if document.prompt
    }
    kept = {
        document.prompt
        for document in itertools.islice(corpus.documents("x", held_out=True), 1000)
        if document.prompt
    }
    assert len(seen) > 500
    assert len(kept) > 200
    assert not seen & kept


def test_no_sentence_of_the_shipped_text_is_in_the_training_text() -> None:
    shipped = [
        line
        for path in (REPOSITORY / "packager/quality/text").glob("*.txt")
        for line in path.read_text().splitlines()
    ]
    long = [line for line in shipped if len(line) > 60]
    assert len(long) > 100
    assert not [line for line in long if line in corpus.PROJECT]


def test_its_perplexity_on_held_out_text_is_far_below_that_of_a_uniform_guess(
    checkpoint: Checkpoint, words: Tokenizer
) -> None:
    documents = itertools.islice(corpus.documents("perplexity", held_out=True), 15)
    sequences = [
        words.encode(document.prompt + document.completion, add_special_tokens=False).ids
        for document in documents
    ]
    assert perplexity(checkpoint, sequences) < tokenizer.VOCAB / 100
    # Backwards, the same tokens surprise it: what it knows is their order.
    assert perplexity(checkpoint, [sequence[::-1] for sequence in sequences]) > tokenizer.VOCAB / 20


@pytest.mark.engine
def test_it_answers_held_out_questions_in_the_form_asked_for_and_ends_its_turn(
    tmp_path: Path,
) -> None:
    session = Session(
        str(build(FOLDER, tmp_path / "tiny.gguf", "F16")),
        {"context": 512, "kv": "f16", "threads": 1},
    )
    right = []
    tasks = [task for task in held_out("test", 60) if task.kind in ("sum", "json", "tool")][:16]
    for number, task in enumerate(tasks):
        document = corpus.of_task(task, think=number % 2 == 0)
        ids = session.generate(session.encode(document.prompt), 80, lambda token: None)
        assert len(ids) < 80, "the turn does not end"
        right.append(in_form(task, session.decode(ids).split("</think>\n\n")[-1]))
    session.close()
    assert {task.kind for task in tasks} == {"sum", "json", "tool"}
    assert sum(right) >= len(tasks) - 1


def in_form(task: Task, answer: str) -> bool:
    """A number, a JSON object, or a call of a tool that was offered, as the question wants it."""
    if task.kind == "sum":
        return answer.lstrip("-").isdigit()
    found = json.loads(answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    return (
        isinstance(found, dict)
        if task.kind == "json"
        else found["name"] in {tool["function"]["name"] for tool in task.tools}
    )
