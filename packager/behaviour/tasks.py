"""The prompts and what is right about their answers: one JSON object per line, ours or a user's
own, checked before any is asked."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from packager.behaviour.checks import Check, misfit
from packager.errors import bad_input, usage
from packager.files import sha256
from packager.foreign import file_below, parse_json
from packager.json_values import JsonObject, at, object_at
from packager.limits import SOUND_BYTES
from packager.names import did_you_mean

SHIPPED = Path(__file__).with_name("tasks.jsonl")
SHIPPED_PICTURES = Path(__file__).with_name("picture_tasks.jsonl")
PASSES = ("baseline", "stress")
"""What a model must be able to do, and what breaks one: noise, length, ambiguity, several turns."""

_MOST_BYTES = 16 << 20
_MOST_TASKS = 10_000
_ANSWER_TOKENS = 160


@dataclass(frozen=True, slots=True)
class Turn:
    """One question, or what a tool gave back, and what must hold of the answer. `max_tokens` is how
    long that may get."""

    role: str
    text: str
    checks: tuple[Check, ...]
    max_tokens: int = _ANSWER_TOKENS
    may_be_cut: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A conversation. `fact` stands somewhere in a long text, at `depth` of it (0 to 1), where the
    first turn says `{text}`."""

    id: str
    stage: str
    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[JsonObject, ...] = ()
    fact: str | None = None
    depth: float = 0.5
    images: tuple[Path, ...] = ()
    """Pictures that come before the first turn's prompt."""
    audio: Path | None = None
    """A sound that is written down; the prompt then names what occurs in it."""


@dataclass(frozen=True, slots=True)
class TaskSet:
    """What is tried: its name and digest tell whether two packages were asked the same."""

    name: str
    sha256: str
    tasks: tuple[Task, ...]


def shipped(modality: str = "text") -> TaskSet:
    """The set that ships with qwen-pack for packages of a modality: with pictures one more for
    those that see. Raises PackError (usage) for sound, which comes from the user."""
    if modality == "audio":
        raise usage(
            "qwen-pack brings no recordings of speech.",
            "Write tasks with `audio` and give them with --prompts; docs/behaviour.md says how.",
        )
    text = _with_files(parse("qwen-pack", SHIPPED.read_bytes(), str(SHIPPED)), SHIPPED)
    if modality != "vision":
        return text
    path = SHIPPED_PICTURES
    seen = _with_files(parse("qwen-pack with pictures", path.read_bytes(), str(path)), path)
    both = hashlib.sha256(f"{text.sha256} {seen.sha256}".encode()).hexdigest()
    return TaskSet(seen.name, both, text.tasks + seen.tasks)


