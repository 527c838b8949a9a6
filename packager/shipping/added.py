"""Adapter packages that leave with their base: whole, beside it, each by a name that a request can
say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError, usage
from packager.escapes import sh, slug
from packager.files import expanded
from packager.json_values import JsonObject
from packager.package import adapters
from packager.shipping.shipment import Shipment, prepare

FOLDER = "adapters"
"""Where they stand, beside the folder of the base."""
LIST = "adapters.json"
SCHEMA = "qwen-pack/adapters/1"


@dataclass(frozen=True, slots=True)
class Added:
    """An adapter package on its way out with its base. `name` is what a request says, `file` what
    the engine loads, below the adapter's own folder."""

    name: str
    file: str
    shipment: Shipment

    @property
    def path(self) -> str:
        """The engine's file, from the top of the export."""
        return f"{FOLDER}/{self.name}/{self.file}"

    def as_dict(self) -> JsonObject:
        """A row of adapters.json."""
        entry, known = self.shipment.entry(self.file), self.shipment.manifest
        return {
            "name": self.name,
            "file": self.path,
            "size": entry.size,
            "sha256": entry.sha256,
            "version": known.contents.version,
            "content_sha256": adapters.digest(known),
        }


def listed(added: Sequence[Added], base: Shipment) -> JsonObject:
    """What adapters.json holds."""
    return {
        "schema": SCHEMA,
        "base": {"name": base.name, "content_sha256": adapters.digest(base.manifest)},
        "adapters": [row.as_dict() for row in added],
    }


def parse(text: str) -> tuple[str, Path]:
    """`NAME=ADAPTER` or `ADAPTER` -> (name, the package's path); "" for the adapter's own name.
    What exists as it stands is a path."""
    name, equals, path = text.partition("=")
    if not equals or expanded(text).exists():
        return "", expanded(text)
    if not name or str(slug(name)) != name:
        raise usage(
            f"--adapter calls an adapter {name!r}.",
            f"Take small letters, digits and hyphens, for example {slug(name or 'style')}.",
        )
    return name, expanded(path)


def prepared(
    base: Shipment, named: Sequence[str], accepted: Collection[str] = ()
) -> tuple[Added, ...]:
    """The adapters that are named, see `parse`. Raises PackError: as `prepare`; exit code 6 for one
    that was built for another base, 2 for what is no adapter and for two of one name."""
    rows: list[Added] = []
    for text in named:
        given, path = parse(text)
        shipment = prepare(path, accepted=accepted)
        own = adapters.of(shipment.manifest, path)
        adapters.refuse_other_base(base.manifest, base.path, shipment.manifest, path)
        name = given or _own_name(shipment)
        if name in {base.name, str(slug(base.name)), *(row.name for row in rows)}:
            raise _taken(path, name)
        rows.append(Added(name, own.file, shipment))
    return tuple(rows)


def _taken(path: Path, name: str) -> PackError:
    return usage(
        f"{path} is called {name}, as another package of this export.",
        f"Give it a name: --adapter NAME={sh(str(path))}",
    )


def _own_name(shipment: Shipment) -> str:
    """What the adapter was called before it became a package."""
    sources = shipment.manifest.contents.source.adapters
    return str(slug(sources[0].location if sources else shipment.name))
