"""A checkpoint's chat template in Ollama's language, which is Go's text/template.

The Jinja template is rendered with marks in place of what people say; the text between the marks is
what it adds, and that is written down in Go. Then both are compared over a set of conversations:
`_Pieces.text` is what the Go template writes (Go itself is asked in the tests). What Go's language
cannot say, white space cut off a message or an object as JSON with spaces, shows as a difference.

How Ollama calls it: template/template.go of github.com/ollama/ollama, Execute and collate. The
system message stays among .Messages; neighbours of one role are joined; the thought is .Thinking.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from packager.checkpoint.template import apart, render_bounded
from packager.errors import PackError
from packager.json_values import JsonObject
from packager.runtime import Report
from packager.scratch import temporary_folder

Message = dict[str, str]

_SYSTEM, _FIRST, _ANSWER, _SECOND, _THOUGHT = (
    f"[{name} {number}]"
    for name, number in (("system", 1), ("ask", 2), ("answer", 3), ("ask", 4), ("thought", 5))
)
_TURN = "<|im_start|>"
_STATES = (None, True, False)
"""What a request says of thinking: nothing, on, off."""

_ASK = {"role": "user", "content": "How are you? 你好"}
_MORE = {"role": "user", "content": "And now?"}
_SAID = {"role": "assistant", "content": "Well."}
_THOUGHT_OVER = {"role": "assistant", "content": "Well.", "thinking": "hm\nyes"}
_RULE = {"role": "system", "content": 'Be brief: {{ .System }} "quoted"'}

CONVERSATIONS: dict[str, list[Message]] = {
    "one question": [_ASK],
    "a system prompt": [_RULE, _ASK],
    "several turns": [_ASK, _SAID, _MORE],
    "several turns under a system prompt": [_RULE, _ASK, _SAID, _MORE, _SAID, _MORE],
    "turns with a thought": [_ASK, _THOUGHT_OVER, _MORE],
    "an answer to be gone on from": [_ASK, _SAID],
    "a thought to be gone on from": [_ASK, _THOUGHT_OVER],
    "a system prompt later on": [_ASK, _RULE, _MORE],
    "white space around a message": [{"role": "user", "content": "\n Hi \n"}, _SAID, _MORE],
}
"""Name -> messages in Ollama's form; each is compared with thinking on, off and left open."""
_CORE = tuple(CONVERSATIONS)[:5]


@dataclass(frozen=True, slots=True)
class OllamaChat:
    """`template` in Go's language; `limits` name conversations that it writes otherwise than
    Jinja."""

    template: str
    limits: tuple[str, ...]


def translated(template: str) -> OllamaChat | str:
    """The template in Ollama's language, or a sentence part that says why there is none.

    The Jinja is rendered in a child process with bounded time and memory.
    """
    try:
        answer = json.loads(_translated(template))
    except PackError as error:
        return error.message.rstrip(".")
    why_not = answer["why_not"]
    return str(why_not) if why_not else OllamaChat(answer["template"], tuple(answer["limits"]))


@lru_cache(maxsize=8)
def _translated(template: str) -> str:
    with temporary_folder() as folder:
        log = folder / "log"
        job = "packager.shipping.apps.ollama_template:translate_job"
        return json.dumps(apart(job, {"template": template}, log))


def translate_job(report: Report, *, template: str) -> JsonObject:
    """The job behind `translated`."""
    by_state = {state: _pieces(template, state) for state in _STATES}
    wrong = next((outcome for outcome in by_state.values() if isinstance(outcome, str)), None)
    if "strftime_now" in template:
        wrong = "it writes the current date"
    pieces = {state: outcome for state, outcome in by_state.items() if not isinstance(outcome, str)}
    if wrong is not None:
        return {"why_not": wrong, "template": "", "limits": []}
    different = [name for name in CONVERSATIONS if not _same(template, pieces, name)]
    core = [name for name in different if name in _CORE]
    why_not = f"Go's template language cannot say it ({core[0]})" if core else ""
    return {"why_not": why_not, "template": _go_of_all(pieces), "limits": different}


