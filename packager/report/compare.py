"""Finished packages side by side: a row per figure, the best one known, who is on the Pareto front,
and what must be said.

Figures of different machines stand beside each other and are never ranked against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packager.json_values import JsonObject
from packager.records import Contents
from packager.records.figures import DERIVED, MEASURED, Figure
from packager.report.budgets import quantity
from packager.report.figures import value_of
from packager.report.pareto import (
    Standing,
    behaviour_set,
    divergence,
    machine_of,
    passed_share,
    reference,
    same,
    standings,
)
from packager.report.prices import Prices

_WORDS: tuple[tuple[str, Callable[[Contents], str | int | None]], ...] = (
    ("variant", lambda contents: contents.variant.repo_id),
    ("recipe", lambda contents: contents.recipe.id),
    ("cache", lambda contents: contents.recipe.kv),
    ("target", lambda contents: contents.target),
    ("context", lambda contents: contents.context),
    ("licence", lambda contents: contents.variant.license),
    ("weights", lambda contents: contents.source.kind),
)
_FIGURES = tuple(figure for figure in (*MEASURED, *DERIVED) if figure.compared)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a text per package, and which of them is best (None where nothing can be said); a
    row of numbers has them as `values`."""

    label: str
    texts: tuple[str, ...]
    best: int | None = None
    figure: str = ""
    values: tuple[float | None, ...] = ()
    level: bool = False
    """Whether the best one is no better than another within their noise, so that none is."""


def figures(contents: Contents, prices: Prices) -> dict[str, float | None]:
    """Every figure of a manifest that is compared, by its name in JSON; None where it is not
    known."""
    measured, share = contents.telling, passed_share(contents)
    derived = {
        "kl_mean": divergence(contents),
        "tasks_passed": None if share is None else 100 * share,
        "cost_per_million_tokens": prices.per_million_tokens(measured),
        "cost_per_successful_task": prices.per_successful_task(contents.behaviour, measured),
    }
    return {
        figure.name: derived[figure.name]
        if figure.name in derived
        else value_of(figure.name, measured, contents.artifact_bytes)
        for figure in _FIGURES
    }


def rows(manifests: Sequence[Contents], prices: Prices | None = None) -> list[Row]:
    """What they are, then what was measured, then who is on the front."""
    table = [
        Row(label, tuple(_word(of(contents)) for contents in manifests)) for label, of in _WORDS
    ]
    table.append(Row("measured on", tuple(machine_name(contents) for contents in manifests)))
    known = [figures(contents, prices or Prices()) for contents in manifests]
    for figure in _FIGURES:
        values = tuple(each[figure.name] for each in known)
        if not figure.always and all(value is None for value in values):
            continue
        best = _best(values, figure.direction) if _comparable(figure, manifests) else None
        level = _level(figure, values, manifests, best)
        best = None if level else best
        texts = tuple(_text(value, figure.unit) for value in values)
        table.append(Row(figure.label, texts, best, figure.name, values, bool(level)))
    if len(manifests) > 1:
        words = {True: "yes", False: "no", None: "–"}
        fronts = tuple(words[standing.front] for standing in standings(manifests)[0])
        table.append(Row("Pareto front", fronts))
    return table


