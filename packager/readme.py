"""The README that stands in every package: what it is, what was measured, how to run it without qwen-pack."""

from __future__ import annotations

from typing import Any

from packager import figures
from packager.budgets import sentence, verdicts
from packager.plan import Plan
from packager.units import human_bytes

_DUMMY = """> **Random weights.** This package was built to measure: size, speed and memory are those of the real model,
> its answers mean nothing. Build again with real weights before you ship it.

"""


def package_readme(plan: Plan, artifact_bytes: int, measured: dict[str, Any]) -> str:
    """Markdown for the package's own README."""
    chosen = plan.chosen
    machine = measured["machine"]
    budget_rows = "".join(
        f"* {'passed' if row['passed'] else 'MISSED'}: {sentence(row)}{'' if row['enforced'] else ' (reported, not enforced)'}\n"
        for row in verdicts(plan, artifact_bytes, measured)
    )
    licence = chosen.variant.license or "not stated by the catalogue; see the model's own page"
    memory = f", {human_bytes(machine['memory_bytes'])} of memory" if machine["memory_bytes"] else ""
    noise = figures.noise(measured)
    predicted = {
        "footprint": chosen.footprint.as_dict(),
        "forecast": chosen.forecast.as_dict(),
        "artifact_bytes": chosen.artifact_bytes,
    }
    rows = figures.rows({"artifact_bytes": artifact_bytes, "predicted": predicted, "measured": measured})
    lines = "\n".join(f"| {row.label} | {row.texts()[1]} | {row.texts()[0]} | {row.texts()[2]} |" for row in rows)
    left_out = "".join(f"* left out: {text}\n" for text in measured["left_out"])
    return f"""# {plan.name}

{_DUMMY if plan.source.kind == "dummy" else ""}{chosen.variant.repo_id} as `{chosen.recipe.id}` for {plan.target.name}, \
context {plan.workload.context} tokens.
Licence of the weights: {licence}.

{plan.why()}

## Measured

On {measured["measured_at"][:10]}, on {machine["processor"]}, {machine["cores"]} cores{memory}{", " + noise if noise else ""}:

| | measured | predicted for {plan.target.name} | error |
| --- | ---: | ---: | ---: |
{lines}

{left_out}{budget_rows}
Every file with its size and sha256 stands in `manifest.json`; `qwen-pack verify` compares.

## Run

{plan.runtime.how_to_run(chosen.recipe, plan.workload.as_dict())}
"""
