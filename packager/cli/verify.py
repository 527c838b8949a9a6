"""`qwen-pack verify`: check a package against its manifest, byte by byte."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, json_option, narrate, printable
from packager.errors import ExitCode


@click.command("verify")
@click.argument("package", type=click.Path(path_type=Path))
@json_option
def command(package: Path, as_json: bool) -> int:
    """Check PACKAGE against its manifest, byte by byte.

    Finds a flipped byte, a missing, renamed or additional file, a link. Exit code 6 when there is any.
    """
    from packager import manifest
    from packager.units import human_bytes
    from packager.verify import verify

    findings = verify(package)
    known = manifest.read(package)
    size = sum(entry.size for entry in known.files)
    if as_json:
        rows = [finding.as_dict() for finding in findings]
        emit_json(
            "verify",
            {"package": str(package), "name": known.name, "ok": not findings, "files": len(known.files), "bytes": size, "findings": rows},
        )
    elif findings:
        for finding in findings:
            click.echo(printable(f"{finding.kind}: {finding.path} {finding.message}"))
        narrate(f"{package} is not what its manifest says: {len(findings)} finding{'s' if len(findings) > 1 else ''}.")
    else:
        click.echo(f"{known.name}: {len(known.files)} files, {human_bytes(size)}, all as the manifest says.")
    return ExitCode.INPUT if findings else ExitCode.DONE
