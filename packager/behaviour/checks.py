"""The checks: each looks at one answer and says what is wrong with it, and which kind of failure
that is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from packager.behaviour.answer import Answer
from packager.json_values import (
    JsonObject,
    JsonValue,
    as_object,
    at,
    at_or_none,
    object_or_empty,
    texts_at,
)
from packager.sounds.words import word_errors

FAILURES = ("wrong_answer", "lost_fact", "format", "tool_misuse", "wrong_stop")
"""Kinds of failure: another answer than the right one; a fact of the prompt that got lost; another
form than was asked for; a tool that was called wrongly, needlessly or not at all; an answer that
did not end where it should."""

_EXACT = 1e-9
_NUMBER = re.compile(r"-?\d+(?:[ ,\u202f]\d{3})*(?:\.\d+)?")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """Which kind, and why, in a sentence."""

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold of an answer. `kind` decides which of the other fields count, see
    tasks_schema.json and docs/behaviour.md."""

    kind: str
    fails_as: str | None = None
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    pattern: str = ""
    value: float = 0.0
    within: float = _EXACT
    least_words: int = 0
    most_words: float = math.inf
    least_lines: int = 0
    most_lines: float = math.inf
    schema: JsonObject | bool = True
    values: JsonObject = field(default_factory=dict)
    fence: bool = True
    name: str = ""
    text: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Check:
        """The check in an object that follows the schema of its kind."""
        schema = data.get("schema", True)
        return cls(
            kind=at(data, "kind", str),
            fails_as=at_or_none(data, "fails_as", str),
            any=tuple(texts_at(data, "any")),
            all=tuple(texts_at(data, "all")),
            pattern=at_or_none(data, "pattern", str) or "",
            value=at_or_none(data, "value", float) or 0.0,
            within=at(data, "within", float) if "within" in data else _EXACT,
            least_words=at_or_none(data, "least_words", int) or 0,
            most_words=at(data, "most_words", float) if "most_words" in data else math.inf,
            least_lines=at_or_none(data, "least_lines", int) or 0,
            most_lines=at(data, "most_lines", float) if "most_lines" in data else math.inf,
            schema=schema if isinstance(schema, bool) else as_object(schema, "schema"),
            values=object_or_empty(data, "values"),
            fence=at_or_none(data, "fence", bool) is not False,
            name=at_or_none(data, "name", str) or "",
            text=at_or_none(data, "text", str) or "",
        )


def failures(answer: Answer, checks: Sequence[Check], *, may_be_cut: bool = False) -> list[Failure]:
    """Everything that is wrong with an answer; empty when it passes. An answer that does not end
    fails whatever else it says."""
    wrong = []
    if not answer.stopped and not may_be_cut:
        wrong.append(Failure("wrong_stop", "the answer did not end where it should"))
    for check in checks:
        failure = _CHECKS[check.kind](answer, check)
        if failure is not None:
            kind = check.fails_as if failure.kind == "wrong_answer" else None
            wrong.append(Failure(kind or failure.kind, failure.why))
    return wrong


def _wrong(why: str) -> Failure:
    return Failure("wrong_answer", why)


def _plain(text: str) -> str:
    """Without case, spaces around it and a full stop: what nobody would call another answer."""
    return " ".join(text.casefold().split()).strip(" .。!！\"'`*")


def _equals(answer: Answer, check: Check) -> Failure | None:
    if _plain(answer.text) in map(_plain, check.any):
        return None
    return _wrong(f"is not {' or '.join(check.any)}")


def _contains(answer: Answer, check: Check) -> Failure | None:
    text = answer.text.casefold()
    missing = [word for word in check.all if word.casefold() not in text]
    if missing:
        return _wrong(f"lacks {', '.join(missing)}")
    if check.any and not any(word.casefold() in text for word in check.any):
        return _wrong(f"has none of {', '.join(check.any)}")
    return None


def _lacks(answer: Answer, check: Check) -> Failure | None:
    text = answer.text.casefold()
    there = [word for word in check.any if word.casefold() in text]
    return _wrong(f"has {', '.join(there)}") if there else None


def _regex(answer: Answer, check: Check) -> Failure | None:
    return (
        None
        if re.search(check.pattern, answer.text, re.MULTILINE)
        else _wrong(f"has no match for {check.pattern}")
    )


