"""`qwen-pack delta`: what is new in a package, as a patch."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, say
from packager.cli.shared_options import consent_options, out_option
from packager.errors import ExitCode


@click.command("delta")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@out_option("FILE", "The patch; the new package's name and .patch, here, by default.")
@consent_options("Send out")
@json_option
def command(
    old: Path,
    new: Path,
    out: Path | None,
    accepted: tuple[str, ...],
    allow_dummy: bool,
    as_json: bool,
) -> int:
    """Write the patch that turns the package OLD into NEW; both stay as they are.

    The patch holds the digests of both, and only the contents that OLD lacks. `qwen-pack
    patch` applies it.
    """
    from packager.cli.progress import follow
    from packager.package import manifest
    from packager.shipping.delta import write_patch
    from packager.shipping.export import staged
    from packager.shipping.shipment import place_named
    from packager.units import human_bytes

    destination = out.absolute() if out else place_named(manifest.read(new).name, ".patch")
    made = follow(
        staged(
            write_patch(old, new, destination, allow_dummy=allow_dummy, accepted=accepted),
            "delta",
            "Compare",
        )
    )
    header = made.header
    if as_json:
        emit_json(
            "delta",
            {
                "path": str(made.path),
                "bytes": made.bytes,
                "copied_bytes": made.copied,
                "old": {"name": header.old_name, "files_sha256": header.old_sha256},
                "new": {
                    "name": header.new_name,
                    "manifest_sha256": header.new_sha256,
                    "bytes": header.new_bytes,
                },
            },
        )
    else:
        share = 100 * made.bytes / header.new_bytes
        say(
            f"{made.path}: {human_bytes(made.bytes)}, {share:.3g}% of the "
            f"{human_bytes(header.new_bytes)} of {header.new_name}."
        )
    return ExitCode.DONE
