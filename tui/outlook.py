"""What a plan leads to: how long its build takes and what it needs here, and what a longer context
would cost on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packager.errors import PackError
from packager.units import human_bytes
from tui import explain
from tui.bars import line
from tui.progress import roughly
from tui.table import rate, speed, task, wait

if TYPE_CHECKING:
    from packager.plan.drafts import Proposal
    from packager.plan.plan import Plan
    from packager.runtime import BuildNeeds, Runtime
    from packager.select import Candidate
    from tui.ask import Ask

CONTEXTS = tuple(2**power for power in range(10, 19))
"""Tokens; the plan's own stands among them."""
_LABEL = 24
_MUTED = "$foreground-muted"
_BOUNDS = ("context", "memory")
_FIXED, _LEAST_BAR = 45, 6
"""Cells of a row beside its bar, and those in which a bar still says something."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """`expected` are seconds by stage, as far as they are known; `needs` what the conversion takes
    here in bytes, None where nobody knows; `contexts` the plan's own candidate in other contexts,
    shortest first, down to the first that does not fit; `drafts` the models that can draft for it,
    smallest first."""

    expected: Mapping[str, float] = field(default_factory=dict)
    needs: BuildNeeds | None = None
    contexts: tuple[Candidate, ...] = ()
    drafts: tuple[Proposal, ...] = ()


def outlook(ask: Ask, plan: Plan) -> Outlook:
    """What is known of a plan before it is built."""
    sized = plan.chosen.variant.shape is not None
    return Outlook(
        expected(plan),
        plan.runtime.build_needs(plan.shape, plan.chosen.recipe) if sized else None,
        _contexts(ask, plan, plan.runtime) if sized else (),
        _drafts(plan) if sized else (),
    )


def _drafts(plan: Plan) -> tuple[Proposal, ...]:
    from packager.catalog import load
    from packager.plan.drafting import with_drafting
    from packager.plan.drafts import proposals

    # What drafts in the plan so far makes room for another one.
    chosen = with_drafting(plan, None).chosen
    return proposals(plan.target, plan.workload, chosen, load(), (plan.runtime,))


def expected(plan: Plan) -> dict[str, float]:
    """Seconds that the stages of a build are expected to take on a machine of two cores, by stage;
    absent where nothing is known: how long the hub takes depends on the network."""
    from packager.sweep.expect import Pace

    random = plan.source.kind == "dummy"
    parameters = plan.chosen.variant.params_total or plan.shape.parameters()
    known = dict(Pace().of(plan.runtime.name, parameters, random).seconds)
    # One row of the screen shows both; hashing what was built takes next to nothing beside them.
    known["quality"] = known.get("quality", 0.0) + known.pop("reference", 0.0)
    nothing = {"package": 0.0} if plan.source.kind == "hub" else {"package": 0.0, "fetch": 0.0}
    return {**nothing, **known}


def _contexts(ask: Ask, plan: Plan, runtime: Runtime) -> tuple[Candidate, ...]:
    from packager.select import candidates

    found: list[Candidate] = []
    for context in sorted({*CONTEXTS, plan.chosen.context}):
        try:
            (one,) = candidates(
                ask.target,
                ask.wishing(context=context, prompt=context - 1).workload(),
                [plan.chosen.variant],
                [runtime],
                recipe=plan.chosen.recipe.id,
                named=True,
            )[:1]
        except (PackError, ValueError):
            continue
        if not one.sized:
            break
        found.append(one)
        if _too_long(one):
            break
    return tuple(found)


def _too_long(candidate: Candidate) -> str:
    """The rule for which a context does not fit, empty where it does. A wait that is longer than
    asked is no such rule: a prompt need not fill the context."""
    return next((reason.rule for reason in candidate.reasons if reason.rule in _BOUNDS), "")


def contexts(rows: Sequence[Candidate], own: int, width: int) -> explain.Parts:
    """Memory by context in `width` cells, the wait for a prompt that fills it and the speed after
    that; the plan's own context is marked."""
    most = max((one.footprint.peak for one in rows), default=0)
    track = width - _FIXED if width - _FIXED >= _LEAST_BAR else 0
    answers = all(task(one) == "generate" for one in rows)
    titles = ("first token", "tok/s") if answers else ("one text", "read/s")
    head = f"{'tokens':>11}  {'memory':>10} {'':{track}} {titles[0]:>11} {titles[1]:>6}\n"
    parts: explain.Parts = [(head, "$foreground-muted")]
    for one in rows:
        why = _too_long(one)
        mark, style = ("●", "bold") if one.context == own else (" ", "")
        end = why or f"{wait(one.forecast.ttft_ms):>11} {rate(speed(one)):>6}"
        style = "$foreground-muted" if why else style
        size = f"{'✗' if why else '✓'} {human_bytes(one.footprint.peak):>8} "
        parts += [
            (f"{mark} {one.context:>9,}  {size}", style),
            (line(one.footprint.peak / most, track) if most else "", "$primary"),
            (f" {end}\n", style),
        ]
    return parts


def _takes(seconds: float) -> str:
    return f"~ {roughly(seconds)}" if seconds > 1 else "a few seconds"


def build(known: Outlook, titles: Mapping[str, str], free: int) -> explain.Parts:
    """The stages with the time that each is expected to take, the sum, and what is needed here;
    `free` are bytes of memory that are available."""
    parts: explain.Parts = []
    for name, title in titles.items():
        seconds = known.expected.get(name)
        text = "depends on the network" if seconds is None else _takes(seconds)
        parts += [(f"{title:<{_LABEL}}", "$foreground-muted"), (f"{text}\n", "")]
    beside = ", and the download" if "fetch" not in known.expected else ""
    parts += [
        (f"{'in all':<{_LABEL}}", "$foreground-muted"),
        (f"about {roughly(sum(known.expected.values()))}", "bold"),
        (f"{beside}\n", ""),
        (f"{'':<{_LABEL}}on 2 cores, nothing cached\n", _MUTED),
    ]
    if known.needs is not None:
        memory = human_bytes(known.needs.memory)
        parts += [
            (f"{'memory to convert':<{_LABEL}}", "$foreground-muted"),
            (f"{memory}, {human_bytes(free)} are free here\n", ""),
            (f"{'disk to convert':<{_LABEL}}", "$foreground-muted"),
            (human_bytes(known.needs.disk), ""),
        ]
    return parts