def read(path: Path) -> TaskSet:
    """A user's own set. Raises PackError (exit code 6) naming the file, the line and the key."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise usage(
            f"{path} cannot be read: {error.strerror}.",
            "Name a file with one JSON object per line.",
        ) from None
    if len(data) > _MOST_BYTES:
        raise bad_input(f"{path} has more than {_MOST_BYTES} bytes.", "Use fewer prompts.")
    return _with_files(parse(path.name, data, str(path)), path)


def _with_files(tasks: TaskSet, file: Path) -> TaskSet:
    """The set with its pictures and sounds as files beside its own, their content in its digest."""
    folder = file.absolute().parent
    whole = hashlib.sha256(tasks.sha256.encode())
    rows = []
    for task in tasks.tasks:
        paths = [_beside(folder, path, f"{file}: task {task.id!r}") for path in _files(task)]
        for path in paths:
            whole.update(sha256(path).encode())
        audio = paths.pop() if task.audio is not None else None
        rows.append(replace(task, images=tuple(paths), audio=audio))
    if not any(map(_files, rows)):
        return tasks
    return TaskSet(tasks.name, whole.hexdigest(), tuple(rows))


def _files(task: Task) -> list[Path]:
    return [*task.images, *([task.audio] if task.audio is not None else [])]


def _beside(folder: Path, name: Path, where: str) -> Path:
    """The file below the folder of a set. Raises PackError (bad input) for what is none."""
    try:
        path = file_below(folder, str(name))
    except ValueError as error:
        _refuse(where, str(error))
    if path.stat().st_size > SOUND_BYTES:
        _refuse(where, f"{name} has more than {SOUND_BYTES:,} bytes")
    return path


def parse(name: str, data: bytes, where: str) -> TaskSet:
    """The set in the bytes of a JSONL file; `where` names it in errors."""
    tasks: list[Task] = []
    seen: set[str] = set()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        line_name = f"{where}, line {number}"
        row = parse_json(line, line_name, "Every line is one object.")
        task = _task(row, line_name, number)
        if task.id in seen:
            raise bad_input(
                f"{line_name}: there are two tasks {task.id!r}.", "Give each its own id."
            )
        seen.add(task.id)
        tasks.append(task)
    if not tasks or len(tasks) > _MOST_TASKS:
        raise bad_input(
            f"{where} holds {len(tasks)} tasks.",
            f"Write 1 to {_MOST_TASKS}, one JSON object per line.",
        )
    return TaskSet(name, hashlib.sha256(data).hexdigest(), tuple(tasks))


@cache
def schemas() -> dict[str, JsonObject]:
    """JSON schemas of a `task`, a `turn`, and of every kind of check by its name."""
    by_name: dict[str, JsonObject] = json.loads(
        Path(__file__).with_name("tasks_schema.json").read_bytes()
    )
    return by_name


def _task(row: Any, where: str, number: int) -> Task:
    _valid(row, "task", where)
    if "audio" in row:
        _check_sound(row, where)
    elif ("turns" in row) == ("prompt" in row) or ("turns" in row and "checks" in row):
        _refuse(where, "a task has either 'prompt' and 'checks', or 'turns'")
    turns = row.get("turns") or [
        {key: row[key] for key in ("prompt", "checks", "max_tokens", "may_be_cut") if key in row}
    ]
    text = row.get("fact") is not None
    made = tuple(
        _turn(turn, f"{where}: turns[{index}]" if "turns" in row else where, "audio" in row)
        for index, turn in enumerate(turns)
    )
    if text != ("{text}" in made[0].text):
        _refuse(
            where,
            "a 'fact' goes into the long text, which must appear in the first prompt as {text}, "
            "and "
            "nowhere else",
        )
    if made[0].role != "user":
        _refuse(where, "the first turn is a prompt")
    return Task(
        row.get("id", f"line-{number}"),
        row.get("pass", PASSES[0]),
        made,
        row.get("system"),
        tuple(row.get("tools", ())),
        row.get("fact"),
        row.get("depth", 0.5),
        tuple(map(Path, row.get("images", ()))),
        Path(row["audio"]) if "audio" in row else None,
    )


def _check_sound(row: JsonObject, where: str) -> None:
    """A sound is written down, and nothing else happens to it."""
    other = next(
        (key for key in ("turns", "system", "tools", "fact", "images") if key in row), None
    )
    if other is not None:
        _refuse(where, f"a task with 'audio' has no {other!r}")


def _turn(row: Any, where: str, sound: bool) -> Turn:
    _valid(row, "turn", where)
    if not sound and ("tool_result" in row) == ("prompt" in row):
        _refuse(where, "a turn has either 'prompt' or 'tool_result'")
    role = "tool" if "tool_result" in row else "user"
    for index, check in enumerate(row["checks"]):
        there = f"{where}: checks[{index}]"
        kind = check.get("kind") if isinstance(check, dict) else None
        known = [name for name in schemas() if name not in ("task", "turn")]
        if kind not in known:
            _refuse(
                there,
                f"there is no kind {kind!r}.{did_you_mean(str(kind), known)} Known: "
                f"{', '.join(known)}",
            )
        _valid(check, kind, there)
        _usable(check, there)
    text = row["tool_result"] if role == "tool" else row.get("prompt", "")
    return Turn(
        role,
        text,
        tuple(map(Check.from_json, row["checks"])),
        row.get("max_tokens", _ANSWER_TOKENS),
        row.get("may_be_cut", False),
    )


def _valid(value: Any, name: str, where: str) -> None:
    schema = schemas()[name]
    known = object_at(schema, "properties")
    if isinstance(value, dict):
        for key in value:
            if key not in known:
                _refuse(where, f"there is no {key!r}.{did_you_mean(key, known)}")
    wrong = misfit(value, schema)
    if wrong:
        _refuse(where, wrong)


def _usable(check: JsonObject, where: str) -> None:
    """What a schema cannot say: patterns that compile, schemas that are schemas."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if "pattern" in check:
        try:
            re.compile(at(check, "pattern", str))
        except re.error as error:
            _refuse(where, f"the pattern is not valid: {error}")
    if "schema" in check:
        try:
            Draft202012Validator.check_schema(check["schema"])
        except SchemaError as error:
            _refuse(where, f"the schema is not valid: {error.message[:120]}")


def _refuse(where: str, why: str) -> NoReturn:
    raise bad_input(f"{where}: {why}.", "docs/behaviour.md says what a task may hold.")
