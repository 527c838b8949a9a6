"""Finished packages side by side: a row per figure, the best one known, who is on the Pareto front,
and what must be said.

Figures of different machines stand beside each other and are never ranked against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from packager.report.budgets import quantity
from packager.report.evidence import telling
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

Data = dict[str, Any]

_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("variant", ("variant", "repo_id")),
    ("recipe", ("recipe", "id")),
    ("cache", ("recipe", "kv")),
    ("target", ("target",)),
    ("context", ("workload", "context")),
    ("licence", ("variant", "license")),
    ("weights", ("source", "kind")),
)
_ALWAYS = frozenset(
    {
        "artifact_bytes",
        "peak_memory_bytes",
        "steady_memory_bytes",
        "decode_tps",
        "prefill_tps",
        "ttft_ms",
    }
    | {"token_ms_median", "token_ms_p95", "load_s"}
)
"""Figures whose row is there even where no package has them."""
_FIGURES: tuple[tuple[str, str, str, int], ...] = (
    ("model files", "artifact_bytes", "B", -1),
    ("peak memory", "peak_memory_bytes", "B", -1),
    ("GPU memory", "gpu_memory_bytes", "B", -1),
    ("steady memory", "steady_memory_bytes", "B", -1),
    ("decode", "decode_tps", "tok/s", 1),
    ("prefill", "prefill_tps", "tok/s", 1),
    ("first token", "ttft_ms", "ms", -1),
    ("token, median", "token_ms_median", "ms", -1),
    ("token, P95", "token_ms_p95", "ms", -1),
    ("load", "load_s", "s", -1),
    ("divergence", "kl_mean", "nats", -1),
    ("tasks passed", "tasks_passed", "%", 1),
    ("cost of 1M tokens", "cost_per_million_tokens", "", -1),
    ("cost of a task", "cost_per_successful_task", "", -1),
)
_OF_THE_CONTEXT = frozenset({"peak_memory_bytes", "gpu_memory_bytes", "steady_memory_bytes"})
"""Figures that hold the cache of the whole context."""
_ANYWHERE = frozenset({"artifact_bytes", "kl_mean", "tasks_passed"})
"""Figures that are the same on every machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a text per package, and which of them is best (None where nothing can be said); a
    row of numbers has them as `values`."""

    label: str
    texts: tuple[str, ...]
    best: int | None = None
    figure: str = ""
    values: tuple[float | None, ...] = ()


def figures(data: Data, prices: Prices) -> dict[str, float | None]:
    """Every figure of a manifest that is compared, by its name in JSON; None where it is not
    known."""
    measured, behaviour = telling(data) or {}, data.get("behaviour") or {}
    share = passed_share(data)
    known = {
        **measured,
        "artifact_bytes": data.get("artifact_bytes"),
        "kl_mean": divergence(data),
        "tasks_passed": None if share is None else 100 * share,
        "cost_per_million_tokens": prices.per_million_tokens(measured),
        "cost_per_successful_task": prices.per_successful_task(behaviour, measured),
    }
    return {name: known.get(name) for _, name, _, _ in _FIGURES}


def rows(manifests: Sequence[Data], prices: Prices | None = None) -> list[Row]:
    """What they are, then what was measured, then who is on the front."""
    found = [
        Row(label, tuple(_word(_at(data, path)) for data in manifests)) for label, path in _WORDS
    ]
    found.append(Row("measured on", tuple(machine_name(data) for data in manifests)))
    known = [figures(data, prices or Prices()) for data in manifests]
    for label, name, unit, better in _FIGURES:
        values = tuple(one[name] for one in known)
        if name not in _ALWAYS and all(value is None for value in values):
            continue
        best = _best(values, better) if _comparable(name, manifests) else None
        found.append(Row(label, tuple(_text(value, unit) for value in values), best, name, values))
    if len(manifests) > 1:
        texts = {True: "yes", False: "no", None: "–"}
        found.append(
            Row("Pareto front", tuple(texts[one.front] for one in standings(manifests)[0]))
        )
    return found


def notes(
    names: Sequence[str], manifests: Sequence[Data], prices: Prices | None = None
) -> list[str]:
    """What a reader of the table must know, in sentences."""
    from packager.report.figures import noise

    places: dict[str, list[str]] = {}
    for name, data in zip(names, manifests, strict=True):
        if machine_of(data) is not None:
            places.setdefault(machine_name(data), []).append(name)
    found = []
    if not same(manifests, machine_of):
        # Two machines may have one processor and differ in memory or system.
        where = "; ".join(f"{', '.join(there)} on {place}" for place, there in places.items())
        found.append(
            f"Measured on different machines ({where}): their memory and speed are not ranked "
            "against each other."
        )
        if prices is not None and prices.given:
            found.append("One price was taken for all of these machines.")
    for name, data in zip(names, manifests, strict=True):
        found += [f"{name} {what}" for what in _of_one(data, noise)]
    if any((telling(data) or {}).get("noisy") for data in manifests):
        found.append("A disturbed measurement is among them, so speed and memory are not ranked.")
    if not same(manifests, _prompt):
        found.append("First tokens come after prompts of different length, so they are not ranked.")
    if not same(manifests, lambda data: _at(data, ("workload", "context"))):
        found.append(
            "The packages are made for different contexts: memory holds the cache of each, so it "
            "is not ranked."
        )
    if prices is not None and prices.per_kwh is not None and prices.watts is None:
        silent = [
            name
            for name, data in zip(names, manifests, strict=True)
            if telling(data) and prices.per_million_tokens(telling(data) or {}) is None
        ]
        found += [
            f"{name} was measured without energy, so it has no cost: add --watts."
            for name in silent
        ]
    return found + _of_the_front(names, manifests)


def _of_one(data: Data, noise: Callable[[Data], str]) -> list[str]:
    measured = telling(data)
    found = []
    if _at(data, ("source", "kind")) == "dummy":
        found.append(
            "has random weights: its size and speed are real, and nothing is said of its answers."
        )
    if measured is None:
        why = data.get("not_measured")
        return [*found, f"was not measured{f': {why}' if why else ''}."]
    place = measured.get("place") or {}
    if place and not place.get("on_device"):
        found.append(f"was not measured on its device: {place.get('why', '')}.")
    if noise(measured):
        found.append(f"has a measurement that is {noise(measured)}.")
    return found


def _of_the_front(names: Sequence[str], manifests: Sequence[Data]) -> list[str]:
    places, by = standings(manifests)
    compared = sum(one.front is not None for one in places)
    if compared < 2:
        return []
    axes = "memory, speed and quality" if by else "memory and speed"
    found = [f"The Pareto front is of {axes}{QUALITY_BY[by]}."]
    for name, one in zip(names, places, strict=True):
        if one.beaten_by:
            others = " and ".join(names[index] for index in one.beaten_by)
            found.append(
                f"{name} is not on it: {others} {'is' if len(one.beaten_by) == 1 else 'are'} at "
                "least as good on all."
            )
    return found


QUALITY_BY: dict[str | None, str] = {
    "behaviour": " (the share of the behaviour set that was passed)",
    "divergence": " (divergence from the same unquantized model)",
    "published": " (published scores of the unquantized variants)",
    None: "; quality is left out, as the packages share no figure of it",
}


def as_dict(
    names: Sequence[str], paths: Sequence[str], manifests: Sequence[Data], prices: Prices
) -> Data:
    """The comparison as JSON."""
    places, by = standings(manifests)
    packages = []
    for name, path, data, standing in zip(names, paths, manifests, places, strict=True):
        measured = telling(data)
        packages.append(
            {
                "package": path,
                "name": name,
                **{label: _at(data, way) for label, way in _WORDS},
                "runtime": _at(data, ("runtime", "name")),
                "machine": machine_of(data),
                "place": (measured or {}).get("place"),
                "noisy": None if measured is None else bool(measured.get("noisy")),
                "figures": figures(data, prices),
                "quality": data.get("quality"),
                "behaviour": data.get("behaviour"),
                **_standing(standing, paths),
            }
        )
    numbers = [row for row in rows(manifests, prices) if row.figure]
    table = [
        {"figure": row.figure, "label": row.label, "best": row.best, "values": row.values}
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


def _standing(standing: Standing, paths: Sequence[str]) -> Data:
    return {
        "on_front": standing.front,
        "quality_score": standing.quality,
        "beaten_by": [paths[index] for index in standing.beaten_by],
    }


def machine_name(data: Data) -> str:
    """The processor of the machine that measured it, or a dash."""
    machine = machine_of(data)
    return str(machine.get("processor") or "–") if isinstance(machine, dict) else _word(machine)


def _comparable(name: str, manifests: Sequence[Data]) -> bool:
    if name == "kl_mean":
        return same(manifests, reference)
    if name in ("tasks_passed", "cost_per_successful_task") and not same(manifests, behaviour_set):
        return False
    if name in ("ttft_ms", "prefill_tps") and not same(manifests, _prompt):
        return False
    if name in _ANYWHERE:
        return True
    if name in _OF_THE_CONTEXT and not same(
        manifests, lambda data: _at(data, ("workload", "context"))
    ):
        return False
    # A disturbed measurement shows what the other programs left, not what the package does.
    return same(manifests, machine_of) and not any(
        (telling(data) or {}).get("noisy") for data in manifests
    )


def _prompt(data: Data) -> Any:
    return (telling(data) or {}).get("prompt_tokens")


def _best(values: Sequence[float | None], better: int) -> int | None:
    known = [(better * value, -index) for index, value in enumerate(values) if value is not None]
    if len(known) < 2 or len({value for value, _ in known}) == 1:
        return None
    return -max(known)[1]


def _at(data: Data, path: Sequence[str]) -> Any:
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _word(value: Any) -> str:
    return "–" if value is None else str(value)


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit in ("", "nats"):
        return f"{value:.4g} {unit}".rstrip()
    return f"{value:.0f} %" if unit == "%" else quantity(value, unit)
