"""The catalogue: every Qwen variant as data, with a source per number.

find("qwen3-0.6b").shape        one variant by its repo id or short name, in any case
select(family="Qwen3")          the variants that pass every filter
score_of(variant, "MMLU")       a published score, with its protocol and source
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache

from packager.catalog.benchmarks import Score, score_of, scores
from packager.catalog.variant import Variant
from packager.errors import usage
from packager.names import did_you_mean

__all__ = [
    "Age",
    "Score",
    "Variant",
    "age",
    "families",
    "find",
    "forget",
    "licence_ids",
    "load",
    "score_of",
    "scores",
    "select",
    "tuned_to_answer",
]

UNSTATED = "unstated"
REVIEWED = "2026-11-27"
"""The day on which the rows were last held against what is published; who does so again sets it."""


@dataclass(frozen=True, slots=True)
class Age:
    """How old the catalogue is: when it was last reviewed, how many days ago, and the newest
    variants' release."""

    reviewed: str
    days: int
    newest: str

    @property
    def ago(self) -> str:
        """The days in words."""
        words = {0: "today", 1: "1 day ago"}
        return words.get(self.days, f"{self.days} days ago")

    def __str__(self) -> str:
        return (
            f"The catalogue was last reviewed on {self.reviewed}, {self.ago}; its newest variants "
            f"are of {self.newest}."
        )


@cache
def load() -> tuple[Variant, ...]:
    """Every variant, oldest family first; read once per process."""
    from packager.catalog.loader import read_all

    return read_all()


def forget() -> None:
    """Read the files again at the next question: one of the user's rows has changed."""
    for remembered in (load, _index, _quantized_index, tuned_to_answer):
        remembered.cache_clear()


def age(today: date | None = None) -> Age:
    """How old the catalogue is on that day, by the clock of the machine where none is given."""
    newest = max(variant.release_date for variant in load() if variant.release_date)
    return Age(
        REVIEWED, max(0, ((today or date.today()) - date.fromisoformat(REVIEWED)).days), newest
    )


@cache
def tuned_to_answer(kind: str) -> tuple[Variant, ...]:
    """The variants of one kind without the base models."""
    return tuple(variant for variant in load() if variant.kind == kind and not variant.base)


def families() -> tuple[str, ...]:
    """The names of the families, in the catalogue's order."""
    return tuple(dict.fromkeys(variant.family for variant in load()))


def licence_ids() -> tuple[str, ...]:
    """The licences of all variants, as far as anybody states them."""
    return tuple(sorted({variant.license for variant in load() if variant.license}))


def find(name: str) -> Variant:
    """The variant of that repo id or short name, case aside; an unknown one is a PackError (exit
    code 2).

    A repository in which a variant was published quantized is found as well, in its shape.
    """
    key = name.strip().casefold()
    # A row of its own says more than the row of the checkpoint that was quantized.
    variant = _index().get(key) or _quantized_index().get(key)
    if variant is None:
        known = [item.repo_id if "/" in name else item.name for item in load()]
        raise usage(
            f"There is no variant {name!r} in the catalogue.{did_you_mean(name, known)}",
            "List them with: qwen-pack models",
        )
    return variant


def select(
    family: str | None = None, license: str | None = None, modality: str | None = None
) -> tuple[Variant, ...]:
    """The variants that pass every filter given, case aside; an unknown value is a PackError (exit
    code 2).

    `license` is an id, or "unstated" for the variants whose licence no source states. `modality` is
    what it reads or writes.
    """
    variants = load()
    if family is not None:
        variants = tuple(
            variant for variant in variants if variant.family.casefold() == family.casefold()
        )
        _refuse_unless(bool(variants), "family", family, families())
    if license is not None:
        known = sorted({variant.license or UNSTATED for variant in load()})
        _refuse_unless(license.casefold() in known, "licence", license, known)
        variants = tuple(
            variant for variant in variants if (variant.license or UNSTATED) == license.casefold()
        )
    if modality is not None:
        known = sorted(
            {item for variant in load() for item in (*variant.modality_in, *variant.modality_out)}
        )
        _refuse_unless(modality.casefold() in known, "modality", modality, known)
        variants = tuple(
            variant
            for variant in variants
            if modality.casefold() in (*variant.modality_in, *variant.modality_out)
        )
    return variants


@cache
def _index() -> dict[str, Variant]:
    return _by_name(load())


@cache
def _quantized_index() -> dict[str, Variant]:
    return _by_name(row for variant in load() for row in _quantized(variant))


def _by_name(rows: Iterable[Variant]) -> dict[str, Variant]:
    return {key.casefold(): variant for variant in rows for key in (variant.repo_id, variant.name)}


def _quantized(variant: Variant) -> Iterator[Variant]:
    """The same model in each of the repositories in which its publisher quantized it."""
    note = f"{variant.repo_id}, quantized by its publisher: see --repack"
    for repo_id in variant.quantized_repos:
        yield replace(
            variant,
            repo_id=repo_id,
            published_precisions=(repo_id.removeprefix(f"{variant.repo_id}-"),),
            notes=(note, *variant.notes),
        )


def _refuse_unless(known: bool, what: str, value: str, names: list[str] | tuple[str, ...]) -> None:
    if not known:
        raise usage(
            f"The catalogue has no {what} {value!r}.{did_you_mean(value, names)}",
            f"Known: {', '.join(names)}.",
        )
