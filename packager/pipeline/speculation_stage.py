"""What drafted tokens cost and gain with what was built, for the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.device.this_machine import describe_machine, installation_id
from packager.digests import key_of
from packager.errors import PackError, usage
from packager.json_values import JsonObject
from packager.measure.speculation import NGRAM, VERSION, WIDTHS
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, environment
from packager.quality.text import shipped
from packager.records.speculation import Speculation

if TYPE_CHECKING:
    from packager.plan.plan import Plan

_CHARACTERS = 2000
"""Of a text that is handed over: more than the tokens of a prompt take in any language."""


def obstacle(plan: Plan) -> PackError | None:
    """Why drafted tokens cannot be checked in this build; None where they can."""
    if plan.speculate is None:
        return None
    if plan.shape.task != "generate":
        return usage("Vectors and scores are not decoded.", "Leave --speculate out.")
    if not getattr(plan.runtime, "speculates", False):
        return usage(
            f"Speculation with {plan.runtime.name} is not measured here.",
            "Take llama.cpp, or leave --speculate out.",
        )
    if plan.shape.state_elements:
        return usage(
            "A recurrent state cannot take back drafted tokens that were wrong.",
            "Leave --speculate out for this variant.",
        )
    return None


def measure(plan: Plan, converted: Entry, artifact: Job) -> Job:
    """The costs on this machine; with real weights also what is accepted, by kind of text."""
    random = plan.source.kind == "dummy"
    arguments: JsonObject = {
        "session": plan.runtime.session,
        "artifact": str(converted.folder / "out"),
        "settings": {
            "context": plan.workload.context,
            "kv": plan.chosen.recipe.kv,
            "threads": None,
            "gpu_layers": plan.gpu_layers,
        },
        "texts": None
        if random
        else {part.name: part.text[:_CHARACTERS] for part in shipped().parts},
    }
    here = {"machine": describe_machine(), "installation": installation_id()}
    started = plan.start.identity if plan.start else {}
    asked = [VERSION, NGRAM, list(WIDTHS)]
    key = key_of({**arguments, "artifact": artifact.key, "version": asked, **here, **started})
    return Job(
        "speculation",
        "packager.measure.speculation:measure",
        arguments,
        key,
        needs_out=False,
        env=environment(plan),
        row="measure",
        by_start=True,
    )


def record(entry: Entry) -> Speculation:
    """What the manifest keeps."""
    return Speculation.from_json(entry.facts)
