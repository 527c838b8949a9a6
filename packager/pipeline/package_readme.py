"""The README that stands in every package: what it is, what was measured and where, how to run it
without qwen-pack."""

from __future__ import annotations

from collections.abc import Sequence

from packager.catalog.licences import stated
from packager.escapes import code, markdown
from packager.json_values import JsonObject
from packager.package import adapters
from packager.package.content import MODEL_FOLDER
from packager.package.floor import sentence
from packager.package.manifest import Manifest
from packager.papers import measured as paragraphs
from packager.pipeline.stages import Made
from packager.plan.plan import Plan
from packager.quality import paper
from packager.records import Measurement, Quality
from packager.records.contents import Predicted
from packager.report import figures
from packager.report.budgets import limits, verdicts
from packager.runtime import Laddered
from packager.units import human_bytes

_DUMMY = """> **Random weights.** This package was built to measure: size, speed and memory are those of the real model,
> its answers mean nothing. Build again with real weights before you ship it.

"""


def package_readme(
    plan: Plan,
    artifact_bytes: int,
    made: Made,
    files: Sequence[str] = (),
    chat_template: str | None = None,
) -> str:
    """Markdown for the package's own README; `files` are the model's, below the package."""
    measured, not_measured = made.measurement(plan), made.not_measured
    chosen = plan.chosen
    rows = figures.rows(measured, artifact_bytes, Predicted.from_json(chosen.predicted()))
    budgets = limits(plan.workload, plan.target.device, plan.enforced)
    licence = (
        stated(chosen.variant.license, plan.source.kind, made.fetched.facts)
        or "not stated by any known source; see the model's own page"
    )
    provider = (
        f" Made for the execution provider {chosen.recipe.provider}."
        if chosen.recipe.provider
        else ""
    )
    return f"""# {markdown(plan.name)}

{_DUMMY if plan.source.kind == "dummy" else ""}{markdown(chosen.variant.repo_id)} as {code(chosen.recipe.id)} \
for {markdown(plan.target.name)}, context {plan.workload.context} tokens.{provider}
Licence of the weights: {markdown(licence)}.

{markdown(plan.why())}

## Measured

{_where(plan, measured, not_measured)}
{paragraphs.table(rows, plan.target.name)}
{paragraphs.left_out(measured)}{_warm(made)}{_speculation(made)}
{paragraphs.budgets(verdicts(budgets, artifact_bytes, measured))}
{paper.markdown(made.quality)}
`manifest.json` lists every file with its size and sha256; `qwen-pack verify` compares them.
`MODEL_CARD.md` says who it is for and what its limits are.

## Run

{_minimum(plan, made)}{_start(made)}{plan.runtime.how_to_run(chosen.recipe, _workload(plan, made, files, chat_template))}{_elsewhere(plan, made)}"""


def _warm(made: Made) -> str:
    """What the state of the fixed prefix gains, and what it takes."""
    if made.warm is None:
        return ""
    size = made.warm.state_bytes
    takes = f" The state takes {human_bytes(size)}; it is computed on the device." if size else ""
    return f"* {markdown(made.warm.sentence())}{takes}\n"


def _speculation(made: Made) -> str:
    """The verdict on drafted tokens."""
    return f"* {markdown(made.speculation.sentence())}\n" if made.speculation else ""


def _workload(
    plan: Plan, made: Made, files: Sequence[str], chat_template: str | None
) -> JsonObject:
    """What the runtime's own text is made from."""
    settings = made.start.settings() if made.start else None
    return {
        **plan.workload.as_dict(),
        "gpu_layers": plan.gpu_layers,
        "files": files,
        "settings": settings,
        "chat_template": chat_template,
        "audio_window": plan.shape.audio.window if plan.shape.audio else None,
        "speculation": made.speculation.to_json()
        if made.speculation and made.speculation.pays
        else None,
        # A server keeps whole chats, and a recurrent state cannot be cut back to the prefix.
        "warm": made.warm is not None and not plan.shape.state_elements,
    }


def _minimum(plan: Plan, made: Made) -> str:
    """Which engines are new enough, and what in the package decides that."""
    rows = made.minimum(plan)
    if not rows:
        return ""
    deciding = dict.fromkeys(
        reason.what for row in rows for reason in row.reasons if reason.version == row.version
    )
    check = code(f"qwen-pack verify PACKAGE --engine-version {rows[0].engine}=VERSION")
    because = f" because of: {markdown(', '.join(deciding))}" if deciding else ""
    return f"{markdown(sentence(rows).rstrip('.'))}{because}. {check} compares yours.\n\n"


def _start(made: Made) -> str:
    """Why the commands start the engine otherwise than usual."""
    return (
        ""
        if made.start is None or made.start.default
        else f"{markdown(made.start.sentence())} The commands below start it in that way.\n\n"
    )


def _elsewhere(plan: Plan, made: Made) -> str:
    """What to do on a processor where the engine dies as it comes, which it did not where this was
    built."""
    caution = (
        plan.runtime.ladder().on_another_processor if isinstance(plan.runtime, Laddered) else ""
    )
    return f"\n{caution}\n" if caution and (made.start is None or made.start.default) else "\n"


def _where(plan: Plan, measured: Measurement | None, not_measured: str | None) -> str:
    """Which machine the figures are of, and what that says about the device."""
    later = (
        f"`qwen-pack bench` on {plan.target.name} measures it there, adds the figures to the "
        "manifest and judges the budgets.\n"
    )
    if measured is None:
        return paragraphs.nowhere(not_measured, later)
    return f"{paragraphs.where(measured, later)}\n"


def adapter_readme(
    name: str, location: str, base: Manifest, runtime: adapters.Adapts, quality: Quality, file: str
) -> str:
    """Markdown for the README of the adapter package `name`: where the adapter came from, the
    package that it belongs to, and its file below the package."""
    known, repo_id = adapters.base_of(base), base.contents.variant.repo_id
    models = [row.path for row in base.files if row.path.startswith(MODEL_FOLDER) and not row.role]
    return f"""# {markdown(name)}

The LoRA adapter {markdown(location)} for {markdown(repo_id)}, without the model. {markdown(runtime.name)} adds it while it computes.
It belongs to the package {markdown(known.name)} with the content sha256 {code(known.content_sha256)}, and to no other.

{paper.markdown(quality)}
The figures are those of the base's quantized weights with the adapter, against the adapter merged into the unquantized
weights. `manifest.json` lists every file with its size and sha256; `qwen-pack verify` compares them.

## Run

`BASE` is the folder of {markdown(known.name)}, and this package is the current folder.

```sh
qwen-pack run BASE "What is the capital of France?" --adapter .
```

{runtime.how_to_add(models, file, _of_base(base))}
"""


def _of_base(base: Manifest) -> JsonObject:
    """What the base was built for, and how its engine is started."""
    contents = base.contents
    settings = contents.runtime.settings
    return {
        "context": contents.context,
        "kv": contents.recipe.kv,
        "gpu_layers": contents.offload.gpu_layers if contents.offload else None,
        "settings": {
            "flags": list(settings.flags) if settings else [],
            "variables": dict(settings.variables or {}) if settings else {},
        },
    }