def _number(answer: Answer, check: Check) -> Failure | None:
    numbers = [float(re.sub(r"[ ,\u202f]", "", text)) for text in _NUMBER.findall(answer.text)]
    if not numbers:
        return _wrong("has no number")
    # The last one is the result; those before it may be the way there.
    return (
        None
        if math.isclose(numbers[-1], check.value, abs_tol=check.within)
        else _wrong(f"ends with {numbers[-1]:g}")
    )


def _length(answer: Answer, check: Check) -> Failure | None:
    words = len(answer.text.split())
    lines = sum(bool(line.strip()) for line in answer.text.splitlines())
    for unit, count, least, most in (
        ("words", words, check.least_words, check.most_words),
        ("lines", lines, check.least_lines, check.most_lines),
    ):
        if not least <= count <= most:
            return Failure("format", f"has {count} {unit}")
    return None


def _json(answer: Answer, check: Check) -> Failure | None:
    text = answer.text
    fenced = _FENCE.fullmatch(text)
    if fenced and check.fence:
        text = fenced[1]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Failure("format", "is not JSON alone")
    wrong = misfit(value, check.schema)
    return Failure("format", wrong) if wrong else _values(value, check)


def _tool_call(answer: Answer, check: Check) -> Failure | None:
    if answer.broken_call is not None:
        return Failure("tool_misuse", "has a call that cannot be read")
    if len(answer.calls) != 1:
        return Failure(
            "tool_misuse",
            "calls no tool"
            if not answer.calls
            else f"calls {len(answer.calls)} tools instead of one",
        )
    call = answer.calls[0]
    if call.name != check.name:
        return Failure("tool_misuse", f"calls {call.name[:40]} instead of {check.name}")
    wrong = misfit(call.arguments, check.schema)
    if wrong:
        return Failure("tool_misuse", wrong)
    other = _values(call.arguments, check)
    return Failure("tool_misuse", other.why) if other else None


def _no_tool_call(answer: Answer, check: Check) -> Failure | None:
    if not answer.calls and answer.broken_call is None:
        return None
    return Failure("tool_misuse", "calls a tool where none was needed")


def _transcript(answer: Answer, check: Check) -> Failure | None:
    errors = word_errors(answer.text, check.text)
    if errors.rate <= check.within:
        return None
    return _wrong(f"has {errors.edits} wrong words; {errors.words} were said")


def _stops(answer: Answer, check: Check) -> Failure | None:
    return (
        None if answer.stopped else Failure("wrong_stop", "the answer did not end where it should")
    )


def _values(value: JsonValue, check: Check) -> Failure | None:
    """The values that stand at paths such as `order.items.0.name`; texts compare as people
    would."""
    for path, right in check.values.items():
        there = _at(value, path)
        same = (
            _plain(there) == _plain(right)
            if isinstance(there, str) and isinstance(right, str)
            else _same(there, right)
        )
        if not same:
            return _wrong(f"has {json.dumps(there, ensure_ascii=False)[:60]} as {path}")
    return None


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Equal, and true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _at(value: JsonValue, path: str) -> JsonValue:
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif (
            isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value)
        ):
            value = value[int(key)]
        else:
            return None
    return value


def misfit(value: JsonValue, schema: JsonObject | bool) -> str | None:
    """The first place at which a value does not follow a JSON schema (draft 2020-12), as a
    sentence; None when it does."""
    # Late: only what is tried pays for it. The empty registry fetches nothing that a schema refers
    # to.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    except Unresolvable as missing:
        return f"the schema refers to {str(missing.ref)[:80]}, which is not in it"
    if error is None:
        return None
    where = ".".join(str(part) for part in error.absolute_path)
    return f"{f'{where}: ' if where else ''}{error.message[:120]}"


_CHECKS: dict[str, Callable[[Answer, Check], Failure | None]] = {
    "equals": _equals,
    "contains": _contains,
    "lacks": _lacks,
    "regex": _regex,
    "number": _number,
    "length": _length,
    "json": _json,
    "tool_call": _tool_call,
    "no_tool_call": _no_tool_call,
    "transcript": _transcript,
    "stops": _stops,
}
