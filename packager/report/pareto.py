"""Which packages are on the Pareto front of memory, speed and quality: those that no other one of
the same machine beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from packager.report.evidence import telling

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """`front` is None where it was not measured; `quality` is on the scale that all share;
    `beaten_by` are places in the list."""

    front: bool | None
    quality: float | None = None
    beaten_by: tuple[int, ...] = ()


def standings(manifests: Sequence[Data]) -> tuple[list[Standing], str | None]:
    """One standing per manifest, and what quality was told by: behaviour, divergence, published,
    None where they share no figure.

    A package is beaten by one of the same machine that is at least as good on every axis and better
    on one.
    """
    axes = [_axes(data) for data in manifests]
    by, scores = _quality(
        [data for data, known in zip(manifests, axes, strict=True) if known is not None]
    )
    left = iter(scores)
    points = [None if known is None else (*known, next(left) or 0.0) for known in axes]
    found = []
    for index, point in enumerate(points):
        if point is None:
            found.append(Standing(None))
            continue
        better = tuple(
            other
            for other, theirs in enumerate(points)
            if theirs is not None
            and machine_of(manifests[other]) == machine_of(manifests[index])
            and _beats(theirs, point)
        )
        found.append(Standing(not better, point[2] if by else None, better))
    return found, by


def machine_of(data: Data) -> Any:
    """The machine of the measurement that tells most; None where there is none."""
    return (telling(data) or {}).get("machine")


def same(manifests: Sequence[Data], of: Callable[[Data], Any]) -> bool:
    """Whether all that have a value have the same."""
    values = [value for value in map(of, manifests) if value is not None]
    return all(value == values[0] for value in values)


def passed_share(data: Data) -> float | None:
    """The part of the behaviour set that was passed."""
    found = data.get("behaviour") or {}
    passed, total = found.get("passed"), found.get("total")
    return passed / total if passed is not None and total else None


def behaviour_set(data: Data) -> Any:
    """The digest of the prompts and checks that its behaviour was tried with."""
    return (data.get("behaviour") or {}).get("set_sha256")


def reference(data: Data) -> Any:
    """What its divergence was measured against: the unquantized variant and the text; None without
    a divergence."""
    text = (data.get("quality") or {}).get("text")
    digest = text.get("sha256") if isinstance(text, dict) else None
    return None if divergence(data) is None else (data["variant"].get("repo_id"), digest)


def divergence(data: Data) -> float | None:
    """Mean divergence from the unquantized model, nats per token."""
    found = (data.get("quality") or {}).get("kl_mean")
    return found if isinstance(found, int | float) else None


def published_quality(data: Data) -> float | None:
    """The mean of the use case's published scores of the packaged variant; None for random weights
    and unknown variants."""
    from packager import catalog
    from packager.errors import PackError
    from packager.need.usecases import use_case
    from packager.select.stand_ins import published

    source, variant, workload = data.get("source"), data.get("variant"), data.get("workload")
    if (
        not (isinstance(source, dict) and isinstance(variant, dict) and isinstance(workload, dict))
        or source.get("kind") == "dummy"
    ):
        return None
    try:
        found, case = (
            catalog.find(str(variant.get("repo_id"))),
            use_case(str(workload.get("use_case"))),
        )
    except PackError:
        return None
    scores = [published(found, name, case.modes) for name in case.quality]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _axes(data: Data) -> tuple[float, float] | None:
    measured = telling(data) or {}
    memory, speed = measured.get("peak_memory_bytes"), measured.get("decode_tps")
    return None if memory is None or speed is None else (-memory, speed)


def _quality(manifests: Sequence[Data]) -> tuple[str | None, list[float | None]]:
    """The most telling figure that every one of them has on one scale, and its values, the more the
    better."""
    ways: list[tuple[str, list[float | None], Callable[[Data], Any]]] = [
        ("behaviour", [passed_share(data) for data in manifests], behaviour_set),
        ("divergence", [_closeness(data) for data in manifests], reference),
        (
            "published",
            [published_quality(data) for data in manifests],
            lambda data: (data.get("workload") or {}).get("use_case"),
        ),
    ]
    for name, values, scale in ways:
        if all(value is not None for value in values) and same(manifests, scale):
            return name, values
    return None, [None] * len(manifests)


def _closeness(data: Data) -> float | None:
    found = divergence(data)
    return None if found is None else -found


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(ours >= theirs for ours, theirs in zip(one, other, strict=True))
