"""`qwen-pack pull`: a package out of an OCI registry."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, say
from packager.cli.shared_options import out_option, reference_argument, token_host_option
from packager.errors import ExitCode


@click.command("pull")
@reference_argument
@out_option("DIR", "The new folder; the last part of NAME, here, by default.")
@token_host_option
@json_option
def command(reference: str, out: Path | None, token_hosts: tuple[str, ...], as_json: bool) -> int:
    """Pull the package at HOST/NAME:TAG (or HOST/NAME@sha256:...), every byte compared with its
    digest."""
    from packager.cli.progress import follow
    from packager.shipping.export import staged
    from packager.shipping.registry import pull
    from packager.shipping.registry_client import parse_reference

    destination = (out or Path(parse_reference(reference)[1].rpartition("/")[2])).absolute()
    package = follow(staged(pull(reference, destination, token_hosts), "pull", "Pull"))
    if as_json:
        emit_json(
            "pull",
            {"package": str(package.path), "name": package.manifest.name, "reference": reference},
        )
    else:
        say(f"{package.path}: {len(package.manifest.files)} files, all as the manifest says.")
    return ExitCode.DONE
