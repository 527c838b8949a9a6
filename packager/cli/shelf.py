"""`qwen-pack shelf`: the packages that were built, and the one way to delete one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate, printable, say


@click.command("shelf")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--remove",
    "doomed",
    type=click.Path(path_type=Path),
    metavar="PACKAGE",
    help="Delete this package; asks first.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(folder: Path, doomed: Path | None, yes: bool, as_json: bool) -> None:
    """The packages in FOLDER (here, by default) and those that were built elsewhere, newest first.

    --remove deletes a package whole, and only where qwen-pack made every file in it.
    """
    if doomed is None:
        _list(folder, as_json)
    else:
        _remove(doomed, yes, as_json)


def _list(folder: Path, as_json: bool) -> None:
    from packager.package import shelf
    from packager.report.budgets import quantity

    rows, table = [], []
    for package in shelf.find(folder):
        contents, measured = package.contents, package.contents.telling
        figures = (
            (contents.artifact_bytes, "B"),
            (measured.peak_memory_bytes if measured else None, "B"),
            (measured.decode_tps if measured else None, "tok/s"),
        )
        row = {
            "name": package.manifest.name,
            "package": str(package.path),
            "created": contents.created,
            "target": contents.target,
            "recipe": contents.recipe.id,
            "artifact_bytes": figures[0][0],
            "peak_memory_bytes": figures[1][0],
            "decode_tps": figures[2][0],
        }
        rows.append(row)
        table.append(
            [
                package.manifest.name,
                contents.target or "–",
                contents.recipe.id or "–",
                *("–" if value is None else quantity(value, unit) for value, unit in figures),
                printable(str(package.path)),
            ]
        )
    if as_json:
        emit_json("shelf", {"folder": str(folder), "packages": rows})
    elif rows:
        emit_table(
            "",
            ("package", "target", "recipe", "files", "memory", "decode", "folder"),
            table,
            right=("files", "memory", "decode"),
        )
    else:
        narrate(
            f"There is no package in {printable(str(folder.absolute()))}, and none was built "
            "elsewhere."
        )


def _remove(package: Path, yes: bool, as_json: bool) -> None:
    from packager.errors import usage
    from packager.package import shelf
    from packager.units import human_bytes

    removed = shelf.removable(package)
    size = sum(entry.size for entry in removed.files)
    holds = f"{len(removed.files)} files, {human_bytes(size)}"
    what = f"{removed.name} ({printable(str(package))}: {holds})"
    if not yes:
        if not sys.stdin.isatty():
            raise usage(
                f"Deleting {what} cannot be undone, and there is no terminal to ask on.",
                "Say --yes.",
            )
        if not click.confirm(f"Delete {what}? This cannot be undone.", err=True):
            narrate("Nothing was deleted.")
            raise click.Abort
    shelf.delete(package)
    if as_json:
        emit_json("shelf", {"removed": str(package), "name": removed.name, "freed_bytes": size})
    else:
        say(f"Deleted {what}.")
