"""A folder that another converter wrote, as the adapter of an engine offers it: its files are
copied, so nothing is exported or split, and sizes are those of the files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from packager.errors import PackError
from packager.json_values import JsonObject
from packager.package.floor import HasFloor
from packager.plan.converted import describe
from packager.recipe import Recipe
from packager.records.contents import Minimum
from packager.runtime import BuildNeeds, Report, Tools
from packager.shape import Shape

_COPY_MEMORY = 300 << 20
"""Bytes of a process that copies and hashes."""


class ConvertedFolder(Protocol):
    """A folder that was looked at: its files by name, its decoder, and how its matrices are
    stored."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that are taken, by name."""

    @property
    def shape(self) -> Shape:
        """Its decoder."""

    @property
    def types(self) -> Mapping[str, int]:
        """Matrices by how they are stored."""

    @property
    def bits_per_weight(self) -> float:
        """Scales and zero points counted."""


class SizedByFiles:
    """The sizes of a ConvertedFolder."""

    @property
    def size(self: ConvertedFolder) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def largest(self: ConvertedFolder) -> int:
        """Bytes of the largest file."""
        return max(path.stat().st_size for path in self.files.values())


def describe_converted(
    own: ConvertedFolder, config: JsonObject, generation: JsonObject, report: Report, out: Path
) -> JsonObject:
    """Write the texts of a checkpoint into `out`, see packager.plan.converted.describe, and return
    what an adoption records of the folder."""
    spoken = describe(own.files, own.shape.vocab, config, generation, out)
    report.note(
        f"{own.folder.name}: {sum(own.types.values())} matrices, {own.bits_per_weight:.2f} bits "
        "per weight"
    )
    return {
        "architecture": own.shape.model_type,
        "bits_per_weight": round(own.bits_per_weight, 4),
        "template": spoken.template is not None,
        "ends": list(spoken.end_texts),
    }


class _Sizes(Protocol):
    @property
    def size(self) -> int: ...

    @property
    def largest(self) -> int: ...


class _AdapterOfFolder(Protocol):
    """What CopiesAFolder needs of the adapter that it is mixed into."""

    @property
    def engine(self) -> HasFloor: ...

    @property
    def extra(self) -> str: ...

    @property
    def distributions(self) -> tuple[str, ...]: ...

    @property
    def own(self) -> _Sizes: ...


class CopiesAFolder:
    """The part of a Runtime whose build is a copy of one folder: to be mixed in before the adapter
    of the engine."""

    def artifact_bytes(self: _AdapterOfFolder, shape: Shape, recipe: Recipe) -> int:
        """The files'."""
        return self.own.size

    def build_needs(self: _AdapterOfFolder, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """A copy."""
        return BuildNeeds(_COPY_MEMORY, self.own.size)

    def least_file_bytes(self: _AdapterOfFolder, shape: Shape, recipe: Recipe) -> int:
        """The files are not split."""
        return self.own.largest

    def tools(self: _AdapterOfFolder, shape: Shape, recipe: Recipe) -> Tools:
        """Nothing is exported."""
        return Tools(self.extra, self.distributions)

    def minimum(
        self: _AdapterOfFolder, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """As for what is converted here; empty where the folder holds what nothing is known of."""
        with suppress(PackError):
            return self.engine.minimum(artifact, shape, recipe, facts)
        return ()
