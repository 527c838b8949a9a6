"""The flags of a build that say how the model is to behave, as one Profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packager.cli.options import Flags

if TYPE_CHECKING:
    from packager.chat.profile import Profile

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


def profile_options(command: Command) -> Command:
    """Add the flags; `profile_from` reads them."""
    for option in (
        click.option(
            "--sampling",
            metavar="KEY=VALUE,...",
            help="Sampling over the checkpoint's own: temperature, top_k, top_p, min_p, "
            "repetition_penalty.",
        ),
        click.option(
            "--tools",
            type=_FILE,
            metavar="FILE",
            help="Tools of every chat that has none: a JSON list.",
        ),
        click.option(
            "--system-prompt",
            type=_FILE,
            metavar="FILE",
            help="System prompt of every chat that has none.",
        ),
        click.option(
            "--thinking",
            metavar="on|off|budget:N",
            help="Thinking before an answer, fixed for every request.",
        ),
    ):
        command = option(command)
    return command


def profile_from(flags: Flags) -> Profile:
    """The profile of a command's flags, its files read. Raises PackError (usage, bad input)."""
    from packager.chat.profile_files import parse

    return parse(flags["thinking"], flags["system_prompt"], flags["tools"], flags["sampling"])
