"""`qwen-pack push`: a package into an OCI registry."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, narrate, say
from packager.cli.shared_options import (
    consent_options,
    package_argument,
    reference_argument,
    token_host_option,
)
from packager.errors import ExitCode


@click.command("push")
@package_argument
@reference_argument
@consent_options("Push")
@token_host_option
@json_option
def command(
    package: Path,
    reference: str,
    accepted: tuple[str, ...],
    allow_dummy: bool,
    token_hosts: tuple[str, ...],
    as_json: bool,
) -> int:
    """Push PACKAGE to HOST/NAME:TAG as a model that follows CNCF ModelPack.

    A package of one GGUF file gets TAG-docker and TAG-ollama as well, over the same blob. Log in
    with docker, podman or skopeo.
    """
    from packager.cli.progress import follow
    from packager.shipping import oci
    from packager.shipping.export import staged
    from packager.shipping.registry import push
    from packager.shipping.shipment import prepare

    shipment = prepare(package, allow_dummy=allow_dummy, accepted=accepted)
    tags = follow(
        staged(
            push(
                package,
                reference,
                allow_dummy=allow_dummy,
                accepted=accepted,
                token_hosts=token_hosts,
            ),
            "push",
            "Push",
        )
    )
    if as_json:
        emit_json("push", {"package": str(package), "reference": reference, "tags": tags})
    else:
        for tag, digest in tags.items():
            say(f"{tag}: {digest}")
    why_not = oci.without_ollama(shipment)
    if why_not is not None:
        narrate(f"No TAG-ollama: {why_not}")
    return ExitCode.DONE
