"""Ask a loaded model every task, in a child process: render, generate greedily, judge. One model,
many conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from packager.behaviour.answer import parse
from packager.behaviour.checks import failures
from packager.behaviour.long_text import MOST_TOKENS, SHARE, long_text
from packager.behaviour.tasks import Task, Turn, read, shipped
from packager.checkpoint.template import render_apart, render_both_apart
from packager.errors import ExitCode, PackError, bad_input
from packager.hearing import AudioSession
from packager.json_values import JsonObject, at, at_or_none, object_at, objects_at
from packager.measure.dictation import written_down
from packager.pictures import prompt as pictures
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session, VisionSession
from packager.shape.audio import RATE
from packager.sounds import prompt as sounds

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
    modality: str = "text",
    asked: bool = False,
    pictures_too: bool = False,
    given: dict[str, JsonObject] | None = None,
) -> JsonObject:
    """A row per task in `tasks[]`, those that could not be asked in `left_out[]`, and what the
    answers took together.

    `template` is the chat template's text, None for a model without one; `prompts` a user's own
    file, None for ours, with those about pictures where `pictures_too`. `given` has what was
    decoded for a task by its id: `pictures`, or a `sound` and the `seconds` that are taken at once;
    what the package does not take is not there.
    """
    tasks = (
        read(Path(prompts)) if prompts else shipped("vision" if pictures_too else "text")
    ).tasks
    openings = _openings(tasks, template, think, Path(log), asked)
    model: Session = resolve(session)(artifact, settings)
    asking = _Asking(
        model, at(settings, "context", int), template, think, Path(log), modality, given or {}
    )
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
        self,
        model: Session,
        context: int,
        template: str | None,
        think: bool,
        log: Path,
        modality: str,
        given: dict[str, JsonObject],
    ) -> None:
        self._model, self._context, self._template = model, context, template
        self._think, self._log = think, log
        self._modality, self._given = modality, given
        self.seconds, self.new_tokens, self.prompt_tokens = 0.0, 0, 0

    def task(self, task: Task, opening: str | None) -> JsonObject:
        """The row of one task, `opening` its first prompt. What follows a wrong turn is not asked:
        it builds on what was never said."""
        self._refuse_other(task)
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
            reply, stopped = self._reply(task, turn, prompt)
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

    def _refuse_other(self, task: Task) -> None:
        """Leave out what the package does not take."""
        for has, kind, noun in (
            (bool(task.images), "vision", "pictures"),
            (task.audio is not None, "audio", "sound"),
        ):
            if has and self._modality != kind:
                raise _LeftOut(f"the package takes no {noun}")
        if self._modality == "audio" and task.audio is None:
            raise _LeftOut("the package writes down sound, and the task brings none")

    def _reply(self, task: Task, turn: Turn, prompt: str) -> tuple[str, bool]:
        """What the model says, and whether it ended its turn."""
        if task.images:
            return self._look(task, turn, prompt)
        if task.audio is not None:
            return self._hear(task, turn, prompt)
        ids = self._model.encode(prompt)
        room = min(self._most(turn), self._context - len(ids))
        if not ids or room < min(_LEAST_ANSWER, turn.max_tokens):
            raise _LeftOut(f"its prompt takes {len(ids)} tokens of a context of {self._context}")
        started = time.perf_counter()
        tokens = self._model.generate(ids, room, lambda token: None)
        self._count(started, tokens, len(ids))
        return self._model.decode(tokens) if tokens else "", len(tokens) < room

    def _look(self, task: Task, turn: Turn, prompt: str) -> tuple[str, bool]:
        model = cast(VisionSession, self._model)
        texts = pictures.around(prompt, len(task.images))
        rows = objects_at(self._given[task.id], "pictures")
        tokens = model.prompt_tokens(texts, rows)
        room = min(self._most(turn), self._context - tokens)
        if room < min(_LEAST_ANSWER, turn.max_tokens):
            raise _LeftOut(f"its prompt takes {tokens} tokens of a context of {self._context}")
        started = time.perf_counter()
        seen = model.look(texts, rows, room, lambda token: None)
        self._count(started, seen.tokens, seen.prompt_tokens)
        return self._model.decode(seen.tokens) if seen.tokens else "", len(seen.tokens) < room

    def _hear(self, task: Task, turn: Turn, prompt: str) -> tuple[str, bool]:
        given = self._given[task.id]
        most, has = at_or_none(given, "window", int), at(object_at(given, "sound"), "count", int)
        if most is not None and has > most * RATE:
            raise _LeftOut(f"its sound is longer than {most} s, which is all that the model takes")
        started = time.perf_counter()
        try:
            heard = written_down(
                cast(AudioSession, self._model),
                sounds.around(prompt),
                object_at(given, "sound"),
                at(given, "seconds", int),
                self._context,
                self._most(turn),
            )
        except PackError as error:
            if error.exit_code != ExitCode.USAGE:
                raise
            # The words before the sound, or the sound itself, leave no room for an answer.
            raise _LeftOut(error.message.rstrip(".")) from None
        self._count(started, heard.tokens, heard.prompt_tokens)
        return heard.text, heard.ended

    def _count(self, started: float, tokens: Sequence[int], prompt_tokens: int) -> None:
        self.seconds += time.perf_counter() - started
        self.new_tokens += len(tokens)
        self.prompt_tokens += prompt_tokens

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
    tasks: Sequence[Task], template: str | None, think: bool, log: Path, questions: bool
) -> dict[str, str | None]:
    """The first prompt of every task, `{text}` still in it; None where the template refuses it, or
    one is needed and missing."""
    if template is None:
        return {
            task.id: None
            if task.system or task.tools or task.images or task.audio or len(task.turns) > 1
            else task.turns[0].text
            for task in tasks
        }
    # One process for all: it costs more than the rendering.
    asked = {
        task.id: {"messages": _first(task, questions), "enable_thinking": think, **_tools(task)}
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


def _first(task: Task, asked: bool = False) -> list[JsonObject]:
    first = task.turns[0]
    if task.audio is not None:
        return sounds.messages(first.text, asked=asked)
    system: list[JsonObject] = [{"role": "system", "content": task.system}] if task.system else []
    if task.images:
        return [*system, *pictures.messages(first.text, len(task.images))]
    return [*system, {"role": first.role, "content": first.text}]


def _tools(task: Task) -> JsonObject:
    return {"tools": list(task.tools)} if task.tools else {}
