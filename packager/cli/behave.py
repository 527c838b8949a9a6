"""`qwen-pack behave`: does a package answer as it should?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.options import Number
from packager.cli.output import emit_json, emit_table, json_option, narrate, printable
from packager.cli.shared_options import adapters_option, package_argument, think_option
from packager.errors import ExitCode
from packager.json_values import JsonObject, as_object, at, object_or_empty, texts_at

if TYPE_CHECKING:
    from packager.behaviour.tasks import TaskSet
    from packager.records import Contents
    from packager.records.behaviour import Tried

_KINDS = {
    "wrong_answer": "wrong answer",
    "lost_fact": "lost fact",
    "format": "format",
    "tool_misuse": "tool misuse",
    "wrong_stop": "wrong stop",
}
_PATH = click.Path(path_type=Path)


@click.command("behave")
@package_argument
@click.option(
    "--prompts",
    type=_PATH,
    metavar="FILE",
    help="Your own tasks, one JSON object per line, in place of ours.",
)
@click.option(
    "--smaller", type=_PATH, metavar="PACKAGE", help="One size down, asked the same: would it do?"
)
@click.option(
    "--larger",
    type=_PATH,
    metavar="PACKAGE",
    help="One size up, asked the same: would it be worth it?",
)
@adapters_option
@think_option
@click.option(
    "--fail-under",
    "least",
    type=Number(0, 100),
    metavar="PERCENT",
    help="Exit code 4 if fewer pass.",
)
@click.option("--no-save", is_flag=True, help="Leave the manifests as they are.")
@json_option
def command(
    package: Path,
    prompts: Path | None,
    smaller: Path | None,
    larger: Path | None,
    adapters: tuple[Path, ...],
    think: bool,
    least: float | None,
    no_save: bool,
    as_json: bool,
) -> int:
    """Ask PACKAGE tasks whose answers can be checked, and count what fails, by kind.

    The baseline is what a useful model must be able to do; the stress pass adds noise, length,
    ambiguity and several turns. Each result goes into its package's manifest, where `compare` finds
    it; with --adapter it goes into the adapter's. The exit code is 0 however many fail, unless
    --fail-under sets a limit.
    """
    from packager.behaviour import tasks, trial
    from packager.package import manifest

    takes = manifest.read(package).contents.modality
    asked = tasks.read(prompts) if prompts else tasks.shipped(takes)
    others = {"smaller": smaller, "larger": larger}
    _ordered(package, others)
    own = _tried(package, asked, prompts, think, adapters)
    beside = {
        direction: (_name(path), _tried(path, asked, prompts, think))
        for direction, path in others.items()
        if path
    }
    result = trial.neighbours(own, beside) if beside else own
    # What a base says with an adapter is the adapter's: with one it goes into its manifest, with
    # several into none.
    destination = package if not adapters else adapters[0]
    saved = not no_save and len(adapters) < 2 and _saved(destination, result)
    for direction, (_, other) in beside.items():
        path = others[direction]
        if path is not None and not no_save:
            _saved(path, other)
    if as_json:
        emit_json(
            "behave", {"package": str(package), "name": _name(package), **result, "saved": saved}
        )
    else:
        _show(_name(package), result)
    few = least is not None and 100 * at(result, "passed", int) < least * at(result, "total", int)
    return ExitCode.BUDGET if few else ExitCode.DONE


def _saved(package: Path, result: JsonObject) -> bool:
    """Whether the result went into the package's manifest; a package that may only be read is
    said."""
    from packager.behaviour import trial

    if not os.access(package, os.W_OK):
        narrate(f"{package} is not writable: the result was not added to its manifest.")
        return False
    trial.save(package, result)
    return True


def _name(package: Path) -> str:
    from packager.package import manifest

    return manifest.read(package).name


def _ordered(package: Path, others: dict[str, Path | None]) -> None:
    """Refuse neighbours that are none, before anything is loaded."""
    from packager.errors import usage
    from packager.package import manifest

    def what(contents: Contents) -> tuple[str, str, int]:
        return contents.variant.repo_id, contents.recipe.id, contents.artifact_bytes or 0

    variant, recipe, own = what(manifest.read(package).contents)
    for direction, path in others.items():
        if path is None:
            continue
        its_variant, its_recipe, size = what(manifest.read(path).contents)
        if (its_variant, its_recipe) == (variant, recipe):
            # In more or fewer files they differ by the headers; that is no other size.
            raise usage(
                f"{path} holds the same weights as {package}.",
                f"--{direction} takes a package of another variant or recipe.",
            )
        if size >= own if direction == "smaller" else size <= own:
            raise usage(
                f"{path} is not {direction} than {package}.",
                f"--{direction} takes a package of another size, by the bytes of its model.",
            )


def _tried(
    package: Path,
    asked: TaskSet,
    prompts: Path | None,
    think: bool,
    adapters: tuple[Path, ...] = (),
) -> JsonObject:
    from packager.behaviour import trial
    from packager.cli.progress import follow
    from packager.package import manifest
    from targets import registry

    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    return follow(trial.run(package, runtime, asked, prompts, think, adapters))


def _show(name: str, result: JsonObject) -> None:
    from packager.records import Behaviour

    own = Behaviour.from_json(result)
    passes = list(own.passes)
    columns = ("", *passes, *_KINDS.values())
    emit_table(
        f"{own.passed} of {own.total} tasks passed",
        columns,
        [
            _row(title, tried, passes)
            for title, tried in (
                (name, own),
                *((tried.name, tried) for tried in own.neighbours.values()),
            )
        ],
        right=columns[1:],
    )
    for task in own.tasks:
        for failure in task.failures:
            where = f"{task.id}, turn {failure.turn}" if (failure.turn or 1) > 1 else task.id
            narrate(printable(f"{where}: {_KINDS[failure.kind]}: {failure.why}"))
    for direction, row in object_or_empty(result, "neighbours").items():
        _show_neighbour(name, direction, as_object(row, direction))
    if own.left_out:
        ids = ", ".join(task.id for task in own.left_out)
        narrate(f"Left out: {ids}; {own.left_out[0].why}.")


def _row(title: str, tried: Tried, passes: list[str]) -> tuple[str, ...]:
    shares = (f"{tried.passes[part].passed} of {tried.passes[part].total}" for part in passes)
    return (printable(title), *shares, *(str(tried.failures[kind]) for kind in _KINDS))


def _show_neighbour(name: str, direction: str, row: JsonObject) -> None:
    """What a package of another size passes that this one does not, and the other way round."""
    more, less = (len(texts_at(row, key)) for key in ("only_it_passed", "only_this_passed"))
    narrate(
        printable(
            f"One size {'down' if direction == 'smaller' else 'up'}, {at(row, 'name', str)}: "
            f"passes {more} that {name} fails, and fails {less} that it passes."
        )
    )