def notes(
    names: Sequence[str], manifests: Sequence[Contents], prices: Prices | None = None
) -> list[str]:
    """What a reader of the table must know, in sentences."""
    places: dict[str, list[str]] = {}
    for name, contents in zip(names, manifests, strict=True):
        if machine_of(contents) is not None:
            places.setdefault(machine_name(contents), []).append(name)
    sentences = []
    if not same(manifests, machine_of):
        # Two machines may have one processor and differ in memory or system.
        where = "; ".join(f"{', '.join(there)} on {machine}" for machine, there in places.items())
        sentences.append(
            f"Measured on different machines ({where}): their memory and speed are not ranked "
            "against each other."
        )
        if prices is not None and prices.given:
            sentences.append("One price was taken for all of these machines.")
    for name, contents in zip(names, manifests, strict=True):
        sentences += [f"{name} {what}" for what in _of_one(contents)]
    if any(contents.telling and contents.telling.noisy for contents in manifests):
        sentences.append(
            "A disturbed measurement is among them, so speed and memory are not ranked."
        )
    if not same(manifests, _prompt):
        sentences.append(
            "First tokens come after prompts of different length, so they are not ranked."
        )
    if not same(manifests, lambda contents: contents.context):
        sentences.append(
            "The packages are made for different contexts: memory holds the cache of each, so it "
            "is not ranked."
        )
    if not same(manifests, _held):
        sentences.append(
            "Not all were measured with a picture or a sound of the same size: peak memory and "
            "first tokens that hold one are not ranked."
        )
    if prices is not None and prices.per_kwh is not None and prices.watts is None:
        silent = [
            name
            for name, contents in zip(names, manifests, strict=True)
            if contents.telling and prices.per_million_tokens(contents.telling) is None
        ]
        sentences += [
            f"{name} was measured without energy, so it has no cost: add --watts."
            for name in silent
        ]
    sentences += [
        f"{row.label}: the difference is inside the noise of what was measured, so none is called "
        "the best."
        for row in rows(manifests, prices)
        if row.level
    ]
    return sentences + _of_the_front(names, manifests)


def _of_one(contents: Contents) -> list[str]:
    measured = contents.telling
    remarks = []
    if contents.source.dummy:
        remarks.append(
            "has random weights: its size and speed are real, and its answers mean nothing."
        )
    if measured is None:
        why = contents.not_measured
        return [*remarks, f"was not measured{f': {why}' if why else ''}."]
    if measured.place is not None and not measured.place.on_device:
        remarks.append(f"was not measured on its device: {measured.place.why}.")
    if measured.noise:
        remarks.append(f"has a measurement that is {measured.noise}.")
    return remarks


def _of_the_front(names: Sequence[str], manifests: Sequence[Contents]) -> list[str]:
    places, by = standings(manifests)
    compared = sum(standing.front is not None for standing in places)
    if compared < 2:
        return []
    axes = "memory, speed and quality" if by else "memory and speed"
    sentences = [f"The Pareto front is of {axes}{QUALITY_BY[by]}."]
    differ = not same(manifests, lambda contents: contents.context) or not same(manifests, _held)
    if differ or any(contents.telling and contents.telling.noisy for contents in manifests):
        sentences.append("It takes figures as they are, those that are not ranked above as well.")
    for name, standing in zip(names, places, strict=True):
        if standing.beaten_by:
            others = " and ".join(names[index] for index in standing.beaten_by)
            are = "is" if len(standing.beaten_by) == 1 else "are"
            sentences.append(f"{name} is not on it: {others} {are} at least as good on all.")
    return sentences


QUALITY_BY: dict[str | None, str] = {
    "behaviour": " (the share of the behaviour set that was passed)",
    "divergence": " (divergence from the same unquantized model)",
    "published": " (published scores of the unquantized variants)",
    None: "; quality is left out, as the packages share no figure of it",
}


def as_dict(
    names: Sequence[str], paths: Sequence[str], manifests: Sequence[Contents], prices: Prices
) -> JsonObject:
    """The comparison as JSON."""
    places, by = standings(manifests)
    packages: list[JsonObject] = []
    for name, path, contents, standing in zip(names, paths, manifests, places, strict=True):
        measured, machine = contents.telling, machine_of(contents)
        packages.append(
            {
                "package": path,
                "name": name,
                **{label: of(contents) for label, of in _WORDS},
                "runtime": contents.runtime.name,
                "machine": machine.to_json() if machine else None,
                "place": measured.place.to_json() if measured and measured.place else None,
                "noisy": None if measured is None else measured.noisy,
                "figures": figures(contents, prices),
                "quality": contents.quality.to_json() if contents.quality else None,
                "behaviour": contents.behaviour.to_json() if contents.behaviour else None,
                **_standing(standing, paths),
            }
        )
    numbers = [row for row in rows(manifests, prices) if row.figure]
    table = [
        {
            "figure": row.figure,
            "label": row.label,
            "best": row.best,
            "values": row.values,
            "inside_noise": row.level,
        }
        for row in numbers
    ]
    return {
        "packages": packages,
        "rows": table,
        "same_machine": same(manifests, machine_of),
        "front": {"axes": ["memory", "speed", *(["quality"] if by else [])], "quality_by": by},
        "prices": {"per_hour": prices.per_hour, "watts": prices.watts, "per_kwh": prices.per_kwh},
        "notes": notes(names, manifests, prices),
    }


