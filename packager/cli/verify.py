"""`qwen-pack verify`: check a package against its manifest, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from packager.cli.output import emit_json, json_option, narrate, printable, say
from packager.cli.shared_options import package_argument
from packager.errors import ExitCode, PackError, usage

if TYPE_CHECKING:
    from packager.json_values import JsonObject
    from packager.package.floor import EngineVerdict
    from packager.package.manifest import Manifest
    from packager.package.verify import Finding
    from packager.pipeline.rebuild import Rebuilt


@click.command("verify")
@package_argument
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="PUB",
    help="It must be signed by the private half of this key.",
)
@click.option(
    "--certificate-chain",
    "chain",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="CERT",
    help="... or by a certificate that these vouch for.",
)
@click.option(
    "--identity",
    metavar="NAME",
    help="With a certificate: whose it must be, a mail address, URI or host name.",
)
@click.option(
    "--issuer",
    metavar="NAME",
    help="With a certificate: who must have issued it, by common name or whole name.",
)
@click.option(
    "--signature",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The detached signature; PACKAGE.sig by default.",
)
@click.option(
    "--min-version", metavar="V", help="Refuse an older package, however well it is signed."
)
@click.option(
    "--rebuild",
    "again",
    is_flag=True,
    help="Build the artifact again from the recorded source and recipe, and compare.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --rebuild: the folder of the checkpoint.",
)
@click.option(
    "--lora",
    "loras",
    multiple=True,
    metavar="DIR|REPO[@REV]",
    help="With --rebuild: an adapter of the build, in the build's order.",
)
@click.option(
    "--imatrix",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --rebuild: the importance matrix of the build.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="TEXT",
    help="With --rebuild: the calibration text of the build.",
)
@click.option(
    "--engine-version",
    "engine_versions",
    multiple=True,
    metavar="ENGINE=VERSION",
    help="Does the engine of your app read it? E.g. llama.cpp=b5092 or openvino=2025.2.",
)
@json_option
def command(
    package: Path,
    key: Path | None,
    chain: tuple[Path, ...],
    identity: str | None,
    issuer: str | None,
    signature: Path | None,
    min_version: str | None,
    again: bool,
    weights: Path | None,
    loras: tuple[str, ...],
    imatrix: Path | None,
    calibration: Path | None,
    engine_versions: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check PACKAGE against its manifest, byte by byte.

    Finds a flipped byte, a missing, renamed or additional file, a link. With --key or
    --certificate-chain also whatever was not signed, and files that can be run or written by all.
    Exit code 6 when there is any. Every command that opens the files also checks that they are
    safe to open; this one reports that too.

    --rebuild fetches the weights again from where they came from (or takes --weights), converts
    them in a temporary folder, and compares every file of the model. The package is only read.
    Exit code 7 if the only differences are bytes that this machine's toolchain rounds differently.

    --engine-version compares the version of an app's engine with the oldest one that reads the
    package. Exit code 7 where that is older.
    """
    from packager.package import manifest
    from packager.package.floor import verdicts
    from packager.package.verify import verify
    from packager.shipping.signature import ENDING, check, trusted

    trust = trusted(key, chain, identity, issuer)
    if trust is None and (signature or min_version):
        raise usage(
            "A signature is checked against a key, and none was named.",
            "Name one with --key or --certificate-chain.",
        )
    if (weights or loras or imatrix or calibration) and not again:
        raise usage(
            "--weights, --lora, --imatrix and --calibration are for a rebuild.",
            "Add --rebuild, or leave them out.",
        )
    if trust is None:
        findings = verify(package)
    else:
        detached = signature or package.with_name(f"{package.name}{ENDING}")
        findings = check(package, detached, trust, min_version)
    rebuilt = None
    if again and not findings:
        rebuilt = _rebuild(package, weights, loras, imatrix, calibration)
        findings = list(rebuilt.findings)
    known = manifest.read(package)
    engines = verdicts(known.contents.runtime.minimum, engine_versions)
    unsafe = _unsafe(package, known)
    result = _Verified(package, known, findings, rebuilt, engines, trust is not None, unsafe)
    if as_json:
        emit_json("verify", result.as_dict())
    else:
        result.show()
    for verdict in engines:
        (say if verdict.reads else narrate)(printable(verdict.sentence()))
    if unsafe is not None:
        narrate(f"The content matches the manifest, but is not safe to open: {unsafe}")
    return result.exit_code()


