"""The training text as documents: a prompt that is given and a completion that is to be learnt.
Everything follows from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from packager.checkpoint.template import render
from training import prose, tasks

HERE = Path(__file__).resolve().parent
END = "<|endoftext|>"

TEMPLATE = (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
PROJECT = (HERE / "project.txt").read_text(encoding="utf-8")
"""Documentation and source of qwen-pack as they once were, so that the model has seen text that
nobody generated."""

HELD_OUT_SHARE = 0.1
_SLICE = 500
_SHARES = {
    tasks.make: 11,
    prose.english: 3,
    prose.chinese: 2,
    prose.code: 2,
    prose.maths: 1,
    prose.record: 1,
}
_PROJECT_SHARE = 2


@dataclass(frozen=True, slots=True)
class Document:
    """`prompt` is given (and only lightly learnt), `completion` learnt; a text without a question
    has no prompt."""

    kind: str
    prompt: str
    completion: str


def document(random: Random, *, held_out: bool = False) -> Document:
    """One document of the training part, or of the held-out part."""
    make = random.choices([*_SHARES, None], [*_SHARES.values(), _PROJECT_SHARE])[0]
    if make is None:
        return Document("project", "", _slice(random, held_out) + END)
    if make is not tasks.make:
        return Document("prose", "", make(random) + END)
    task = tasks.make(random)
    while task.held_out() is not held_out:
        task = tasks.make(random)
    return of_task(task, think=random.random() < 0.4)


def of_task(task: tasks.Task, *, think: bool) -> Document:
    """The conversation as the chat template writes it."""
    more = {"tools": task.tools} if task.tools else {}
    prompt = render(TEMPLATE, task.messages, enable_thinking=think, **more)
    return Document(task.kind, prompt, task.completion(think=think) + END)


def documents(seed: str, *, held_out: bool = False) -> Iterator[Document]:
    """Documents without end; the seed decides all of them."""
    random = Random(seed)
    while True:
        yield document(random, held_out=held_out)


def _slice(random: Random, held_out: bool) -> str:
    border = int(len(PROJECT) * (1 - HELD_OUT_SHARE))
    first, last = (border, len(PROJECT) - _SLICE) if held_out else (0, border - _SLICE)
    start = PROJECT.find("\n", random.randint(first, last)) + 1
    return PROJECT[start : start + _SLICE]
