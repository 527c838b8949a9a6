"""`qwen-pack unpack`: an exported archive, or a folder with pieces, back into a package."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, say
from packager.cli.shared_options import out_option
from packager.errors import ExitCode


@click.command("unpack")
@click.argument("archive", type=click.Path(path_type=Path))
@out_option("DIR", "The new folder; the name of the package, here, by default.")
@json_option
def command(archive: Path, out: Path | None, as_json: bool) -> int:
    """Make a package of ARCHIVE: a tar.zst or zip, its first piece, or a folder whose files are in
    pieces.

    Every file is compared with the manifest before anything gets its name.
    """
    from packager.cli.progress import follow
    from packager.shipping.export import staged
    from packager.shipping.folder import join
    from packager.shipping.unpack import default_name, unpack

    destination = (out or Path(default_name(archive))).absolute()
    work = join(archive, destination) if archive.is_dir() else unpack(archive, destination)
    package = follow(staged(work, "unpack", "Unpack"))
    if as_json:
        emit_json(
            "unpack",
            {
                "package": str(package.path),
                "name": package.manifest.name,
                "files": len(package.manifest.files),
            },
        )
    else:
        say(f"{package.path}: {len(package.manifest.files)} files, all as the manifest says.")
    return ExitCode.DONE
