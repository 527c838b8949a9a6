"""Try a package with a set of tasks, sum up what came out, and keep it in the manifest beside the
measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from packager.behaviour.checks import FAILURES
from packager.behaviour.tasks import PASSES, TaskSet
from packager.checkpoint import template
from packager.device.this_machine import describe_machine
from packager.errors import usage
from packager.escapes import line
from packager.events import Event, StageFinished, StageNote, StageProgress, StageStarted
from packager.json_values import JsonDict, JsonObject, at, objects_at
from packager.locks import alone_in
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.pictures import take as take_pictures
from packager.pipeline import bench, climb, pictures, sounds
from packager.pipeline.cache import BuildCache
from packager.pipeline.intact import artifact_key
from packager.process import Note, Progress, run_job
from packager.records.behaviour import Task
from packager.runtime import Runtime
from packager.sounds import take as take_sound

_STAGE = "behave"


def run(
    package: Path,
    runtime: Runtime,
    tasks: TaskSet,
    prompts: Path | None = None,
    think: bool = False,
    added: Sequence[Path] = (),
) -> Generator[Event, None, JsonObject]:
    """Yield the events of the trial and return its result; the package is not changed. `prompts` is
    where `tasks` were read from, `added` are adapter packages.

    Raises PackError (usage) for random weights, whose answers mean nothing.
    """
    known = bench.whole(package, runtime)
    if known.contents.task != "generate":
        raise usage(
            f"{known.name} gives no text, so there is nothing to check.",
            f"`qwen-pack {known.contents.task}` asks it what it is made for.",
        )
    if known.contents.source.dummy:
        raise usage(
            f"{known.name} has random weights: its answers mean nothing.",
            "Build it with real weights.",
        )
    chat, logs = package / "chat_template.jinja", BuildCache()
    modality = known.contents.modality
    arguments: JsonObject = {
        "session": _session(runtime, known),
        "modality": modality,
        "asked": sounds.asked(known),
        "pictures_too": prompts is None and any(task.images for task in tasks.tasks),
        "artifact": str(package / MODEL),
        "settings": bench.settings_with(known, package, runtime, added),
        "template": template.read(chat) if chat.is_file() else None,
        "prompts": None if prompts is None else str(prompts.absolute()),
        "think": think,
        "log": str(logs.log("template")),
    }
    yield StageStarted(_STAGE, f"Ask {len(tasks.tasks)} tasks", 1, 1)
    with logs.work_folder() as folder:
        given = _given(known, tasks, folder, logs)
        asking = climb.on_ladder(
            runtime,
            "while it was asked tasks",
            artifact_key(known),
            lambda start: run_job(
                "packager.behaviour.job:ask_all",
                {**arguments, "given": given},
                logs.log(_STAGE),
                start.environment,
            ),
        )
        with closing(asking) as work:
            while True:
                try:
                    message = next(work)
                except StopIteration as stop:
                    job, start = stop.value
                    break
                if isinstance(message, Note):
                    yield StageNote(_STAGE, message.text)
                if isinstance(message, Progress):
                    yield StageProgress(_STAGE, message.done, message.total, message.unit)
    result = {**summed(tasks, job.value, think), "rung": start.name}
    yield StageFinished(
        _STAGE, job.seconds, False, f"{result['passed']} of {result['total']} passed", {}
    )
    return result


def _session(runtime: Runtime, known: Manifest) -> str:
    """The session that takes what the package takes."""
    if known.contents.modality == "audio":
        return sounds.session_of(runtime, known)
    if known.contents.modality == "vision":
        return pictures.session_of(runtime, known)
    return runtime.session


def _given(
    known: Manifest, tasks: TaskSet, folder: Path, logs: BuildCache
) -> dict[str, JsonObject]:
    """The decoded pictures and sounds of the tasks that the package can be asked, by their ids."""
    modality = known.contents.modality
    given: dict[str, JsonObject] = {}
    for number, task in enumerate(tasks.tasks):
        own = folder / str(number)
        if task.images and modality == "vision":
            own.mkdir()
            taken = take_pictures(task.images, own, logs.log("pictures"))
            given[task.id] = {"pictures": [picture.as_dict() for picture in taken]}
        if task.audio is not None and modality == "audio":
            own.mkdir()
            sound = take_sound(task.audio, own, logs.log("sounds"))
            given[task.id] = {
                "sound": sound.as_dict(),
                "seconds": sounds.most_of(known),
                "window": sounds.window_of(known),
            }
    return given


def summed(tasks: TaskSet, answered: JsonObject, think: bool) -> JsonObject:
    """What was found, counted: per pass, and failed tasks per kind of failure (a task may fail in
    several ways)."""
    rows = [Task.from_json(row) for row in objects_at(answered, "tasks")]
    kinds = Counter(kind for row in rows for kind in {failure.kind for failure in row.failures})
    return {
        "set": tasks.name,
        "set_sha256": tasks.sha256,
        "tried_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "think": think,
        "passed": sum(row.passed for row in rows),
        "total": len(rows),
        "passes": {
            name: {"passed": sum(row.passed for row in part), "total": len(part)}
            for name in PASSES
            if (part := [row for row in rows if row.pass_ == name])
        },
        "failures": {kind: kinds[kind] for kind in FAILURES},
        **{
            key: answered[key]
            for key in ("seconds", "new_tokens", "prompt_tokens", "left_out", "tasks")
        },
    }


def neighbours(own: JsonObject, others: dict[str, tuple[str, JsonObject]]) -> JsonObject:
    """A result with those of its neighbours: `smaller` and `larger`, each a package's name and its
    own result, of the same tasks."""
    rows: JsonDict = {}
    for direction, (name, other) in others.items():
        mine, asked_here = _passed_and_asked(own)
        theirs, asked_there = _passed_and_asked(other)
        asked = asked_here & asked_there
        rows[direction] = {
            "name": name,
            **{key: other[key] for key in ("passed", "total", "passes", "failures")},
            "only_it_passed": sorted((theirs - mine) & asked),
            "only_this_passed": sorted((mine - theirs) & asked),
        }
    return {**own, "neighbours": rows}


def _passed_and_asked(result: JsonObject) -> tuple[set[str], set[str]]:
    """The ids of the tasks that were passed, and of all that were asked."""
    rows = objects_at(result, "tasks")
    passed = {at(row, "id", str) for row in rows if at(row, "passed", bool)}
    return passed, {at(row, "id", str) for row in rows}


def kept(result: JsonObject) -> JsonObject:
    """What goes into a manifest: everything but the answers themselves."""
    return {**result, "tasks": [_without_answers(row) for row in objects_at(result, "tasks")]}


def _without_answers(row: JsonObject) -> JsonObject:
    fields = {key: value for key, value in row.items() if key != "answers"}
    return {**fields, "failures": [_shown(failure) for failure in objects_at(row, "failures")]}


def _shown(failure: JsonObject) -> JsonObject:
    """A reason may quote the model, and a manifest's text does nothing to a terminal but show
    itself."""
    return {
        **failure,
        "why": line(at(failure, "why", str)),
    }


def save(package: Path, result: JsonObject) -> None:
    """Put the result into the package's manifest, in place of an earlier one."""
    with alone_in(package):
        data = dict(manifest.read(package).data)
        manifest.write(package, {**data, "behaviour": kept(result)})
