"""The first recipe of a runtime on a class of processors, by measurement (targets/tuned.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from packager.device.target import Target, Tuned
from packager.errors import bad_input

FILE = Path(__file__).parent.parent / "tuned.toml"


_Words = Annotated[str, msgspec.Meta(min_length=1)]
_Rate = Annotated[float, msgspec.Meta(gt=0, lt=1e9)]
_Nats = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]


class Default(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the file, which says what its fields are."""

    runtime: _Words
    isa: Annotated[tuple[_Words, ...], msgspec.Meta(min_length=1)]
    recipe: _Words
    model: _Words
    decode_tps: _Rate
    divergence: _Nats
    source: _Words
    beside: Mapping[str, _Rate] = msgspec.field(default_factory=dict)

    def sentence(self) -> str:
        """Why it stands first."""
        others = ", ".join(f"{rate:g} as {name}" for name, rate in self.beside.items())
        return (
            f"{self.recipe} is the first of {self.runtime} on processors with "
            f"{' and '.join(self.isa[1:]) or self.isa[0]}: {self.model} decoded "
            f"{self.decode_tps:g} tok/s{f' ({others})' if others else ''} and passed the quality "
            f"gate. Source: {self.source}."
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default: tuple[Default, ...] = ()


def read(path: Path) -> tuple[Default, ...]:
    """The rows of such a file, which may have none. Raises PackError (bad input) that names file
    and key."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).default
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise bad_input(f"{path}: {error}.", "Correct the file.") from None


@cache
def _rows() -> tuple[Default, ...]:
    return read(FILE)


def tuned(target: Target) -> Target:
    """The target with the first recipes that were measured for processors like its own; the row
    that asks for most of the processor counts. Another unit than the processor has none."""
    if target.device.runs_on != "cpu":
        return target
    has = set(target.device.isa.split())
    best: dict[str, Default] = {}
    for row in sorted(_rows(), key=lambda row: len(row.isa)):
        if has.issuperset(row.isa) and row.runtime in target.runtimes:
            best[row.runtime] = row
    return replace(
        target,
        tuned=tuple(Tuned(row.runtime, row.recipe, row.sentence()) for row in best.values()),
    )
