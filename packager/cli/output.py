"""Data to stdout: one JSON object with its schema, or a table for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from packager.cli.surroundings import silence
from packager.escapes import json_document, line, terminal

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def printable(text: str) -> str:
    """Text from outside (a file name, what a model says) with everything escaped that would do more
    to a terminal than show itself."""
    return terminal(text)


def say(text: str = "", err: bool = False) -> None:
    """A line of data on stdout, or with `err` on stderr; names in it do nothing but show
    themselves."""
    if err:
        narrate(text)
    else:
        click.echo(printable(text))


def narrate(text: str, mark: str = "") -> None:
    """A line on stderr; `mark` stands in front of it, in our own colours. A reader who is gone
    (`2>&1 | head`) or a log on a full disk ends the narration, never the work, and the exit code
    stays what it is."""
    try:
        click.echo(mark + printable(text), err=True)
    except OSError:
        silence(sys.stderr)


def emit_json(command: str, payload: Mapping[str, object]) -> None:
    """The one object of a command, marked with the schema it follows."""
    text = _indented({"schema": f"qwen-pack/{command}/1", **payload})
    click.echo(json_document(text))


def _indented(value: Mapping[str, object]) -> str:
    """As json.dumps with an indent, which took a tenth of the whole command for the thousand
    candidates of `fit`; and a figure that is no number is null, as JSON has no NaN."""
    # Late: --help does without it.
    import msgspec

    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except (TypeError, UnicodeEncodeError):
        import json

        # Texts and numbers of classes of their own, and the half character of a file name, are
        # Python's own alone; so is NaN, which becomes null by reading it again.
        plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(plain, indent=2, ensure_ascii=False)


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
        click.echo("\t".join(map(_cell, columns)))
        for row in rows:
            click.echo("\t".join(_cell(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: what stands in square brackets in the name of a package is no markup.
    table = Table(
        title=Text(_cell(title)) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(
            _cell(column), justify="right" if column in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    console = Console()
    console.print(table)
    if note:
        console.print(f"[dim]{note}[/dim]")


def _cell(text: str) -> str:
    """A name that held a line break or a tab would make cells of its own."""
    return line(text)
