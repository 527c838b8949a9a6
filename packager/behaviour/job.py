"""Ask a loaded model every task, in a child process: render, generate greedily, judge. One model,
many conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from packager.behaviour.answer import parse
from packager.behaviour.checks import failures
from packager.behaviour.long_text import MOST_TOKENS, SHARE, long_text
from packager.behaviour.tasks import Task, Turn, read, shipped
from packager.checkpoint.template import render_apart, render_both_apart
from packager.errors import PackError, bad_input
from packager.json_values import JsonObject, at
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session

THOUGHT_TOKENS = 1024
"""What a model that thinks aloud may add to an answer."""
_LEAST_ANSWER = 8


class _LeftOut(Exception):
    """A task that cannot be asked of this package, and why: it is not counted."""


def ask_all(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    template: str | None,
    prompts: str | None,
    think: bool,
    log: str,
) -> JsonObject:
    """A row per task in `tasks[]`, those that could not be asked in `left_out[]`, and what the
    answers took together.

    `template` is the chat template's text, None for a model without one; `prompts` a user's own
    file, None for ours.
    """
    tasks = (read(Path(prompts)) if prompts else shipped()).tasks
    openings = _openings(tasks, template, think, Path(log))
    model: Session = resolve(session)(artifact, settings)
    asking = _Asking(model, at(settings, "context", int), template, think, Path(log))
    rows, left_out = [], []
    try:
        for number, task in enumerate(tasks):
            report.progress(number, len(tasks), "tasks")
            try:
                rows.append(asking.task(task, openings[task.id]))
            except _LeftOut as reason:
                left_out.append({"id": task.id, "why": str(reason)})
        report.progress(len(tasks), len(tasks), "tasks")
    finally:
        model.close()
    taken = {
        "seconds": asking.seconds,
        "new_tokens": asking.new_tokens,
        "prompt_tokens": asking.prompt_tokens,
    }
    return {"tasks": rows, "left_out": left_out, **taken}


class _Asking:
    """A model with what it takes to ask it, and what the answers took so far."""

    def __init__(
        self, model: Session, context: int, template: str | None, think: bool, log: Path
    ) -> None:
        self._model, self._context, self._template, self._think, self._log = (
            model,
            context,
            template,
            think,
            log,
        )
        self.seconds, self.new_tokens, self.prompt_tokens = 0.0, 0, 0

    def task(self, task: Task, opening: str | None) -> JsonObject:
        """The row of one task, `opening` its first prompt. What follows a wrong turn is not asked:
        it builds on what was never said."""
        if opening is None:
            raise _LeftOut(
                "the chat template, or the lack of one, does not allow this conversation"
            )
        messages = _first(task)
        prompt = opening
        if task.fact is not None:
            text = self._long_text(task, opening)
            prompt = opening.replace("{text}", text)
            messages[-1] = {
                "role": task.turns[0].role,
                "content": task.turns[0].text.replace("{text}", text),
            }
        wrong: list[JsonObject] = []
        answers: list[str] = []
        for number, turn in enumerate(task.turns, 1):
            if number > 1:
                messages.append({"role": turn.role, "content": turn.text})
                prompt = self._render(task, messages)
            reply, stopped = self._reply(turn, prompt)
            answer = parse(reply, stopped)
            answers.append(reply)
            here = failures(answer, turn.checks, may_be_cut=turn.may_be_cut)
            wrong += [{"turn": number, "kind": each.kind, "why": each.why} for each in here]
            if here:
                break
            messages.append(answer.message())
        return {
            "id": task.id,
            "pass": task.stage,
            "passed": not wrong,
            "failures": wrong,
            "answers": answers,
        }

    def _long_text(self, task: Task, opening: str) -> str:
        def length(text: str) -> int:
            return len(self._model.encode(text))

        around = length(opening) + self._most(task.turns[0])
        text = long_text(
            str(task.fact),
            task.depth,
            min(int(SHARE * self._context), MOST_TOKENS, self._context - around),
            length,
        )
        if text is None:
            raise _LeftOut(f"a context of {self._context} tokens has no room for a long text")
        return text

    def _most(self, turn: Turn) -> int:
        return turn.max_tokens + (THOUGHT_TOKENS if self._think else 0)

    def _reply(self, turn: Turn, prompt: str) -> tuple[str, bool]:
        """What the model says, and whether it ended its turn."""
        ids = self._model.encode(prompt)
        room = min(self._most(turn), self._context - len(ids))
        if not ids or room < min(_LEAST_ANSWER, turn.max_tokens):
            raise _LeftOut(f"its prompt takes {len(ids)} tokens of a context of {self._context}")
        started = time.perf_counter()
        tokens = self._model.generate(ids, room, lambda token: None)
        self.seconds += time.perf_counter() - started
        self.new_tokens += len(tokens)
        self.prompt_tokens += len(ids)
        return self._model.decode(tokens) if tokens else "", len(tokens) < room

    def _render(self, task: Task, messages: list[JsonObject]) -> str:
        """A later turn, whose conversation only now exists."""
        if self._template is None:
            raise _LeftOut("a model without a chat template cannot hold a conversation")
        try:
            return render_apart(
                self._template, messages, self._log, enable_thinking=self._think, **_tools(task)
            )
        except PackError as error:
            raise _LeftOut(
                f"its chat template does not accept this conversation: {error.message}"
            ) from error


def _openings(
    tasks: Sequence[Task], template: str | None, think: bool, log: Path
) -> dict[str, str | None]:
    """The first prompt of every task, `{text}` still in it; None where the template refuses it, or
    one is needed and missing."""
    if template is None:
        return {
            task.id: None
            if task.system or task.tools or len(task.turns) > 1
            else task.turns[0].text
            for task in tasks
        }
    # One process for all: it costs more than the rendering.
    asked = {
        task.id: {"messages": _first(task), "enable_thinking": think, **_tools(task)}
        for task in tasks
    }
    rendered = {
        name: texts[0]
        for name, texts in zip(
            asked, render_both_apart(template, template, asked, log), strict=True
        )
    }
    if all(text is None for text in rendered.values()):
        raise bad_input(
            "The package's chat template renders none of the tasks.",
            "`qwen-pack run` says what is wrong with it.",
        )
    return rendered


def _first(task: Task) -> list[JsonObject]:
    system = [{"role": "system", "content": task.system}] if task.system else []
    return [*system, {"role": task.turns[0].role, "content": task.turns[0].text}]


def _tools(task: Task) -> JsonObject:
    return {"tools": list(task.tools)} if task.tools else {}