def as_jinja_takes_it(messages: Sequence[Message], think: bool | None) -> JsonObject:
    """A conversation of Ollama's as the variables of a Jinja template."""
    renamed = [
        {("reasoning_content" if key == "thinking" else key): text for key, text in row.items()}
        for row in messages
    ]
    return {"messages": renamed, **({} if think is None else {"enable_thinking": think})}


def _same(template: str, pieces: Mapping[bool | None, _Pieces], name: str) -> bool:
    """Whether both write the same; a conversation that the template refuses is not the same."""
    return all(
        _render(template, CONVERSATIONS[name], think) == pieces[think].text(CONVERSATIONS[name])
        for think in _STATES
    )


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What stands around the messages of each role, in one state of thinking.

    `last_answer` is what stands before an answer behind the last question. `thought` and
    `past_thought` are what stands before and behind the thought of such an answer, and of an
    earlier one; None where the template leaves it out. `opening` begins the answer to come.
    """

    without_system: str
    system: tuple[str, str]
    user: tuple[str, str]
    answer: tuple[str, str]
    last_answer: str
    thought: tuple[str, str] | None
    past_thought: tuple[str, str] | None
    opening: str

    def text(self, messages: Sequence[Message]) -> str:
        """What the Go template writes."""
        asked = [index for index, row in enumerate(messages) if row["role"] == "user"]
        last = asked[-1] if asked else -1
        parts = []
        if messages[0]["role"] != "system":
            parts.append(self.without_system)
        for index, row in enumerate(messages):
            before, behind = self._around(row, index > last)
            parts += [before, row["content"], behind]
        return "".join([*parts, self.opening])

    def _around(self, row: Message, last: bool) -> tuple[str, str]:
        if row["role"] == "system":
            return self.system
        if row["role"] == "user":
            return self.user
        thought = self.thought if last else self.past_thought
        if row.get("thinking") and thought is not None:
            return thought[0] + row["thinking"] + thought[1], self.answer[1]
        return (self.last_answer if last else self.answer[0]), self.answer[1]

    def go(self) -> str:
        """Everything but the opening in Go's language."""
        prologue = "{{ $last := -1 }}{{ range $i, $m := .Messages }}"
        prologue += '{{ if eq .Role "user" }}{{ $last = $i }}{{ end }}{{ end }}'
        return "".join([prologue, *self._turns()])

    def _turns(self) -> Iterator[str]:
        yield "{{ range $i, $m := .Messages }}"
        if self.without_system:
            yield (
                f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{_go(self.without_system)}{{{{ '
                f"end }}}}"
            )
        yield '{{ if eq .Role "system" }}' + _content(self.system)
        yield '{{ else if eq .Role "user" }}' + _content(self.user)
        yield '{{ else if eq .Role "assistant" }}'
        yield from self._before_answer()
        yield _content(("", self.answer[1]))
        # Ollama's tools come as JSON that the model was not trained on: a turn of one is refused.
        yield '{{ else }}{{ index "no tool turns" 99 }}{{ end }}{{ end }}'

    def _before_answer(self) -> Iterator[str]:
        past = _with_thought(self.past_thought, self.answer[0])
        last = _with_thought(self.thought, self.last_answer)
        same = last == past
        yield last if same else f"{{{{ if gt $i $last }}}}{last}{{{{ else }}}}{past}{{{{ end }}}}"


def _with_thought(thought: tuple[str, str] | None, without: str) -> str:
    if thought is None:
        return _go(without)
    before, behind = map(_go, thought)
    written = f"{before}{{{{ .Thinking }}}}{behind}"
    return f"{{{{ if .Thinking }}}}{written}{{{{ else }}}}{_go(without)}{{{{ end }}}}"


def _go_of_all(pieces: Mapping[bool | None, _Pieces]) -> str:
    """One Go template for every state of thinking; what the states have in common stands once."""
    shared = {state: replace(parts, opening="") for state, parts in pieces.items()}
    openings = {state: _go(parts.opening) for state, parts in pieces.items()}
    if shared[None] == shared[True] == shared[False]:
        return shared[None].go() + _by_state(openings)
    return _by_state({state: parts.go() + openings[state] for state, parts in pieces.items()})


def _by_state(texts: Mapping[bool | None, str]) -> str:
    unset, on, off = (texts[state] for state in _STATES)
    if unset == on == off:
        return unset
    if unset == on:
        return f"{{{{ if and .IsThinkSet (not .Think) }}}}{off}{{{{ else }}}}{on}{{{{ end }}}}"
    if unset == off:
        return f"{{{{ if and .IsThinkSet .Think }}}}{on}{{{{ else }}}}{off}{{{{ end }}}}"
    set_ = f"{{{{ if .Think }}}}{on}{{{{ else }}}}{off}{{{{ end }}}}"
    return f"{{{{ if .IsThinkSet }}}}{set_}{{{{ else }}}}{unset}{{{{ end }}}}"


def _content(around: tuple[str, str]) -> str:
    return f"{_go(around[0])}{{{{ .Content }}}}{_go(around[1])}"


def _go(text: str) -> str:
    """A literal of a Go template that may stand between three quotes in a Modelfile."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', '{{ "\\"\\"\\"" }}')


def _pieces(template: str, think: bool | None) -> _Pieces | str:
    """What the template puts around messages; a sentence part where it cannot be told."""
    ask, second = ({"role": "user", "content": text} for text in (_FIRST, _SECOND))
    answer = {"role": "assistant", "content": _ANSWER}
    thinking = {**answer, "thinking": _THOUGHT}
    system = {"role": "system", "content": _SYSTEM}

    def parts(messages: list[Message], *marks: str, **more: Any) -> list[str] | None:
        return _parts(_render(template, messages, think, **more), *marks)

    alone = parts([ask], _FIRST)
    bare = parts([ask], _FIRST, add_generation_prompt=False)
    under = parts([system, ask], _SYSTEM, _FIRST)
    turns = parts([ask, answer, second], _FIRST, _ANSWER, _SECOND)
    last = parts([ask, answer], _FIRST, _ANSWER)
    if alone is None or bare is None or under is None or turns is None or last is None:
        return "it does not write every message once, and as it is"
    user = _TURN + alone[0].rpartition(_TURN)[2] if _TURN in alone[0] else alone[0]
    ends = bare[1]
    if not (under[1].endswith(user) and turns[2].endswith(user)):
        return "a user's turn begins in more than one way"
    if not all(text.startswith(ends) for text in (alone[1], turns[1], last[1])):
        return "a user's turn ends in more than one way"
    thought = parts([ask, thinking], _FIRST, _THOUGHT, _ANSWER)
    past = parts([ask, thinking, second], _FIRST, _THOUGHT, _ANSWER, _SECOND)
    return _Pieces(
        without_system=alone[0].removesuffix(user),
        system=(under[0], under[1].removesuffix(user)),
        user=(user, ends),
        answer=(turns[1].removeprefix(ends), turns[2].removesuffix(user)),
        last_answer=last[1].removeprefix(ends),
        thought=None if thought is None else (thought[1].removeprefix(ends), thought[2]),
        past_thought=None if past is None else (past[1].removeprefix(ends), past[2]),
        opening=alone[1].removeprefix(ends),
    )


def _render(
    template: str, messages: Sequence[Message], think: bool | None, **more: Any
) -> str | None:
    given = {**as_jinja_takes_it(messages, think), **more}
    try:
        return render_bounded(template, given.pop("messages"), **given)
    except PackError:
        return None


def _parts(text: str | None, *marks: str) -> list[str] | None:
    """What stands between marks that occur once each, in this order; None otherwise."""
    parts, rest = [], text or ""
    for mark in marks:
        before, seen, rest = rest.partition(mark)
        if not seen or mark in rest:
            return None
        parts.append(before)
    return [*parts, rest]
