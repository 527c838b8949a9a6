"""`qwen-pack patch`: an old package and a patch into the new package."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, say
from packager.cli.shared_options import out_option
from packager.errors import ExitCode


@click.command("patch")
@click.argument("patch", type=click.Path(path_type=Path))
@click.argument("old", type=click.Path(path_type=Path))
@out_option("DIR", "The new folder; the new package's name, here, by default.")
@json_option
def command(patch: Path, old: Path, out: Path | None, as_json: bool) -> int:
    """Make the new package of OLD with PATCH, in a new folder: exactly that, every byte compared,
    or nothing.

    OLD stays as it is. A signature of the new package is valid for the result: `qwen-pack verify
    DIR --key PUB`.
    """
    from packager.cli.progress import follow
    from packager.shipping.export import staged
    from packager.shipping.patch import apply, header_of
    from packager.shipping.shipment import place_named

    destination = out.absolute() if out else place_named(header_of(patch).new_name)
    package = follow(staged(apply(patch, old, destination), "patch", "Patch"))
    if as_json:
        emit_json(
            "patch",
            {
                "package": str(package.path),
                "name": package.manifest.name,
                "files": len(package.manifest.files),
            },
        )
    else:
        say(f"{package.path}: {len(package.manifest.files)} files, all as the manifest says.")
    return ExitCode.DONE
