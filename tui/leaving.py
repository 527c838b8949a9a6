"""A package on its way out, without a screen: what was ordered, what must be agreed to first, and
the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.shipping.export import Format

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
        return shlex.join(words)


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
