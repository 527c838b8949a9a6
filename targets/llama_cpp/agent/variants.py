"""Which agents can be built: agent.toml, checked."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Annotated

import msgspec

from packager.errors import usage
from packager.names import did_you_mean

_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
_FILE = "agent.toml"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source archive: what pip downloads, its digest, and where llama.cpp is in it."""

    distribution: _Word
    version: _Word
    sha256: _Digest
    llama: str


class Compiler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The compiler, as a distribution."""

    distribution: _Word
    version: _Word


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent: the compiler's target and processor, and the instruction sets that it needs."""

    target: _Word
    cpu: _Word
    needs: tuple[_Word, ...]
    summary: str


class Agents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of agent.toml; the best variant of an architecture first."""

    source: Source
    compiler: Compiler
    variants: dict[_Word, Variant]


@functools.cache
def agents() -> Agents:
    """The file, checked. Raises ValueError with file and key where it is wrong: a bug of ours."""
    text = resources.files("targets.llama_cpp.agent").joinpath(_FILE).read_text("utf-8")
    try:
        return msgspec.convert(tomllib.loads(text), Agents)
    except msgspec.ValidationError as error:
        raise ValueError(f"{_FILE}: {error}") from None


def variant(name: str) -> Variant:
    """The variant of that name. Raises PackError (usage)."""
    known = agents().variants
    if name not in known:
        raise usage(
            f"There is no agent {name!r}.{did_you_mean(name, known)}",
            f"Known: {', '.join(known)}.",
        )
    return known[name]


def fitting(isa: Sequence[str]) -> list[str]:
    """The variants that a device with these instruction sets runs, the best first."""
    return [name for name, variant in agents().variants.items() if set(variant.needs) <= set(isa)]


def is_name(text: str) -> bool:
    """Whether a text can be the name of a variant, and is no path."""
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text) is not None
