"""A package on its way out, without a screen: what was ordered, what must be agreed to first, and
the command that does the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packager.escapes import command
from packager.units import human_bytes
from tui.bars import bar

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.shipping.export import Exported, Format

Parts = list[tuple[str, str]]

WHOLE, OTHER = "", "other"
SIZES = (
    (WHOLE, "whole files"),
    ("4G", "at most 4 GB (FAT32)"),
    ("2G", "at most 2 GB"),
    ("1G", "at most 1 GB"),
    ("500M", "at most 500 MB"),
    ("100M", "at most 100 MB"),
    (OTHER, "another size"),
)
"""What --max-file-size takes, and how it reads."""


EXAMPLES = {
    "device_type": "required: the device type of your update server, such as raspberrypi5",
    "base_image": "required: an image with the engine, such as registry/image@sha256:…",
}
"""What a setting of a format looks like."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is filled in for an export: the format, the text fields and the choices, by the ids of
    their widgets."""

    format: str
    fields: Mapping[str, str]
    choices: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Order:
    """What `qwen-pack export` is asked for. `size` is as typed; `settings` are what the format
    takes besides."""

    package: Path
    format: str
    out: Path
    size: str = WHOLE
    key: Path | None = None
    accepted: str | None = None
    allow_dummy: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> str:
        """The command line that does the same."""
        words = [
            "qwen-pack",
            "export",
            str(self.package),
            "--format",
            self.format,
            "--out",
            str(self.out),
        ]
        words += ["--max-file-size", self.size] if self.size else []
        words += ["--sign", str(self.key)] if self.key else []
        words += ["--accept-license", self.accepted] if self.accepted else []
        words += ["--allow-dummy"] if self.allow_dummy else []
        for name, value in self.settings.items():
            words += [f"--{name.replace('_', '-')}", value]
        return command(words)


def place(package: Package, chosen: Format, folder: Path) -> Path:
    """Where it goes by default: the package's own name, in the folder of the walkthrough."""
    return (folder / f"{package.manifest.name}{chosen.suffix}").absolute()


def licence(package: Package) -> tuple[str, str] | None:
    """The name to accept and what it asks, as the end of a sentence; None where nothing must be
    agreed to."""
    from packager.catalog import UNSTATED
    from packager.catalog.licences import agreement

    name = package.manifest.contents.variant.license
    asks = agreement(name)
    return None if asks is None else (name or UNSTATED, asks)


def is_dummy(package: Package) -> bool:
    """Whether its weights are random."""
    return bool(package.manifest.contents.source.dummy)


def words(chosen: Format, package: Package, order: Order) -> Parts:
    """What an export in a format is, what stands against it, and the command that does the same."""
    parts: Parts = [(f"{chosen.name}: ", "bold"), (f"{chosen.summary}\n", "")]
    misfit, asks = chosen.misfit(package.manifest), licence(package)
    parts += [(f"✗ {misfit.message}\n", "$text-error")] if misfit else []
    if asks and order.accepted is None:
        text = f"! The licence of the weights ({asks[0]}) {asks[1]}.\n"
        parts.append((text, "$text-warning"))
    if is_dummy(package):
        parts.append(("! The weights are random: answers will mean nothing.\n", "$text-warning"))
    return [
        *parts,
        ("\n$ ", "$foreground-muted"),
        (f"{order.command()}\n\n", "bold $text-accent"),
    ]


def progress(done: int, total: int, width: int, stopping: bool) -> Parts:
    """How many of all bytes are written, with a bar of so many cells."""
    share = done / total if total else 0.0
    return [
        (bar(share, width), "$primary"),
        (f" {share:4.0%}  {human_bytes(done)} of {human_bytes(total)}", ""),
        ("  stopping …" if stopping else "", "$text-warning"),
    ]


def outcome(one: Exported) -> Parts:
    """Where it lies, how large it is, and its signature."""
    size = f": {one.files} file{'s' if one.files > 1 else ''}, {human_bytes(one.bytes)}"
    parts: Parts = [("✓ ", "bold $text-success"), (str(one.path), "bold"), (size, "")]
    return parts + ([(f"\n✓ {one.signature}: the signature", "")] if one.signature else [])
