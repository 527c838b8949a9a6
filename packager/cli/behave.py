"""`qwen-pack behave`: does a package answer as it should?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate, printable
from packager.errors import ExitCode

if TYPE_CHECKING:
    from packager.behaviour.tasks import TaskSet

_KINDS = {
    "wrong_answer": "wrong answer",
    "lost_fact": "lost fact",
    "format": "format",
    "tool_misuse": "tool misuse",
    "wrong_stop": "wrong stop",
}
_PATH = click.Path(path_type=Path)


@click.command("behave")
@click.argument("package", type=_PATH)
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
@click.option("--think", is_flag=True, help="Let a model that can think do so before it answers.")
@click.option(
    "--fail-under",
    "least",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="End with exit code 4 where fewer pass.",
)
@click.option("--no-save", is_flag=True, help="Leave the manifests as they are.")
@json_option
def command(
    package: Path,
    prompts: Path | None,
    smaller: Path | None,
    larger: Path | None,
    think: bool,
    least: float | None,
    no_save: bool,
    as_json: bool,
) -> int:
    """Ask PACKAGE tasks whose answers can be checked, and count what fails, by kind.

    The baseline is what a model of use must be able to do; the stress pass adds noise, length,
    ambiguity and several turns. Each result goes into its package's manifest, where `compare` finds
    it. However many fail the exit code is 0, unless --fail-under says how many may.
    """
    from packager.behaviour import tasks, trial

    asked = tasks.read(prompts) if prompts else tasks.shipped()
    others = {"smaller": smaller, "larger": larger}
    _ordered(package, others)
    own = _tried(package, asked, prompts, think)
    beside = {
        place: (_name(path), _tried(path, asked, prompts, think))
        for place, path in others.items()
        if path
    }
    result = trial.neighbours(own, beside) if beside else own
    saved = not no_save and _saved(package, result)
    for place, (_, other) in beside.items():
        path = others[place]
        if path is not None and not no_save:
            _saved(path, other)
    if as_json:
        emit_json(
            "behave", {"package": str(package), "name": _name(package), **result, "saved": saved}
        )
    else:
        _show(_name(package), result)
    few = least is not None and 100 * result["passed"] < least * result["total"]
    return ExitCode.BUDGET if few else ExitCode.DONE


def _saved(package: Path, result: dict[str, Any]) -> bool:
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

    def what(data: dict[str, Any]) -> tuple[Any, Any, int]:
        return (
            data["variant"]["repo_id"],
            data["recipe"]["id"],
            int(data.get("artifact_bytes") or 0),
        )

    variant, recipe, own = what(manifest.read(package).data)
    for place, path in others.items():
        if path is None:
            continue
        its_variant, its_recipe, size = what(manifest.read(path).data)
        if (its_variant, its_recipe) == (variant, recipe):
            # In more or fewer files they differ by the headers; that is no other size.
            raise usage(
                f"{path} holds the same weights as {package}.",
                f"--{place} takes a package of another variant or recipe.",
            )
        if size >= own if place == "smaller" else size <= own:
            raise usage(
                f"{path} is not {place} than {package}.",
                f"--{place} takes a package of another size, by the bytes of its model.",
            )


def _tried(package: Path, asked: TaskSet, prompts: Path | None, think: bool) -> dict[str, Any]:
    from packager.behaviour import trial
    from packager.cli.progress import follow
    from packager.package import manifest
    from targets import registry

    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    return follow(trial.run(package, runtime, asked, prompts, think))


def _show(name: str, result: dict[str, Any]) -> None:
    rows = [(name, result), *((row["name"], row) for row in result.get("neighbours", {}).values())]
    passes = list(result["passes"])
    columns = ("", *passes, *_KINDS.values())
    table = []
    for title, one in rows:
        shares = [
            f"{one['passes'][part]['passed']} of {one['passes'][part]['total']}" for part in passes
        ]
        table.append((printable(title), *shares, *(str(one["failures"][kind]) for kind in _KINDS)))
    emit_table(
        f"{result['passed']} of {result['total']} tasks passed", columns, table, right=columns[1:]
    )
    for row in result["tasks"]:
        for failure in row["failures"]:
            where = f"{row['id']}, turn {failure['turn']}" if failure["turn"] > 1 else row["id"]
            narrate(printable(f"{where}: {_KINDS[failure['kind']]}: {failure['why']}"))
    for place, row in result.get("neighbours", {}).items():
        direction = "down" if place == "smaller" else "up"
        more, less = len(row["only_it_passed"]), len(row["only_this_passed"])
        narrate(
            printable(
                f"One size {direction}, {row['name']}: passes {more} that {name} fails, and fails "
                f"{less} that it passes."
            )
        )
    if result["left_out"]:
        narrate(
            f"Left out: {', '.join(row['id'] for row in result['left_out'])}; "
            f"{result['left_out'][0]['why']}."
        )