def titles(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """What to call each package: its name, or its folder where several share one, as two builds of
    one recipe do."""
    return [
        name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)
    ]


def _standing(standing: Standing, paths: Sequence[str]) -> JsonObject:
    return {
        "on_front": standing.front,
        "quality_score": standing.quality,
        "beaten_by": [paths[index] for index in standing.beaten_by],
    }


def machine_name(contents: Contents) -> str:
    """The processor of the machine that measured it, or a dash."""
    machine = machine_of(contents)
    return (machine.processor if machine else "") or "–"


def _comparable(figure: Figure, manifests: Sequence[Contents]) -> bool:
    if figure.name == "kl_mean":
        return same(manifests, reference)
    of_tasks = figure.name in ("tasks_passed", "cost_per_successful_task")
    if of_tasks and not same(manifests, behaviour_set):
        return False
    if figure.name in ("ttft_ms", "prefill_tps") and not same(manifests, _prompt):
        return False
    if figure.name in _HOLDING and not same(manifests, _held):
        return False
    if figure.anywhere:
        return True
    if figure.of_the_context and not same(manifests, lambda contents: contents.context):
        return False
    # A disturbed measurement shows what the other programs left, not what the package does.
    return same(manifests, machine_of) and not any(
        contents.telling and contents.telling.noisy for contents in manifests
    )


_HOLDING = (
    *("peak_memory_bytes", "image_ttft_ms", "image_pair_ttft_ms", "image_decode_tps"),
    *("audio_ttft_ms", "audio_encode_ms", "audio_seconds_per_second"),
)
"""Figures that hold a picture or a sound, where a package takes one."""


def _held(contents: Contents) -> tuple[int, int] | None:
    """Tokens of the picture and seconds of the sound that were measured; None where nothing was."""
    measured = contents.telling
    return (measured.image_tokens or 0, measured.audio_seconds or 0) if measured else None


def _prompt(contents: Contents) -> int | None:
    return contents.telling.prompt_tokens if contents.telling else None


def _level(
    figure: Figure, values: Sequence[float | None], manifests: Sequence[Contents], best: int | None
) -> list[int]:
    """Which packages, the best one among them, differ from it by less than the noise of both; empty
    where none does, or where the noise is not known."""
    if best is None:
        return []
    errors = [_error(figure.name, contents) for contents in manifests]
    own, first = errors[best], values[best]
    if own is None or first is None:
        return []
    near = [
        index
        for index, (value, error) in enumerate(zip(values, errors, strict=True))
        if value is not None and error is not None and abs(value - first) <= math.hypot(own, error)
    ]
    return near if len(near) > 1 else []


def _error(name: str, contents: Contents) -> float | None:
    """By how much a figure may be off: twice the standard error of a mean divergence, half the
    distance between the quartiles of a rate."""
    measured, quality = contents.telling, contents.quality
    if name == "kl_mean":
        return 2 * quality.kl_error if quality and quality.kl_error is not None else None
    if measured is None:
        return None
    if name == "decode_tps" and measured.decode_tps is not None and measured.spread is not None:
        return measured.decode_tps * measured.spread / 2
    if name == "ttft_ms" and measured.ttft_ms is not None and measured.ttft_spread is not None:
        return measured.ttft_ms * measured.ttft_spread / 2
    return None


def _best(values: Sequence[float | None], better: int) -> int | None:
    known = [(better * value, -index) for index, value in enumerate(values) if value is not None]
    if len(known) < 2 or len({value for value, _ in known}) == 1:
        return None
    return -max(known)[1]


def _word(value: object) -> str:
    return "–" if value is None else str(value)


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit in ("", "nats"):
        return f"{value:.4g} {unit}".rstrip()
    return f"{value:.0f} %" if unit == "%" else quantity(value, unit)
