"""Use cases: what chat, code or reading long documents ask of a model, as data with a reason for
each number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.errors import usage
from packager.foreign import load_toml
from packager.json_values import JsonObject, object_at, texts_at
from packager.names import did_you_mean
from packager.need.floors import Floor
from packager.shape import TASKS

FILE = Path(__file__).with_name("usecases.toml")
KINDS = (
    "general",
    "reasoning",
    "coder",
    "math",
    "vision",
    "audio",
    "omni",
    "embedding",
    "reranking",
)
MODES = ("non-thinking", "thinking")
MODALITIES = ("text", "image", "video", "audio")
PICTURES = "vision"
"""The use case whose limit of image tokens counts wherever pictures come in."""
SOUND = "audio"
"""The use case whose seconds of sound count wherever sound comes in."""
_LIMITS: Mapping[str, type] = {
    "context": int,
    "prompt": int,
    "min_decode_tps": float,
    "max_ttft_ms": float,
    "max_image_tokens": int,
    "max_audio_seconds": int,
}
_LISTS: Mapping[str, tuple[str, ...]] = {"kinds": KINDS, "modes": MODES, "modality": MODALITIES}


@dataclass(frozen=True, slots=True)
class Limit:
    """A number with the reason for it and where that comes from."""

    value: float
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class UseCase:
    """What one use case asks; a limit that is None does not bind.

    `kinds` are the tunings that may be chosen; `modes` the ways of answering whose scores count,
    best first; `quality` the benchmarks whose mean score compares variants, none where too little
    is published. `task` is what a model gives back: text, vectors or scores (packager.shape.TASKS).
    """

    name: str
    summary: str
    kinds: tuple[str, ...]
    modes: tuple[str, ...]
    modality: tuple[str, ...]
    context: Limit
    prompt: Limit
    min_decode_tps: Limit | None
    max_ttft_ms: Limit | None
    quality: tuple[str, ...]
    floors: tuple[Floor, ...]
    task: str = "generate"
    max_image_tokens: Limit | None = None
    max_audio_seconds: Limit | None = None


_OTHER_TABLES = ("benchmark", "instead", "thinking", "answer")
"""What the file has beside the use cases."""


@cache
def _tables() -> JsonObject:
    return _loaded(FILE.read_text(encoding="utf-8"), FILE.name)


@cache
def _data() -> tuple[dict[str, UseCase], dict[str, str]]:
    return _parsed(_tables(), FILE.name)


def use_case(name: str) -> UseCase:
    """The use case of that name. Raises PackError (usage) for an unknown one, naming the
    nearest."""
    known = _data()[0]
    if name not in known:
        raise usage(
            f"There is no use case {name!r}.{did_you_mean(name, known)}",
            f"Known: {', '.join(known)}.",
        )
    return known[name]


def use_case_names() -> tuple[str, ...]:
    """All names, in the order of the file."""
    return tuple(_data()[0])


def instead_of(name: str) -> tuple[str, ...]:
    """Benchmarks that ask the same, nearest first; none for most."""
    return tuple(texts_at(object_at(_tables(), "instead"), name))


@cache
def thinking_tokens() -> int:
    """Tokens that a variant spends which thinks before every answer."""
    return int(
        _limit(object_at(_tables(), "thinking")["tokens"], int, "thinking.tokens", FILE.name).value
    )


@cache
def answer_tokens() -> int:
    """Tokens of a usual answer, for what it costs."""
    tokens = object_at(_tables(), "answer")["tokens"]
    return int(_limit(tokens, int, "answer.tokens", FILE.name).value)


def benchmarks() -> Mapping[str, str]:
    """The benchmarks that floors may name, those of single languages among them, each with what it
    measures."""
    # Late: floors of languages are made of this module's own.
    from packager.need import languages

    return {**_data()[1], **languages.benchmarks()}


def benchmark(name: str) -> str:
    """The benchmark as it is published, whatever case the name has. Raises PackError (usage) for an
    unknown one."""
    by_fold = {known.casefold(): known for known in benchmarks()}
    if name.casefold() not in by_fold:
        raise usage(
            f"There is no benchmark {name!r}.{did_you_mean(name, benchmarks())}",
            f"Known: {', '.join(benchmarks())}.",
        )
    return by_fold[name.casefold()]


def parse(text: str, file: str) -> tuple[dict[str, UseCase], dict[str, str]]:
    """Use cases and benchmarks of a TOML text; `file` is for messages. Raises PackError (usage)
    naming file and key."""
    return _parsed(_loaded(text, file), file)


def _loaded(text: str, file: str) -> JsonObject:
    try:
        return load_toml(text)
    except ValueError as error:
        raise usage(f"{file}: this is not TOML: {error}.") from None


def _parsed(data: JsonObject, file: str) -> tuple[dict[str, UseCase], dict[str, str]]:
    known = data.get("benchmark", {})
    if not isinstance(known, dict) or not all(
        isinstance(what, str) and what for what in known.values()
    ):
        raise usage(f"{file}: benchmark must be a table of names with what each measures.")
    cases = {name: table for name, table in data.items() if name not in _OTHER_TABLES}
    return {name: _use_case(name, table, known, file) for name, table in cases.items()}, known


def _use_case(name: str, table: Any, known: Mapping[str, str], file: str) -> UseCase:
    keys = ("summary", "task", *_LISTS, *_LIMITS, "quality", "floor")
    table = _table(table, keys, name, file)
    for key in ("summary", *_LISTS, "context", "prompt"):
        if key not in table:
            raise usage(f"{file}: {name}.{key} is missing.")
    if not isinstance(table["summary"], str) or not table["summary"]:
        raise usage(f"{file}: {name}.summary must be a text.")
    task = table.get("task", "generate")
    if task not in TASKS:
        raise usage(f"{file}: {name}.task is {task!r}; it must be one of {', '.join(TASKS)}.")
    limits = {
        key: _limit(table[key], kind, f"{name}.{key}", file) if key in table else None
        for key, kind in _LIMITS.items()
    }
    context, prompt = limits["context"], limits["prompt"]
    assert context is not None and prompt is not None
    if prompt.value >= context.value:
        raise usage(
            f"{file}: {name}.prompt must be smaller than the context, which holds prompt and "
            "answer together."
        )
    floors = table.get("floor", [])
    if not isinstance(floors, list):
        raise usage(f"{file}: {name}.floor must be a list of tables, written [[{name}.floor]].")
    words = {
        key: _words(table[key], choices, f"{name}.{key}", file) for key, choices in _LISTS.items()
    }
    return UseCase(
        name=name,
        summary=table["summary"],
        kinds=words["kinds"],
        modes=words["modes"],
        modality=words["modality"],
        context=context,
        prompt=prompt,
        min_decode_tps=limits["min_decode_tps"],
        max_ttft_ms=limits["max_ttft_ms"],
        quality=_words(table["quality"], tuple(known), f"{name}.quality", file)
        if table.get("quality")
        else (),
        floors=tuple(_floor(floor, known, f"{name}.floor", file) for floor in floors),
        task=task,
        max_image_tokens=limits["max_image_tokens"],
        max_audio_seconds=limits["max_audio_seconds"],
    )


def _table(value: Any, keys: tuple[str, ...], where: str, file: str) -> JsonObject:
    if not isinstance(value, dict):
        raise usage(f"{file}: {where} must be a table.")
    for key in value:
        if key not in keys:
            raise usage(f"{file}: {where}.{key} is not a known key.{did_you_mean(key, keys)}")
    return value


def _words(value: Any, choices: tuple[str, ...], where: str, file: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise usage(f"{file}: {where} must be a list of texts, not empty.")
    for word in value:
        if word not in choices:
            raise usage(
                f"{file}: {where} has {word!r}, which is not one of "
                f"{', '.join(choices)}.{did_you_mean(word, choices)}"
            )
    return tuple(value)


def _text(table: JsonObject, key: str, where: str, file: str) -> str:
    text = table.get(key)
    if not isinstance(text, str) or not text.strip():
        raise usage(f"{file}: {where} has no {key}: say it as a text.")
    return text


def _number(value: Any, kind: type, where: str, file: str) -> float:
    number = not isinstance(value, bool) and isinstance(value, int if kind is int else (int, float))
    if not number or not 0 < value < float("inf"):
        raise usage(
            f"{file}: {where} must be a {'whole ' if kind is int else ''}number above zero, not "
            f"{value!r}."
        )
    return int(value) if kind is int else float(value)


def _limit(value: Any, kind: type, where: str, file: str) -> Limit:
    table = _table(value, ("value", "reason", "source"), where, file)
    number = _number(table.get("value"), kind, f"{where}.value", file)
    return Limit(number, _text(table, "reason", where, file), _text(table, "source", where, file))


def _floor(value: Any, known: Mapping[str, str], where: str, file: str) -> Floor:
    table = _table(value, ("any_of", "reason", "source"), where, file)
    entries = table.get("any_of")
    if not isinstance(entries, list) or not entries:
        raise usage(f"{file}: {where}.any_of must be a list of benchmarks with scores, not empty.")
    scores = []
    for entry in entries:
        pair = _table(entry, ("benchmark", "score"), f"{where}.any_of", file)
        name = _text(pair, "benchmark", f"{where}.any_of", file)
        if name not in known:
            raise usage(
                f"{file}: {where}.any_of names {name!r}, which is not in "
                f"[benchmark].{did_you_mean(name, known)}"
            )
        scores.append((name, _number(pair.get("score"), float, f"{where}.any_of.score", file)))
    return Floor(
        tuple(scores), _text(table, "reason", where, file), _text(table, "source", where, file)
    )
