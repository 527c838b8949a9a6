"""`qwen-pack export`: a package in the form that a store, a registry or a device takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.output import emit_json, json_option, say
from packager.cli.shared_options import consent_options, out_option, package_argument
from packager.errors import ExitCode, usage

if TYPE_CHECKING:
    from packager.shipping.export import Exported


@click.command("export")
@package_argument
@click.option("--format", "name", required=True, metavar="FORMAT", help="What to write; see below.")
@out_option("PATH", "Where; the package's own name, here, by default.")
@click.option(
    "--max-file-size", metavar="SIZE", help="Cut larger files into pieces, for example 2G or 1500M."
)
@consent_options("Export")
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="Sign the package; the signature is written next to the export.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="CERT",
    help="With --sign: the certificate of that key.",
)
@click.option(
    "--certificate-chain",
    "chain",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="CERT",
    help="With --certificate: who issued it.",
)
@click.option(
    "--base-image",
    metavar="IMAGE",
    help="docker: the image that has the engine, best as NAME@sha256:...",
)
@click.option(
    "--device-type",
    metavar="NAME",
    help="embedded: what the fleet calls its devices; the target's name by default.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="[NAME=]ADAPTER",
    help="docker, ollama: an adapter package of PACKAGE that goes along; repeatable. A request "
    "says which by NAME.",
)
@json_option
def command(
    package: Path,
    name: str,
    out: Path | None,
    max_file_size: str | None,
    accepted: tuple[str, ...],
    allow_dummy: bool,
    key: Path | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    base_image: str | None,
    device_type: str | None,
    adapters: tuple[str, ...],
    as_json: bool,
) -> int:
    """Write PACKAGE in another form; the package itself stays as it is.

    \b
    dir       a plain folder
    tar.zst   one reproducible file; qwen-pack unpack, or tar and zstd
    zip       one reproducible file that any system opens
    oci       an OCI image layout following CNCF ModelPack
    ollama    a Modelfile next to the GGUF
    docker    a Dockerfile around an image that has the engine, which you name
    android   AI packs for Play, app assets, and Kotlin that verifies
    ios       a Background Assets pack, and Swift that verifies
    embedded  input of RAUC and Mender, and C that verifies
    """
    from packager.cli.progress import follow
    from packager.shipping.export import export
    from packager.shipping.signature import Signer
    from packager.units import parse_bytes

    if key is None and (certificate or chain):
        raise usage(
            "A certificate says whose key it is; there is no key.", "Name the key with --sign."
        )
    signer = Signer(key, certificate, chain) if key else None
    limit = parse_bytes(max_file_size) if max_file_size else None
    given = {"base_image": base_image, "device_type": device_type}
    settings = {setting: value for setting, value in given.items() if value is not None}
    work = export(
        package,
        name,
        out,
        limit=limit,
        allow_dummy=allow_dummy,
        accepted=accepted,
        signer=signer,
        settings=settings,
        adapters=adapters,
    )
    done = follow(work)
    if as_json:
        emit_json(
            "export",
            {
                "package": str(package),
                "format": name,
                "path": str(done.path),
                "files": done.files,
                "bytes": done.bytes,
                "signature": done.signature and str(done.signature),
                "adapters": [row.as_dict() for row in done.added],
            },
        )
    else:
        _show(done, key)
    return ExitCode.DONE


def _show(done: Exported, key: Path | None) -> None:
    """What was written, and how its signature is checked."""
    from packager.escapes import sh
    from packager.units import human_bytes

    files = "1 file" if done.files == 1 else f"{done.files} files"
    say(f"{done.path}: {files}, {human_bytes(done.bytes)}")
    for row in done.added:
        entry = row.shipment.entry(row.file)
        say(f"{row.name}: {human_bytes(entry.size)}, sha256 {entry.sha256}")
    if done.signature:
        words = sh(f"{key}.pub"), sh(done.signature.name)
        say(
            f"{done.signature}: the signature; `qwen-pack verify DIR --key {words[0]} "
            f"--signature {words[1]}`"
        )
