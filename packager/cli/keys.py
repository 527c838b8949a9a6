"""`qwen-pack keys`: key pairs for signatures."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, say
from packager.errors import ExitCode


@click.group("keys")
def command() -> None:
    """Key pairs for `export --sign` and `verify --key`."""


@command.command("new")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def new(path: Path, as_json: bool) -> int:
    """Write a new P-256 private key to PATH and its public half to PATH.pub.

    The variable QWEN_PACK_KEY_PASSWORD, where it is set, locks the private half.
    """
    from packager.shipping import keys

    pair = keys.new(path, keys.password())
    if as_json:
        emit_json("keys", {"private": str(pair.private), "public": str(pair.public)})
    else:
        say(f"{pair.private}: the private half; keep it where packages are signed.")
        say(f"{pair.public}: the public half; give it to who verifies.")
    return ExitCode.DONE
