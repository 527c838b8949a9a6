"""A measurement of what was built, beside the smoke benchmark: its figures hold for this machine
and for the way in which the engine is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.device.this_machine import describe_machine, installation_id
from packager.digests import key_of
from packager.json_values import JsonObject
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, environment

if TYPE_CHECKING:
    from packager.plan.plan import Plan


def measured_job(
    plan: Plan,
    stage: str,
    job: str,
    converted: Entry,
    artifact: Job,
    inputs: JsonObject,
    key: JsonObject,
) -> Job:
    """The job `job` over what `artifact` left, with a session of the plan's runtime and `inputs` as
    further arguments; shown with the smoke benchmark. `key` is what those are known by, where
    paths say nothing."""
    arguments: JsonObject = {
        "session": plan.runtime.session,
        "artifact": str(converted.folder / "out"),
        "settings": {
            "context": plan.workload.context,
            "kv": plan.chosen.recipe.kv,
            "threads": None,
            "gpu_layers": plan.gpu_layers,
        },
        **inputs,
    }
    here = {"machine": describe_machine(), "installation": installation_id()}
    started = plan.start.identity if plan.start else {}
    known = {**arguments, **key, "artifact": artifact.key, **here, **started}
    return Job(
        stage,
        job,
        arguments,
        key_of(known),
        needs_out=False,
        env=environment(plan),
        row="measure",
        by_start=True,
    )
