"""The checks: each looks at one answer and says what is wrong with it, and which kind of failure
that is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from packager.behaviour.answer import Answer

FAILURES = ("wrong_answer", "lost_fact", "format", "tool_misuse", "wrong_stop")
"""Kinds of failure: another answer than the right one; a fact of the prompt that got lost; another
form than was asked for; a tool that was called wrongly, needlessly or not at all; an answer that
did not end where it should."""

_NUMBER = re.compile(r"-?\d+(?:[ ,\u202f]\d{3})*(?:\.\d+)?")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """Which kind, and why, in a sentence."""

    kind: str
    why: str


def failures(
    answer: Answer, checks: list[dict[str, Any]], *, may_be_cut: bool = False
) -> list[Failure]:
    """Everything that is wrong with an answer; empty when it passes. An answer that does not end
    fails whatever else it says."""
    found = []
    if not answer.stopped and not may_be_cut:
        found.append(Failure("wrong_stop", "the answer did not end where it should"))
    for check in checks:
        wrong = _CHECKS[check["kind"]](answer, check)
        if wrong is not None:
            kind = check.get("fails_as") if wrong.kind == "wrong_answer" else None
            found.append(Failure(kind or wrong.kind, wrong.why))
    return found


def _wrong(why: str) -> Failure:
    return Failure("wrong_answer", why)


def _plain(text: str) -> str:
    """Without case, spaces around it and a full stop: what nobody would call another answer."""
    return " ".join(text.casefold().split()).strip(" .。!！\"'`*")


def _equals(answer: Answer, check: dict[str, Any]) -> Failure | None:
    if _plain(answer.text) in map(_plain, check["any"]):
        return None
    return _wrong(f"is not {' or '.join(check['any'])}")


def _contains(answer: Answer, check: dict[str, Any]) -> Failure | None:
    text = answer.text.casefold()
    missing = [word for word in check.get("all", []) if word.casefold() not in text]
    if missing:
        return _wrong(f"lacks {', '.join(missing)}")
    some = check.get("any", [])
    return (
        _wrong(f"has none of {', '.join(some)}")
        if some and not any(word.casefold() in text for word in some)
        else None
    )


def _lacks(answer: Answer, check: dict[str, Any]) -> Failure | None:
    text = answer.text.casefold()
    there = [word for word in check["any"] if word.casefold() in text]
    return _wrong(f"has {', '.join(there)}") if there else None


def _regex(answer: Answer, check: dict[str, Any]) -> Failure | None:
    return (
        None
        if re.search(check["pattern"], answer.text, re.MULTILINE)
        else _wrong(f"has no match for {check['pattern']}")
    )


def _number(answer: Answer, check: dict[str, Any]) -> Failure | None:
    found = [float(re.sub(r"[ ,\u202f]", "", text)) for text in _NUMBER.findall(answer.text)]
    if not found:
        return _wrong("has no number")
    # The last one is the result; those before it may be the way there.
    return (
        None
        if math.isclose(found[-1], check["value"], abs_tol=check.get("within", 1e-9))
        else _wrong(f"ends with {found[-1]:g}")
    )


def _length(answer: Answer, check: dict[str, Any]) -> Failure | None:
    counts = {
        "words": len(answer.text.split()),
        "lines": sum(bool(line.strip()) for line in answer.text.splitlines()),
    }
    for unit, count in counts.items():
        least, most = check.get(f"least_{unit}", 0), check.get(f"most_{unit}", math.inf)
        if not least <= count <= most:
            return Failure("format", f"has {count} {unit}")
    return None


def _json(answer: Answer, check: dict[str, Any]) -> Failure | None:
    text = answer.text
    fenced = _FENCE.fullmatch(text)
    if fenced and check.get("fence", True):
        text = fenced[1]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Failure("format", "is not JSON alone")
    wrong = misfit(value, check.get("schema", {}))
    return Failure("format", wrong) if wrong else _values(value, check)


def _tool_call(answer: Answer, check: dict[str, Any]) -> Failure | None:
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
    if call.name != check["name"]:
        return Failure("tool_misuse", f"calls {call.name[:40]} instead of {check['name']}")
    wrong = misfit(call.arguments, check.get("schema", {}))
    if wrong:
        return Failure("tool_misuse", wrong)
    other = _values(call.arguments, check)
    return Failure("tool_misuse", other.why) if other else None


def _no_tool_call(answer: Answer, check: dict[str, Any]) -> Failure | None:
    if not answer.calls and answer.broken_call is None:
        return None
    return Failure("tool_misuse", "calls a tool where none was needed")


def _stops(answer: Answer, check: dict[str, Any]) -> Failure | None:
    return (
        None if answer.stopped else Failure("wrong_stop", "the answer did not end where it should")
    )


def _values(value: Any, check: dict[str, Any]) -> Failure | None:
    """The values that stand at paths such as `order.items.0.name`; texts compare as people
    would."""
    for path, right in check.get("values", {}).items():
        there = _at(value, path)
        same = (
            _plain(there) == _plain(right)
            if isinstance(there, str) and isinstance(right, str)
            else _same(there, right)
        )
        if not same:
            return _wrong(f"has {json.dumps(there, ensure_ascii=False)[:60]} as {path}")
    return None


def _same(one: Any, other: Any) -> bool:
    """Equal, and true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def misfit(value: Any, schema: dict[str, Any]) -> str | None:
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


_CHECKS: dict[str, Callable[[Answer, dict[str, Any]], Failure | None]] = {
    "equals": _equals,
    "contains": _contains,
    "lacks": _lacks,
    "regex": _regex,
    "number": _number,
    "length": _length,
    "json": _json,
    "tool_call": _tool_call,
    "no_tool_call": _no_tool_call,
    "stops": _stops,
}
