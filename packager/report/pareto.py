"""Which packages are on the Pareto front of memory, speed and quality: those that no other one of
the same machine beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from packager.records import Contents, Machine


@dataclass(frozen=True, slots=True)
class Standing:
    """`front` is None where it was not measured; `quality` is on the scale that all share;
    `beaten_by` are places in the list."""

    front: bool | None
    quality: float | None = None
    beaten_by: tuple[int, ...] = ()


def standings(manifests: Sequence[Contents]) -> tuple[list[Standing], str | None]:
    """One standing per manifest, and what quality was told by: behaviour, divergence, published,
    None where they share no figure.

    A package is beaten by one of the same machine that is at least as good on every axis and better
    on one.
    """
    axes = [_axes(contents) for contents in manifests]
    by, scores = _quality(
        [contents for contents, known in zip(manifests, axes, strict=True) if known is not None]
    )
    left = iter(scores)
    points = [None if known is None else (*known, next(left) or 0.0) for known in axes]
    rows = []
    for index, point in enumerate(points):
        if point is None:
            rows.append(Standing(None))
            continue
        better = tuple(
            other
            for other, theirs in enumerate(points)
            if theirs is not None
            and machine_of(manifests[other]) == machine_of(manifests[index])
            and _beats(theirs, point)
        )
        rows.append(Standing(not better, point[2] if by else None, better))
    return rows, by


def machine_of(contents: Contents) -> Machine | None:
    """The machine of the measurement that tells most; None where there is none."""
    return contents.telling.machine if contents.telling else None


def same(manifests: Sequence[Contents], of: Callable[[Contents], Any]) -> bool:
    """Whether all that have a value have the same."""
    values = [value for value in map(of, manifests) if value is not None]
    return all(value == values[0] for value in values)


def passed_share(contents: Contents) -> float | None:
    """The part of the behaviour set that was passed."""
    return contents.behaviour.share if contents.behaviour else None


def behaviour_set(contents: Contents) -> str | None:
    """The digest of the prompts and checks that its behaviour was tried with."""
    return contents.behaviour.set_sha256 if contents.behaviour else None


def reference(contents: Contents) -> tuple[str | None, str | None] | None:
    """What its divergence was measured against: the unquantized variant and the text; None without
    a divergence."""
    quality = contents.quality
    if quality is None or quality.kl_mean is None:
        return None
    return contents.variant.repo_id, quality.text.sha256 if quality.text else None


def divergence(contents: Contents) -> float | None:
    """Mean divergence from the unquantized model, nats per token."""
    return contents.quality.kl_mean if contents.quality else None


def published_quality(contents: Contents) -> float | None:
    """The mean of the use case's published scores of the packaged variant; None for random weights
    and unknown variants."""
    from packager import catalog
    from packager.errors import PackError
    from packager.need.usecases import use_case
    from packager.select.stand_ins import published

    if contents.source.dummy or contents.workload is None:
        return None
    try:
        variant = catalog.find(str(contents.variant.repo_id))
        case = use_case(str(contents.workload.use_case))
    except PackError:
        return None
    scores = [published(variant, name, case.modes) for name in case.quality]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _axes(contents: Contents) -> tuple[float, float] | None:
    measured = contents.telling
    if measured is None or measured.peak_memory_bytes is None or measured.decode_tps is None:
        return None
    return -measured.peak_memory_bytes, measured.decode_tps


def _quality(manifests: Sequence[Contents]) -> tuple[str | None, list[float | None]]:
    """The most telling figure that every one of them has on one scale, and its values, the more the
    better."""
    ways: list[tuple[str, list[float | None], Callable[[Contents], Any]]] = [
        ("behaviour", [passed_share(contents) for contents in manifests], behaviour_set),
        ("divergence", [_closeness(contents) for contents in manifests], reference),
        (
            "published",
            [published_quality(contents) for contents in manifests],
            lambda contents: contents.workload.use_case if contents.workload else None,
        ),
    ]
    for name, values, scale in ways:
        if all(value is not None for value in values) and same(manifests, scale):
            return name, values
    return None, [None] * len(manifests)


def _closeness(contents: Contents) -> float | None:
    lost = divergence(contents)
    return None if lost is None else -lost


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(ours >= theirs for ours, theirs in zip(one, other, strict=True))
