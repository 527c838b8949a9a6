"""Which variants can draft for a chosen one: of its vocabulary, smaller, in memory beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packager.catalog import Variant
from packager.device.target import Target
from packager.errors import PackError
from packager.json_values import JsonObject
from packager.measure.speculation import Costs
from packager.need.usecases import use_case
from packager.need.workload import Workload
from packager.plan.drafting import held, taken
from packager.predict.memory import Drafting, recurrent_state_bytes
from packager.runtime import Drafts, Runtime
from packager.select import Candidate, candidates, choose
from packager.select.device_rules import room

PADDING = 1024
"""Rows by which the matrices of one vocabulary may differ: Qwen2.5 has 151,936 of them up to 3B,
and 152,064 from 7B on."""
_SMALLER = 3
"""Times as many parameters as a draft that a model has at least: a token of one that is nearly as
large costs what it saves."""
_WIDTH = 4
_KINDS = ("general", "coder", "reasoning", "math")
_MOST = 3


@dataclass(frozen=True, slots=True)
class Proposal:
    """A draft for a chosen candidate. `drafting` is what it takes beside that; `break_even` the
    share of drafted tokens that has to be right at least, where checking several tokens costs
    what one costs, which is the best case."""

    candidate: Candidate
    drafting: Drafting
    break_even: float | None

    @property
    def memory_bytes(self) -> int:
        """All that is taken beside the chosen candidate."""
        return self.drafting.total

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "variant": self.candidate.variant.repo_id,
            "recipe": self.candidate.recipe.id,
            "memory_bytes": self.memory_bytes,
            "drafting": self.drafting.as_dict(),
            "artifact_bytes": self.candidate.artifact_bytes,
            "decode_tps": round(self.candidate.forecast.decode_tps, 3),
            "break_even_at_least": self.break_even,
        }

    def sentence(self) -> str:
        """What `fit` says of it."""
        share = (
            "it never pays"
            if self.break_even is None
            else f"it can pay from {self.break_even:.0%} of drafted tokens accepted"
        )
        return f"{self.candidate.label}: {share}. Try it with --speculate draft:" + (
            self.candidate.variant.name
        )


def proposals(
    target: Target,
    workload: Workload,
    chosen: Candidate,
    variants: Sequence[Variant],
    runtimes: Sequence[Runtime],
) -> tuple[Proposal, ...]:
    """The smallest drafts for a chosen candidate, at most three; none where its runtime checks
    none, several sequences are answered at once, or a vector or score is given and no token."""
    runtime = next((one for one in runtimes if one.name == chosen.runtime), None)
    known: tuple[str, ...] = runtime.drafts if isinstance(runtime, Drafts) else ()
    if runtime is None or "draft" not in known or workload.parallel > 1:
        return ()
    if use_case(workload.use_case).task != "generate":
        return ()
    limit = room(workload, target.device.available_bytes, target.device.gpus)
    seen: list[Proposal] = []
    for variant in variants:
        if not _may_draft(variant, chosen.variant):
            continue
        recipe = f"{runtime.prefix}:{chosen.recipe.weights}"
        judged = candidates(target, workload, [variant], [runtime], recipe=recipe, named=True)
        best = choose(judged)
        if best is None:
            continue
        try:
            beside = _drafting(runtime, chosen, best)
        except PackError:
            # What drafts is an offer: what is chosen stands without it.
            continue
        if held(chosen) + beside.total <= limit:
            seen.append(Proposal(best, beside, _break_even(chosen, best)))
    seen.sort(key=lambda one: (one.memory_bytes, one.candidate.variant.repo_id))
    return tuple(seen[:_MOST])


def same_vocabulary(ours: int, theirs: int) -> bool:
    """Whether so many rows may be those of one vocabulary."""
    return abs(ours - theirs) < PADDING


def _may_draft(variant: Variant, chosen: Variant) -> bool:
    if variant.shape is None or chosen.shape is None or variant.kind not in _KINDS:
        return False
    small, large = variant.params_total or 0, chosen.params_total or 0
    return (
        variant.family.partition("-")[0] == chosen.family.partition("-")[0]
        and same_vocabulary(variant.shape.vocab, chosen.shape.vocab)
        and 0 < small * _SMALLER <= large
    )


def _drafting(runtime: Runtime, chosen: Candidate, draft: Candidate) -> Drafting:
    shape, own = chosen.variant.shape, draft.variant.shape
    assert shape is not None and own is not None
    states = recurrent_state_bytes(own)
    return taken(runtime, shape, chosen.recipe, chosen.context, "draft", draft.footprint, states)


def _break_even(chosen: Candidate, draft: Candidate) -> float | None:
    if not chosen.forecast.decode_tps or not draft.forecast.decode_tps:
        return None
    token, drafted = 1000 / chosen.forecast.decode_tps, 1000 / draft.forecast.decode_tps
    edge = Costs(token, drafted, {_WIDTH: token}).break_even(_WIDTH)
    return None if edge is None else round(edge, 3)