class _Verified(NamedTuple):
    """What was found out about a package. `rebuilt` is None where nothing was built again, `unsafe`
    where every engine may open it."""

    package: Path
    manifest: Manifest
    findings: Sequence[Finding]
    rebuilt: Rebuilt | None
    engines: Sequence[EngineVerdict]
    signature_checked: bool
    unsafe: str | None

    def as_dict(self) -> JsonObject:
        """The fields of the contract."""
        return {
            "package": str(self.package),
            "name": self.manifest.name,
            "ok": not self.findings,
            "files": len(self.manifest.files),
            "bytes": self._bytes(),
            "findings": [finding.as_dict() for finding in self.findings],
            "signed": self.signature_checked and not self.findings,
            "unsafe": self.unsafe,
            "content_sha256": self.manifest.contents.content_sha256,
            "rebuilt": None if self.rebuilt is None else self.rebuilt.as_dict(),
            "engines": [verdict.as_dict() for verdict in self.engines],
        }

    def exit_code(self) -> ExitCode:
        """Differences of the toolchain alone, and an engine that is too old, are what this machine
        lacks; every other finding is a fault of the package."""
        if self.rebuilt is not None and self.rebuilt.undecided:
            return ExitCode.RESOURCE
        if self.findings:
            return ExitCode.INPUT
        reads = all(verdict.reads for verdict in self.engines)
        return ExitCode.DONE if reads else ExitCode.RESOURCE

    def show(self) -> None:
        """For people."""
        if not self.findings:
            self._show_intact()
            return
        for finding in self.findings:
            say(printable(f"{finding.kind}: {finding.path} {finding.message}"))
        if self.rebuilt is not None and self.rebuilt.undecided:
            self._show_undecided(self.rebuilt)
        else:
            count = f"{len(self.findings)} finding{'s' if len(self.findings) > 1 else ''}"
            wanted = "a rebuild gives" if self.rebuilt else "its manifest says"
            narrate(f"{self.package} is not what {wanted}: {count}.")
        for name, (then, now) in (self.rebuilt.tools if self.rebuilt else {}).items():
            narrate(
                printable(
                    f"It was built with {name} {then or 'unknown'}; here it is {now or 'missing'}."
                )
            )

    def _show_intact(self) -> None:
        from packager.units import human_bytes

        signed = ", signed" if self.signature_checked else ""
        same = "; a rebuild gives the same" if self.rebuilt else ""
        say(
            f"{self.manifest.name}: {len(self.manifest.files)} files, "
            f"{human_bytes(self._bytes())}, all as the manifest says{signed}{same}."
        )

    def _show_undecided(self, rebuilt: Rebuilt) -> None:
        narrate(
            f"{self.package} is as its manifest says, but was built by another toolchain, so a "
            "rebuild here cannot give the same bytes."
        )
        for part, (there, here) in rebuilt.toolchain.items():
            narrate(printable(f"{part}: {there} there, {here} here."))
        narrate(
            "Rebuild it where these are the same, or with quantizers that round every product: "
            "docs/systems.md."
        )

    def _bytes(self) -> int:
        return sum(entry.size for entry in self.manifest.files)


def _unsafe(package: Path, known: Manifest) -> str | None:
    """Why no engine opens the package, as a sentence; its content may be what its manifest says all
    the same."""
    from packager.inspection import refuse_unsafe

    try:
        refuse_unsafe(package, known)
    except (PackError, OSError) as error:
        return error.message if isinstance(error, PackError) else "a file cannot be opened."
    return None


def _rebuild(
    package: Path,
    weights: Path | None,
    loras: tuple[str, ...],
    imatrix: Path | None,
    calibration: Path | None,
) -> Rebuilt:
    from packager.cli.progress import follow
    from packager.pipeline.rebuild import rebuild
    from packager.plan.additions import parse
    from targets import registry

    additions = parse(imatrix, calibration, ())
    return follow(rebuild(package, registry.runtimes(), weights, additions, lora=loras))
