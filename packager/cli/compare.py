"""`qwen-pack compare`: packages side by side."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate, printable


@click.command("compare")
@click.argument(
    "packages",
    metavar="PACKAGE PACKAGE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--price-per-hour",
    "per_hour",
    type=float,
    metavar="X",
    help="What an hour of the machine costs, in any currency.",
)
@click.option(
    "--watts",
    type=float,
    metavar="W",
    help="What the machine takes at work; without it the energy that was measured.",
)
@click.option(
    "--price-per-kwh", "per_kwh", type=float, metavar="P", help="What a kilowatt-hour costs."
)
@json_option
def command(
    packages: tuple[Path, ...],
    per_hour: float | None,
    watts: float | None,
    per_kwh: float | None,
    as_json: bool,
) -> None:
    """Two or more packages side by side, by the figures in their manifests.

    A star marks the best figure of a row, where all were measured on the same machine. The Pareto
    front holds the packages that no other one beats on memory, speed and quality; a price adds the
    cost of a million tokens, and of a passed task.
    """
    from packager.errors import usage
    from packager.inspection import refuse_unsafe
    from packager.package import manifest
    from packager.report.compare import as_dict, notes, rows, titles
    from packager.report.prices import Prices

    if len(packages) < 2:
        raise usage("One package alone cannot be compared.", "Name two or more.")
    prices = Prices(per_hour, watts, per_kwh)
    manifests = [manifest.read(package) for package in packages]
    for package, known in zip(packages, manifests, strict=True):
        refuse_unsafe(package, known)
    contents = [each.contents for each in manifests]
    names, paths = [listed.name for listed in manifests], [str(path) for path in packages]
    if as_json:
        emit_json("compare", as_dict(names, paths, contents, prices))
        return
    table = [
        [
            row.label,
            *(f"{text} ★" if index == row.best else text for index, text in enumerate(row.texts)),
        ]
        for row in rows(contents, prices)
    ]
    names = [printable(title) for title in titles(names, paths)]
    emit_table("Side by side", ["", *names], table)
    for note in notes(names, contents, prices):
        narrate(printable(note))
