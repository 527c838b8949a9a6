"""Arguments and options that several commands have, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)

package_argument = click.argument("package", type=_PATH)
reference_argument = click.argument("reference", metavar="HOST/NAME:TAG")

think_option = click.option(
    "--think", is_flag=True, help="Let a model that can think do so before it answers."
)
adapters_option = click.option(
    "--adapter",
    "adapters",
    type=_PATH,
    multiple=True,
    metavar="ADAPTER",
    help="Add the adapter of this package, built for PACKAGE; repeatable.",
)
token_host_option = click.option(
    "--token-host",
    "token_hosts",
    multiple=True,
    metavar="HOST",
    help="Another host that the registry's log-in may go to.",
)


def out_option(metavar: str, help_text: str) -> Callable[[_Command], _Command]:
    """`--out`, where the result goes."""
    return click.option("--out", type=_PATH, metavar=metavar, help=help_text)


def lines_option(what: str) -> Callable[[_Command], _Command]:
    """`--file`, one text a line."""
    return click.option("--file", type=_PATH, help=f"{what} of a file in addition, one per line.")


def consent_options(verb: str) -> Callable[[_Command], _Command]:
    """What must be said before a package leaves this machine: `--accept-license` and
    `--allow-dummy`."""

    def decorate(command: _Command) -> _Command:
        command = click.option(
            "--allow-dummy", is_flag=True, help=f"{verb} a package even if its weights are random."
        )(command)
        return click.option(
            "--accept-license",
            "accepted",
            multiple=True,
            metavar="NAME",
            help="State that you have agreed to a licence that asks for it.",
        )(command)

    return decorate
