"""What a model is held against that was converted already, as options of `build` and `adopt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--against",
        metavar="DIR|REPO",
        help="The checkpoint that a .gguf file was made from: its tokens, and what it lost.",
    ),
    click.option(
        "--tokenizer",
        metavar="DIR",
        help="Only the tokenizer and template that a .gguf file is held against.",
    ),
)


def adoption_options(command: _Command) -> _Command:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
