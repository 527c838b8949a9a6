"""Where the weights of a package came from, as its manifest says."""

from __future__ import annotations

from typing import Any

import msgspec

from packager.records.base import Count, Number, Record, Tokens


class AdapterOf(Record, frozen=True, kw_only=True):
    """A LoRA adapter that was merged into the weights, times `scale`."""

    location: str = ""
    repo_id: str | None = None
    revision: str | None = None
    scale: Number = 1.0
    base: str | None = None
    files: list[Any] = msgspec.field(default_factory=list)


class ComparedWith(Record, frozen=True, kw_only=True):
    """The checkpoint that an adopted model was compared with."""

    kind: str = ""
    location: str | None = None
    revision: str | None = None
    files: list[Any] = msgspec.field(default_factory=list)


class HubOrigin(Record, frozen=True, kw_only=True):
    """The repository of the hub that an adopted model came from."""

    repo_id: str = ""
    revision: str | None = None
    license: str | None = None


class AdoptedOf(Record, frozen=True, kw_only=True):
    """A model that somebody else had converted: the variant that it is, `by` what that is known,
    tensors by type, and what it was compared with. `says` are its own words, which prove
    nothing."""

    variant: str = ""
    by: str = "nothing"
    alike: tuple[str, ...] = ()
    recipe: str | None = None
    types: dict[str, Count] = msgspec.field(default_factory=dict)
    # Any: the keys of a file from outside, texts, numbers and lists.
    says: dict[str, Any] = msgspec.field(default_factory=dict)
    against: ComparedWith | None = None
    origin: HubOrigin | None = None
    tokenizer: str | None = None


class BaseOf(Record, frozen=True, kw_only=True):
    """The package that an adapter was built for, by the digest of its content."""

    name: str
    content_sha256: str
    version: str | None = None
    recipe: str | None = None


class AdapterPackage(Record, frozen=True, kw_only=True):
    """What a package is that holds an adapter and no model: the file that an engine adds to the
    base, the largest rank, and how many matrices it changes."""

    base: BaseOf
    file: str
    rank: Tokens
    matrices: Tokens


class SourceOf(Record, frozen=True, kw_only=True):
    """Where its weights came from; `files` as they stand in the manifest. `quantized` says how they
    were stored where they were dequantized first, `adopted` what a model is that was converted
    already, `endpoint` the server that they came from where that is not the usual one."""

    kind: str = ""
    location: str | None = None
    endpoint: str | None = None
    files: list[Any] = msgspec.field(default_factory=list)
    notes: tuple[str, ...] = ()
    quantized: str | None = None
    adapters: tuple[AdapterOf, ...] = ()
    adopted: AdoptedOf | None = None

    @property
    def dummy(self) -> bool:
        """Whether the weights are random."""
        return self.kind == "dummy"
