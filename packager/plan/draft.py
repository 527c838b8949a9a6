"""How a build drafts tokens: the ways that `--speculate` names, and the model that drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packager import catalog
from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError, usage
from packager.files import expanded
from packager.names import did_you_mean
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.plan.choose import NAMED, make_plan
from packager.plan.drafting import held, with_drafting, with_heads
from packager.plan.drafts import same_vocabulary
from packager.plan.plan import Draft, Plan
from packager.predict.memory import Footprint, recurrent_state_bytes
from packager.records.speculation import Untried
from packager.runtime import Drafts, Runtime
from packager.select.device_rules import room
from packager.shape import Shape, heads
from packager.units import human_bytes

WAYS = ("off", "auto", "lookup", "mtp")
_DRAFT = "draft:"


@dataclass(frozen=True, slots=True)
class Speculate:
    """What `--speculate` says: a way, and for `draft` what names the model."""

    way: str
    draft: str | None = None


def parse(text: str) -> Speculate:
    """The value of `--speculate`. Raises PackError (usage)."""
    if text.startswith(_DRAFT):
        named = text.removeprefix(_DRAFT)
        if not named:
            raise usage(
                "--speculate draft: names no model.",
                "Write draft:VARIANT, draft:PACKAGE or draft:FOLDER.",
            )
        return Speculate("draft", named)
    if text not in WAYS:
        raise usage(
            f"There is no way {text!r} to draft tokens.{did_you_mean(text, WAYS)}",
            f"Known: {', '.join(WAYS)}, draft:VARIANT, draft:PACKAGE, draft:FOLDER.",
        )
    return Speculate(text)


def speculating(plan: Plan, asked: Speculate, runtimes: Sequence[Runtime]) -> Plan:
    """The plan with the ways of drafting that are to be measured, and what they take in its
    footprint. Raises PackError: usage for a draft that cannot be, or a way that the runtime or the
    variant has not; exit code 3 where what drafts does not fit beside the model."""
    if asked.way == "off":
        return plan
    known: tuple[str, ...] = plan.runtime.drafts if isinstance(plan.runtime, Drafts) else ()
    if asked.way == "auto":
        return _with_every_way(plan, known)
    plan = replace(plan, speculate=(asked.way,))
    if asked.way not in known:
        # Said with everything else that stops the build, see packager.pipeline.speculation_stage.
        return plan
    if asked.way == "mtp":
        if not heads.may_have(plan.shape):
            raise usage(
                f"{plan.chosen.variant.name} has no heads for multi-token prediction.",
                "Qwen3-Next and Qwen3.5 have some. Take --speculate lookup, or draft:VARIANT.",
            )
        plan = with_heads(plan, True)
    elif asked.draft is not None:
        plan = replace(plan, draft=_draft(plan, asked.draft, runtimes))
    plan = with_drafting(plan, asked.way)
    _refuse_crowd(plan)
    return plan


def _with_every_way(plan: Plan, known: Sequence[str]) -> Plan:
    """The plan with what there is to try besides a draft model, as far as it fits, and what does
    not; the footprint is that of the way that takes most."""
    if "lookup" not in known:
        # Said with everything else that stops the build.
        return replace(plan, speculate=("lookup",))
    ways, untried, largest = [], [], plan
    for way in ("lookup", "mtp"):
        if way not in known or (way == "mtp" and not _has(plan)):
            continue
        one = with_drafting(with_heads(plan, way == "mtp"), way)
        if _crowded(one):
            untried.append(
                Untried(how=way, why=f"it does not fit in addition to the model: {_needs(one)}")
            )
        else:
            ways.append(way)
            largest = one
    return replace(largest, speculate=tuple(ways), untried=tuple(untried))


def _has(plan: Plan) -> bool:
    """Whether the checkpoint has heads, as far as that is known before it is fetched."""
    if not heads.may_have(plan.shape):
        return False
    if plan.source.kind == "local" and not plan.source.adapters:
        return Checkpoint.open(Path(plan.source.location)).has_heads
    return bool(plan.chosen.variant.params_mtp) or plan.source.kind == "dummy"


def _draft(plan: Plan, named: str, runtimes: Sequence[Runtime]) -> Draft:
    folder = expanded(named)
    if (folder / manifest.NAME).is_file():
        return _of_package(plan, folder.absolute())
    is_folder = folder.is_dir() or ("/" in named and folder.exists())
    weights = plan.source.kind if plan.source.kind in NAMED else "hub"
    own = [runtime for runtime in runtimes if runtime.name == plan.runtime.name]
    planned = make_plan(
        plan.target,
        replace(plan.workload, max_file_bytes=None),
        own,
        model=None if is_folder else named,
        weights=str(folder) if is_folder else weights,
        recipe=_recipe_beside(plan, own),
        offline=plan.source.offline,
    )
    _refuse_other_vocabulary(plan.shape, planned.shape, planned.chosen.variant.name)
    return Draft(
        planned.chosen.variant.repo_id,
        planned.chosen.recipe.id,
        planned.chosen.artifact_bytes,
        planned.chosen.footprint,
        recurrent_state_bytes(planned.shape),
        plan=planned,
    )


def _recipe_beside(plan: Plan, own: Sequence[Runtime]) -> str | None:
    """The model's recipe, for its draft; None leaves the choice to the tool, where it is a mixture
    that somebody else made, or needs what only the model was given."""
    weights = plan.chosen.recipe.weights
    for runtime in own:
        known = next((row for row in runtime.recipes() if row.weights == weights), None)
        if known is not None and runtime.obstacle(plan.shape, known) is None:
            return f"{runtime.prefix}:{weights}"
    return None


def _of_package(plan: Plan, folder: Path) -> Draft:
    """A finished package as draft: its files are taken as they are."""
    found: Manifest = manifest.read(folder)
    contents = found.contents
    if contents.runtime.name != plan.runtime.name or contents.task != "generate":
        raise usage(
            f"{folder} cannot draft for {plan.runtime.name}: it is for {contents.runtime.name}"
            f"{'' if contents.task == 'generate' else ', and gives no text'}.",
            f"Name a package for {plan.runtime.name}.",
        )
    rows = [entry for entry in found.files if entry.path.startswith(f"{MODEL}/")]
    size = sum(entry.size for entry in rows)
    predicted = contents.predicted.footprint if contents.predicted else None
    kept = predicted.to_json() if predicted else {}
    parts = (kept.get(key) for key in ("weights", "kv_cache", "compute", "overhead"))
    weights, cache, compute, overhead = (part if isinstance(part, int) else 0 for part in parts)
    footprint = Footprint(weights or size, cache, compute, overhead)
    variant = contents.variant.repo_id or found.name
    shape = next((row.shape for row in catalog.load() if row.repo_id == variant), None)
    states = recurrent_state_bytes(shape) if shape else 0
    return Draft(variant, contents.recipe.id or "", size, footprint, states, package=folder)


def _refuse_other_vocabulary(ours: Shape, theirs: Shape, name: str) -> None:
    if not same_vocabulary(ours.vocab, theirs.vocab):
        raise usage(
            f"{name} has another vocabulary: {theirs.vocab} rows for {ours.vocab}.",
            "Take a draft of the same family; `qwen-pack fit` proposes one.",
        )


def _crowded(plan: Plan) -> bool:
    """Whether the model and what drafts do not fit into the memory together: one process loads
    both."""
    device = plan.target.device
    return held(plan.chosen) > room(plan.workload, device.available_bytes, device.gpus)


_LESS = {
    "draft": "Take a smaller draft or a shorter --context, or --speculate lookup.",
    "mtp": "Take a shorter --context, or --speculate lookup.",
    "lookup": "Take a smaller variant or a shorter --context, or leave --speculate out.",
}
"""What takes less memory, by way of drafting."""


def _needs(plan: Plan) -> str:
    """What the model and what drafts need together, and what there is."""
    device = plan.target.device
    limit = room(plan.workload, device.available_bytes, device.gpus)
    return (
        f"together they need {human_bytes(held(plan.chosen))}, and there are {human_bytes(limit)}"
    )


def _refuse_crowd(plan: Plan) -> None:
    """Raise PackError (exit code 3) where the model and what drafts do not fit."""
    if _crowded(plan):
        raise PackError(
            f"What drafts does not fit next to {plan.chosen.variant.name} on {plan.target.name}: "
            f"{_needs(plan)}.",
            _LESS[plan.speculate[0]],
            ExitCode.NOTHING_FITS,
        )
