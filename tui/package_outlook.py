"""What a plan makes: the package, beside the one that it replaces, and the same model in the other
recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packager.units import human_bytes
from tui import figures
from tui.bars import line
from tui.table import rate, shortened, speed, task, wait

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.pipeline.adapter_package import AdapterPlan
    from packager.plan.plan import Plan
    from packager.records import Contents
    from packager.select import Candidate
    from tui.explain import Parts

_MUTED = "$foreground-muted"
_LABEL = 12
_MARKS = {"chosen": "★", "fits": "✓", "may miss": "~", "rejected": "✗"}
_RECIPE, _BAR, _FIXED, _LEAST_BAR = 26, 40, 31, 6
"""Cells of a recipe's name, of a bar at most, of the figures of a row, and those in which a bar
still says something."""
_BESIDE = 2
"""Rows of the head, and of the number of those that have no room."""


def recipes(candidates: Sequence[Candidate], one: Candidate, width: int, height: int) -> Parts:
    """The variant of `one` in its recipes in `width` cells and `height` rows, `one` marked by ●:
    memory, bits per weight and speed, or the rules that it breaks."""
    own = [other for other in candidates if other.variant.repo_id == one.variant.repo_id]
    count = max(1, height - _BESIDE)
    shown = own[:count] if one in own[:count] else [*own[: count - 1], one]
    most = max((other.footprint.peak for other in shown if other.sized), default=0)
    room = width - 2 - _RECIPE - _FIXED
    track = min(_BAR, room) if room >= _LEAST_BAR else 0
    unit = "tok/s" if task(one) == "generate" else "read/s"
    parts: Parts = [
        (f"{'':{4 + _RECIPE}}{'bits':>5} {'memory':>9} {'':{track}} {unit:>7}\n", _MUTED)
    ]
    for other in shown:
        parts += _recipe(other, other is one, most, track)
    left = len(own) - len(shown)
    parts += [(f"    and {left} more, in step 3\n", _MUTED)] if left else []
    return parts


def _recipe(other: Candidate, own: bool, most: int, track: int) -> Parts:
    style = "" if other.passes else _MUTED
    style = "bold" if own else style
    head = f"{'●' if own else ' '} {_MARKS[other.verdict]} "
    head += f"{shortened(other.recipe.id, _RECIPE):<{_RECIPE}}"
    if not other.sized:
        rules = ", ".join(dict.fromkeys(reason.rule for reason in other.reasons))
        return [(f"{head}  {rules}\n", style)]
    why = "" if other.passes else ", ".join(dict.fromkeys(row.rule for row in other.reasons))
    return [
        (f"{head}{other.bits_per_weight:>5.2f} {human_bytes(other.footprint.peak):>9} ", style),
        (line(other.footprint.peak / most, track) if most else "", "$primary"),
        (f" {rate(speed(other)):>7}  {why}\n", style),
    ]


def weights(plan: Plan) -> str:
    """Where the weights of a plan come from, in words."""
    known = {
        "hub": "from the Hugging Face hub",
        "modelscope": "from ModelScope",
        "dummy": "random: answers will mean nothing",
        "local": f"from {plan.source.location}",
    }
    return known.get(plan.source.kind, f"as they are in {plan.source.location}")


def stands(replaces: Package | None, underway: bool) -> list[str]:
    """What a person has to know of the folder: a package that is lost, another build into it."""
    notes = []
    if replaces is not None:
        notes.append(f"! {figures.replaced(replaces.contents)}")
    if underway:
        notes.append(
            "! Another qwen-pack builds into this folder now; the one that ends last stays."
        )
    return notes


def package(one: Candidate, context: int, now: Contents | None) -> Parts:
    """What the package will hold, `now` what stands in its folder; None where nothing does."""
    planned = {
        "model": f"{one.variant.name}, {human_bytes(one.artifact_bytes)}",
        "recipe": one.recipe.id,
        "context": f"{context:,} tokens",
        "memory": f"{human_bytes(one.footprint.peak)} foretold",
        "first token" if task(one) == "generate" else "one text": (
            f"{wait(one.forecast.ttft_ms)} foretold"
        ),
        "speed": f"{rate(speed(one))} tok/s foretold",
    }
    there = _there(now)
    wide = max(map(len, planned.values())) + 3
    parts: Parts = []
    if now is not None:
        parts.append((f"{'':{_LABEL}}{'planned':<{wide}}in the folder now\n", _MUTED))
    for label, text in planned.items():
        parts += [(f"{label:<{_LABEL}}", _MUTED), (f"{text:<{wide}}", "")]
        parts.append((f"{there.get(label, '')}\n", _MUTED))
    speaks = "chat template, " if task(one) == "generate" else ""
    beside = (
        ("with", f"{speaks}README, model card, licence and notice"),
        ("papers", "bill of materials, provenance, statement of the benchmark"),
        ("evidence", "the benchmark, the quality gate, a sha256 of every file"),
    )
    for label, text in beside:
        parts += [(f"{label:<{_LABEL}}", _MUTED), (f"{text}\n", "")]
    return parts


def built(plan: Plan | AdapterPlan, command: str) -> Parts:
    """What a running build makes, where it goes, and the command line that does the same."""
    from packager.plan.plan import Plan

    parts: Parts = []
    if isinstance(plan, Plan):
        parts = [(f"{plan.why()}\n\n", ""), *package(plan.chosen, plan.workload.context, None)]
    parts += [(f"{'folder':<{_LABEL}}", _MUTED), (f"{plan.out}\n", "")]
    return [*parts, ("\n", ""), (command, "bold $text-accent")]


def _there(now: Contents | None) -> dict[str, str]:
    """The same of a package that is there, as far as its manifest says."""
    if now is None:
        return {}
    size, measured = now.artifact_bytes, now.telling
    name = (now.variant.repo_id or "?").rpartition("/")[2]
    known = {
        "model": name if size is None else f"{name}, {human_bytes(size)}",
        "recipe": now.recipe.id or "",
        "context": f"{now.context:,} tokens" if now.context else "",
    }
    if measured is None:
        return known
    if measured.peak_memory_bytes:
        known["memory"] = f"{human_bytes(measured.peak_memory_bytes)} measured"
    if measured.ttft_ms:
        known["first token"] = known["one text"] = f"{wait(measured.ttft_ms)} measured"
    if measured.decode_tps:
        known["speed"] = f"{rate(measured.decode_tps)} tok/s measured"
    return known
