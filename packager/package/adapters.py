"""Adapter packages: what a runtime has that builds them, whether one belongs to a base, and what a
session is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from packager.errors import bad_input, usage
from packager.escapes import sh
from packager.json_values import JsonObject
from packager.package.content import content_sha256
from packager.package.manifest import Manifest
from packager.records.origin import AdapterPackage, BaseOf


@runtime_checkable
class Adapts(Protocol):
    """What a Runtime has besides where its sessions add LoRA adapters while they compute."""

    adapter_job: str
    """`module:function`, a job: (report, *, checkpoint, out) -> facts, `artifact_bytes`, `rank` and
    `matrices` among them. `checkpoint` is a base composed with one adapter, `out` the folder that
    the job makes."""
    adapter_file: str
    """The name of the file that it writes there."""

    name: str

    def how_to_add(self, models: Sequence[str], adapter: str, workload: JsonObject) -> str:
        """Markdown for an adapter package's README: exact commands that run the base with it,
        without qwen-pack. The base lies in the folder BASE, its model's files are `models` below
        it, and `adapter` is the file of the adapter. `workload` has what the base was built for:
        `context`, `kv`, `gpu_layers`, and `settings`, how its engine is started."""


@runtime_checkable
class TakesSome(Protocol):
    """What a Runtime has besides Adapts where not every package takes an adapter."""

    def adapter_obstacle(self, settings: JsonObject, modality: str) -> str | None:
        """Why a package of that modality whose recipe has these settings takes none, as the end of
        a sentence; None where it does."""


def digest(base: Manifest) -> str:
    """What names the content of a package, from its manifest as it stands."""
    return content_sha256(base.data)


def base_of(known: Manifest) -> BaseOf:
    """A package as the base of an adapter."""
    contents = known.contents
    return BaseOf(
        name=contents.name,
        content_sha256=digest(known),
        version=contents.version,
        recipe=contents.recipe.id,
    )


def refuse_alone(known: Manifest) -> None:
    """Raise PackError (usage) for an adapter package where a model is wanted."""
    if known.contents.adapter is not None:
        raise usage(
            f"{known.name} is an adapter and holds no model.",
            f"Name the package {known.contents.adapter.base.name} and this one with --adapter.",
        )


def of(known: Manifest, path: Path) -> AdapterPackage:
    """What a package says of itself as an adapter. Raises PackError (usage) where it is none."""
    if known.contents.adapter is None:
        raise usage(
            f"{path} is a package, but not of an adapter.",
            f"Build one: qwen-pack build --adapter DIR --base {sh(str(path))}",
        )
    return known.contents.adapter


def refuse_other_base(base: Manifest, package: Path, adapter: Manifest, path: Path) -> None:
    """Raise PackError (exit code 6) for an adapter that was built for another package, or for other
    content of this one."""
    wanted, here = of(adapter, path).base, base_of(base)
    if wanted.content_sha256 == here.content_sha256:
        return
    if (wanted.name, wanted.recipe) != (here.name, here.recipe):
        difference = f"it belongs to {wanted.name}, and this is {here.name}"
    elif wanted.version != here.version:
        versions = (version or "no version" for version in (wanted.version, here.version))
        difference = "it belongs to {} of it, and this is {}".format(*versions)
    else:
        digests = (row.content_sha256[:12] for row in (wanted, here))
        difference = "it belongs to content {} of it, and this has {}".format(*digests)
    raise bad_input(
        f"The adapter {adapter.name} cannot be added to {package}: {difference}.",
        "Get the package that it was built for, or build the adapter again with --base "
        f"{sh(str(package))}.",
    )


def rows(adapters: Sequence[tuple[Path, Manifest]]) -> list[JsonObject]:
    """The rows of a session's setting `adapters`. The scale is in the file already."""
    return [
        {"path": str((path / of(known, path).file).absolute()), "scale": 1.0}
        for path, known in adapters
    ]
