"""Data to stdout: one JSON object with its schema, or a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from packager.cli.surroundings import silence

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def printable(text: str) -> str:
    """Text from outside (a file name, what a model says) with everything escaped that would do more
    to a terminal than show itself."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def narrate(text: str) -> None:
    """A line on stderr. A reader who is gone (`2>&1 | head`) ends the narration, never the work."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        silence(sys.stderr)


def emit_json(command: str, payload: dict[str, Any]) -> None:
    """The one object of a command, marked with the schema it follows."""
    click.echo(
        json.dumps({"schema": f"qwen-pack/{command}/1", **payload}, indent=2, ensure_ascii=False)
    )


def emit_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    note: str = "",
) -> None:
    """A table on stdout; columns named in `right` hold numbers. Tab-separated where stdout is not a
    terminal."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: what stands in square brackets in the name of a package is no markup.
    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    if note:
        console.print(f"[dim]{note}[/dim]")
