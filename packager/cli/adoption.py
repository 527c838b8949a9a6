"""What a model is held against that was converted already, as options of `build` and `adopt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packager.cli.output import narrate
from packager.errors import usage

if TYPE_CHECKING:
    from packager.sources.hub_file import HubFile

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--against",
        metavar="DIR|REPO",
        help="The checkpoint that a converted model was made from: its tokens, and what it lost.",
    ),
    click.option(
        "--tokenizer",
        metavar="DIR",
        help="Only the tokenizer and template that a converted model is held against.",
    ),
    click.option(
        "--hub-file",
        metavar="NAME.gguf|FOLDER/",
        help="Take this file, or folder for an engine, of the hub's repository that is named "
        "(--model, or adopt's own).",
    ),
)


def adoption_options(command: _Command) -> _Command:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def file_of_hub(
    repo_id: str | None, name: str, weights: str, revision: str | None, offline: bool
) -> HubFile:
    """The file that --hub-file names, fetched. Raises PackError (usage) where no repository is
    named."""
    from packager.sources.hub_file import fetched

    if repo_id is None or weights != "hub":
        raise usage(
            f"--hub-file {name} is of a repository of the hub, and none was named.",
            "Name it with --model OWNER/NAME.",
        )
    narrate(f"{name} of {repo_id} is fetched into the hub's cache.")
    return fetched(repo_id, name, revision, offline)
