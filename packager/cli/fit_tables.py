"""What `qwen-pack fit` prints for people: the choice in a sentence, tables, the nearest misses, the steps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from packager.cli.output import emit_table
from packager.device import Target
from packager.select import Candidate, Miss, Step
from packager.units import human_bytes
from packager.workload import Workload

_ROWS = 12
_FEW = 5
_KINDS = {"measured": "measured here", "same-class": "same device class", "estimated": "estimated"}
_WHY = {
    "smallest": "needs the least memory",
    "quality": "has the best published scores",
    "speed": "answers fastest",
    "balanced": "is the knee of quality, speed and memory",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything `fit` found out about one target."""

    target: Target
    workload: Workload
    found: tuple[Candidate, ...]
    chosen: Candidate | None
    misses: tuple[Miss, ...]
    steps: tuple[Step, ...] | None
    problem: str = ""


def show_one(answer: Answer, show_all: bool) -> None:
    """One target: sentence, table, and what follows from the verdict."""
    click.echo(_sentence(answer))
    if answer.chosen is not None:
        for note in answer.chosen.notes:
            click.echo(f"Note: {note}")
    # One variant is shown in each of its forms, a whole catalogue by what passes.
    whole = show_all or len({candidate.variant.repo_id for candidate in answer.found}) == 1
    rows = answer.found if whole else _best(answer.found)
    if rows:
        click.echo()
        _candidates(rows, whole)
    if answer.steps is not None:
        click.echo()
        _steps(answer.steps)
    if answer.chosen is None:
        click.echo()
        _misses(answer)
    click.echo(_hint(answer, show_all), err=True)


def show_matrix(answers: Sequence[Answer], model: str | None) -> None:
    """One row per target."""
    rows = []
    for answer in answers:
        best = answer.chosen
        if best is not None:
            rows.append((answer.target.name, best.variant.name, best.recipe.id, *_figures(best), ""))
        else:
            nearest = answer.found[0] if answer.found else None
            why = f"nothing fits: {nearest.label}: {nearest.reasons[0]}" if nearest else answer.problem or "nothing fits"
            rows.append((answer.target.name, "", "", "", "", "", "", why))
    columns = ("target", "variant", "recipe", "memory", "file", "decode tok/s", "first token", "why not")
    emit_table(f"{model} on each target" if model else "", columns, rows, right=columns[3:7])


def _sentence(answer: Answer) -> str:
    best, workload = answer.chosen, answer.workload
    variants = {candidate.variant.repo_id for candidate in answer.found}
    case = f"{workload.use_case} at a context of {workload.context}"
    if best is None:
        what = f"None of {len(variants)} variants fits" if len(variants) > 1 else f"{answer.found[0].variant.name} does not fit"
        return f"{what} {answer.target.name} for {case}."
    passing = {candidate.variant.repo_id for candidate in answer.found if candidate.passes}
    speed = best.forecast
    why = f"of {len(passing)} variants that pass every rule it {_WHY[workload.prefer]}"
    if len(passing) == 1:
        why = "it passes every rule" if len(variants) == 1 else f"of {len(variants)} variants it alone passes every rule"
    return (
        f"{best.label} for {answer.target.name}: {why} ({case}). "
        f"It takes {human_bytes(best.footprint.peak)} of {human_bytes(answer.target.device.available_bytes)}, answers at "
        f"{speed.decode_tps:.3g} tok/s ({speed.low:.3g} to {speed.high:.3g}, {_KINDS[speed.confidence]}), "
        f"first token after {_milliseconds(speed.ttft_ms)}."
    )


def _best(found: Sequence[Candidate]) -> list[Candidate]:
    """Each variant that passes in its best form, best first."""
    seen: dict[str, Candidate] = {}
    for candidate in found:
        if candidate.passes:
            seen.setdefault(candidate.variant.repo_id, candidate)
    return list(seen.values())[:_ROWS]


def _candidates(rows: Sequence[Candidate], with_reasons: bool) -> None:
    columns = ["verdict", "variant", "recipe", "memory", "file", "decode tok/s", "first token", "quality"]
    table = [_row(candidate, with_reasons) for candidate in rows]
    emit_table("", [*columns, "why not"] if with_reasons else columns, table, right=columns[3:])


def _row(candidate: Candidate, with_reasons: bool) -> list[str]:
    quality = f"{candidate.quality:.1f}" if candidate.quality is not None else ""
    row = [candidate.verdict, candidate.variant.name, candidate.recipe.id, *_figures(candidate), quality]
    if with_reasons:
        row.append(str(candidate.reasons[0]) if candidate.reasons else "")
    if candidate.verdict == "rejected" and sys.stdout.isatty():
        return [f"[dim]{cell}[/dim]" if cell else "" for cell in row]
    return row


def _figures(candidate: Candidate) -> tuple[str, str, str, str]:
    if not candidate.sized:
        return ("", "", "", "")
    speed = candidate.forecast
    return (
        human_bytes(candidate.footprint.peak),
        human_bytes(candidate.artifact_bytes),
        f"{speed.decode_tps:.3g}",
        _milliseconds(speed.ttft_ms),
    )


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.3g} s" if value < 1e6 else f"{value / 60000:.3g} min"


def _misses(answer: Answer) -> None:
    if answer.misses:
        rows = [
            (miss.candidate.variant.name, miss.candidate.recipe.id, _lacks(miss.candidate), miss.change, miss.flag)
            for miss in answer.misses
        ]
        emit_table("The nearest, and the one change that makes each fit", ("variant", "recipe", "lacks", "change", "flag"), rows)
        return
    click.echo("No single change makes a variant fit. The nearest:")
    nearest = {candidate.variant.repo_id: candidate for candidate in reversed(answer.found)}
    for candidate in list(reversed(nearest.values()))[:_FEW]:
        click.echo(f"  {candidate.label}: {_lacks(candidate)}")


def _lacks(candidate: Candidate) -> str:
    return "; ".join(map(str, candidate.reasons))


def _steps(steps: Sequence[Step]) -> None:
    if not steps:
        click.echo("There is no step down or up from here.")
        return
    rows = []
    for step in steps:
        verdict = "passes" if step.candidate.passes else _lacks(step.candidate)
        scores = ", ".join(f"{name} {value:+g}" for name, value in step.scores.items()) or "no common score"
        memory = f"{'+' if step.memory_bytes >= 0 else '-'}{human_bytes(abs(step.memory_bytes))}"
        rate = f"{step.decode_tps:+.3g}"
        rows.append((step.direction, step.candidate.variant.name, step.candidate.recipe.id, memory, rate, scores, verdict))
    columns = ("step", "variant", "recipe", "memory", "decode tok/s", "scores", "verdict")
    emit_table("One step down, one step up", columns, rows, right=("memory", "decode tok/s"))


def _hint(answer: Answer, show_all: bool) -> str:
    if answer.chosen is None:
        return f"{len(answer.found)} candidates were rejected{'' if show_all else '; --all lists them with their reasons'}."
    rejected = sum(not candidate.passes for candidate in answer.found)
    more = "" if show_all else "; --all lists them"
    fits = f"{len(answer.found) - rejected} candidates fit, {rejected} were rejected{more}."
    return f"{fits} Build it: qwen-pack build --target {answer.target.name}"
