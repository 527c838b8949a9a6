"""What drafts tokens as a part of a plan's footprint: the memory that a way takes beside the model,
and the heads in its files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from packager.measure.speculation import WIDTHS
from packager.predict.memory import Drafting, Footprint
from packager.runtime import Drafts, Runtime
from packager.select import Candidate
from packager.shape import Shape, heads

if TYPE_CHECKING:
    from packager.plan.plan import Plan
    from packager.recipe import Recipe


def taken(
    runtime: Runtime,
    shape: Shape,
    recipe: Recipe,
    context: int,
    how: str,
    draft: Footprint | None = None,
    states: int = 0,
) -> Drafting:
    """What a way of drafting takes beside a model; `draft` is the footprint of a draft model alone,
    `states` the bytes of its own recurrent state."""
    assert isinstance(runtime, Drafts)
    own = runtime.drafting(shape, recipe, context, how)
    if how != "draft" or draft is None:
        return own
    # It takes back what the model refused, as the model itself does.
    return own.with_model(draft, (WIDTHS[-1] + 1) * states)


def with_drafting(plan: Plan, how: str | None) -> Plan:
    """The plan with what that way takes in its footprint; None for no way."""
    chosen, drafting = plan.chosen, None
    if how is not None:
        draft = plan.draft
        drafting = taken(
            plan.runtime,
            plan.shape,
            chosen.recipe,
            plan.workload.context,
            how,
            draft.footprint if draft else None,
            draft.states if draft else 0,
        )
    alone = chosen.alone
    if alone is not None:
        alone = replace(alone, footprint=replace(alone.footprint, drafting=drafting))
    footprint = replace(chosen.footprint, drafting=drafting)
    return replace(plan, chosen=replace(chosen, footprint=footprint, alone=alone))


def with_heads(plan: Plan, kept: bool) -> Plan:
    """The plan with the model's own heads in its files, or without them."""
    if kept == plan.heads:
        return plan
    variant = plan.chosen.variant
    shape = replace(plan.shape, draft_layers=heads.LAYERS if kept else 0)
    size = plan.runtime.artifact_bytes(shape, plan.chosen.recipe)
    variant = replace(variant, shape=shape)
    chosen = replace(plan.chosen, variant=variant, artifact_bytes=size)
    if chosen.split is None:
        # With a layer more the others may get other types.
        prints = plan.runtime.footprint(shape, chosen.recipe, plan.workload.context)
        footprint = replace(chosen.footprint, weights=prints.weights)
        chosen = replace(chosen, footprint=footprint)
    return replace(plan, chosen=chosen, heads=kept)


def held(chosen: Candidate) -> int:
    """Bytes of the memory that has to hold most at the peak; what drafts lies there too."""
    if chosen.split is None:
        return chosen.footprint.peak
    beside = chosen.footprint.drafting.total if chosen.footprint.drafting else 0
    return chosen.split.fullest.peak + beside
