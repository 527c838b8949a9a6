"""The README that stands in every package: what it is, what was measured and where, how to run it
without qwen-pack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packager.catalog.licences import stated
from packager.device.identity import NOT_YET
from packager.pipeline.stages import Made
from packager.plan.plan import Plan
from packager.quality import paper
from packager.report import figures
from packager.report.budgets import limits, sentence, verdicts
from packager.runtime import Laddered
from packager.units import human_bytes

_DUMMY = """> **Random weights.** This package was built to measure: size, speed and memory are those of the real model,
> its answers mean nothing. Build again with real weights before you ship it.

"""
_MARKS = {True: "passed", False: "MISSED", None: "open"}


def package_readme(plan: Plan, artifact_bytes: int, made: Made, files: Sequence[str] = ()) -> str:
    """Markdown for the package's own README; `files` are the model's, below the package."""
    measured, not_measured = made.figures(plan), made.not_measured
    chosen = plan.chosen
    licence = (
        stated(chosen.variant.license, plan.source.kind, made.fetched.facts)
        or "stated by no source that we know; see the model's own page"
    )
    provider = (
        f" Made for the execution provider {chosen.recipe.provider}."
        if chosen.recipe.provider
        else ""
    )
    return f"""# {plan.name}

{_DUMMY if plan.source.kind == "dummy" else ""}{chosen.variant.repo_id} as `{chosen.recipe.id}` for {plan.target.name}, \
context {plan.workload.context} tokens.{provider}
Licence of the weights: {licence}.

{plan.why()}

## Measured

{_where(plan, measured, not_measured)}
{_table(plan, artifact_bytes, measured)}
{_budgets(plan, artifact_bytes, measured)}
{paper.markdown(made.quality)}Every file with its size and sha256 stands in `manifest.json`; `qwen-pack verify` compares.
`MODEL_CARD.md` says for whom it is and where its limits are.

## Run

{_start(made)}{plan.runtime.how_to_run(chosen.recipe, _workload(plan, made, files))}{_elsewhere(plan, made)}"""


def _workload(plan: Plan, made: Made, files: Sequence[str]) -> dict[str, Any]:
    """What the runtime's own text is made from."""
    settings = made.start.settings() if made.start else None
    return {
        **plan.workload.as_dict(),
        "gpu_layers": plan.gpu_layers,
        "files": files,
        "settings": settings,
    }


def _start(made: Made) -> str:
    """Why the commands start the engine otherwise than usual."""
    return (
        ""
        if made.start is None or made.start.default
        else f"{made.start.sentence()} The commands below start it in that way.\n\n"
    )


def _elsewhere(plan: Plan, made: Made) -> str:
    """What to do on a processor where the engine dies as it comes, which it did not where this was
    built."""
    caution = (
        plan.runtime.ladder().on_another_processor if isinstance(plan.runtime, Laddered) else ""
    )
    return f"\n{caution}\n" if caution and (made.start is None or made.start.default) else "\n"


def _where(plan: Plan, measured: dict[str, Any] | None, not_measured: str | None) -> str:
    """Which machine the figures are of, and what that says about the device."""
    later = (
        f"`qwen-pack bench` on {plan.target.name} measures it there, adds the figures to the "
        "manifest and judges the budgets.\n"
    )
    if measured is None:
        return f"**{NOT_YET.capitalize()}.** {not_measured or 'It was not run here.'} {later}"
    machine = measured["machine"]
    memory = (
        f", {human_bytes(machine['memory_bytes'])} of memory" if machine["memory_bytes"] else ""
    )
    noise = figures.noise(measured)
    noisy = f", {noise}" if noise else ""
    taken = (
        f"On {measured['measured_at'][:10]}, on {machine['processor']}, {machine['cores']} "
        f"cores{memory}{noisy}:\n"
    )
    if measured["place"]["on_device"]:
        return taken
    why = measured["place"]["why"]
    return (
        f"**{NOT_YET.capitalize()}**: {why}. What follows is a check on the machine that built "
        f"it. {later}\n{taken}"
    )


def _table(plan: Plan, artifact_bytes: int, measured: dict[str, Any] | None) -> str:
    """Measured beside predicted; predictions alone where nothing was measured."""
    chosen = plan.chosen
    predicted = {
        "footprint": chosen.footprint.as_dict(),
        "forecast": chosen.forecast.as_dict(),
        "artifact_bytes": chosen.artifact_bytes,
    }
    rows = figures.rows(
        {"artifact_bytes": artifact_bytes, "predicted": predicted, "measured": measured}
    )
    lines = "".join(
        f"| {row.label} | {row.texts()[1]} | {row.texts()[0]} | {row.texts()[2]} |\n"
        for row in rows
    )
    left_out = "".join(f"* left out: {text}\n" for text in (measured or {}).get("left_out") or [])
    return (
        f"| | measured | predicted for {plan.target.name} | error |\n| --- | ---: | ---: | ---: "
        f"|\n{lines}\n{left_out}"
    )


def _budgets(plan: Plan, artifact_bytes: int, measured: dict[str, Any] | None) -> str:
    rows = verdicts(limits(plan), artifact_bytes, measured)
    return "".join(
        f"* {_MARKS[row['passed']]}: "
        f"{sentence(row)}{'' if row['enforced'] else ' (reported, not enforced)'}\n"
        for row in rows
    )
