"""The README that stands in every package: what it is, what was measured, how to run it without qwen-pack."""

from __future__ import annotations

from typing import Any

from packager.budgets import quantity, sentence, verdicts
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
    noisy = " (noisy: other programs used the processor, or the trials differ widely)" if measured["noisy"] else ""
    ttft = quantity(measured["ttft_ms"], "ms"), quantity(chosen.forecast.ttft_ms, "ms")
    return f"""# {plan.name}

{_DUMMY if plan.source.kind == "dummy" else ""}{chosen.variant.repo_id} as `{chosen.recipe.id}` for {plan.target.name}, \
context {plan.workload.context} tokens.
Licence of the weights: {licence}.

{plan.why()}

## Measured

On {measured["measured_at"][:10]}, on {machine["processor"]}, {machine["cores"]} cores{memory}{noisy}:

| | measured | predicted for {plan.target.name} |
| --- | ---: | ---: |
| model files | {human_bytes(artifact_bytes)} | {human_bytes(chosen.artifact_bytes)} |
| peak memory | {human_bytes(measured["peak_memory_bytes"])} | {human_bytes(chosen.footprint.peak)} |
| time to the first token, prompt of {measured["prompt_tokens"]} | {ttft[0]} | {ttft[1]} |
| prefill | {quantity(measured["prefill_tps"], "tok/s")} | {quantity(chosen.forecast.prefill_tps, "tok/s")} |
| decode | {quantity(measured["decode_tps"], "tok/s")} | {quantity(chosen.forecast.decode_tps, "tok/s")} |
| token latency, median and P95 | {measured["token_ms_median"]:.1f} / {measured["token_ms_p95"]:.1f} ms | |

{budget_rows}
Every file with its size and sha256 stands in `manifest.json`; `qwen-pack verify` compares.

## Run

{plan.runtime.how_to_run(chosen.recipe, plan.workload.as_dict())}
"""
