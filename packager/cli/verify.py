"""`qwen-pack verify`: check a package against its manifest, byte by byte."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, narrate, printable
from packager.errors import ExitCode, usage


@click.command("verify")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="It must be signed by the private half of this key.")
@click.option(
    "--certificate-chain",
    "chain",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="CERT",
    help="... or by a certificate that these vouch for.",
)
@click.option("--signature", type=click.Path(path_type=Path), metavar="FILE", help="The detached signature; PACKAGE.sig by default.")
@click.option("--min-version", metavar="V", help="Refuse an older package, however well it is signed.")
@json_option
def command(
    package: Path, key: Path | None, chain: tuple[Path, ...], signature: Path | None, min_version: str | None, as_json: bool
) -> int:
    """Check PACKAGE against its manifest, byte by byte.

    Finds a flipped byte, a missing, renamed or additional file, a link. With --key or --certificate-chain also whatever
    was not signed, and files that can be run or written by all. Exit code 6 when there is any.
    """
    from packager import manifest
    from packager.shipping.signature import ENDING, check, trusted
    from packager.units import human_bytes
    from packager.verify import verify

    trust = trusted(key, chain)
    if trust is None and (signature or min_version):
        raise usage("Who may have signed it? No key was named.", "Name one with --key or --certificate-chain.")
    if trust is None:
        findings = verify(package)
    else:
        findings = check(package, signature or package.with_name(f"{package.name}{ENDING}"), trust, min_version)
    known = manifest.read(package)
    size = sum(entry.size for entry in known.files)
    if as_json:
        rows = [finding.as_dict() for finding in findings]
        emit_json(
            "verify",
            {
                "package": str(package),
                "name": known.name,
                "ok": not findings,
                "files": len(known.files),
                "bytes": size,
                "findings": rows,
                "signed": trust is not None and not findings,
            },
        )
    elif findings:
        for finding in findings:
            click.echo(printable(f"{finding.kind}: {finding.path} {finding.message}"))
        narrate(f"{package} is not what its manifest says: {len(findings)} finding{'s' if len(findings) > 1 else ''}.")
    else:
        click.echo(f"{known.name}: {len(known.files)} files, {human_bytes(size)}, all as the manifest says{', signed' if trust else ''}.")
    return ExitCode.INPUT if findings else ExitCode.DONE
