"""The stages of a build that are other ones for an embedder or a reranker: benchmark and quality
gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packager.cores import cores
from packager.digests import key_of
from packager.json_values import JsonObject, at
from packager.measure import retrieval as measuring
from packager.measure.noise import allowed_attempts
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, checkpoint_of
from packager.quality import VERSION, retrieval_corpus, retrieval_limits, retrieval_verdict
from packager.records import Quality
from packager.runtime import Retrieves, Runtime
from packager.sources.adapters import inputs_of
from packager.sources.reread import SMALL, Evidence

if TYPE_CHECKING:
    from packager.plan.plan import Plan


def session_of(runtime: Runtime) -> str:
    """The dotted name of the runtime's session for vectors and scores; whoever asks has a plan that
    the runtime can build."""
    assert isinstance(runtime, Retrieves)
    return runtime.retrieval_session


def benchmark(session: str, artifact: Path, settings: JsonObject, task: str, prompt: int) -> Job:
    """The benchmark of an artifact, by as many threads as there are strong cores: a text is
    computed whole, and arithmetic bounds it."""
    arguments: JsonObject = {
        "session": session,
        "artifact": str(artifact),
        "settings": {**settings, "task": task, "threads": cores().big},
        "prompt_tokens": max(1, min(prompt, at(settings, "context", int))),
        "repeats": measuring.REPEATS,
        "attempts": allowed_attempts(),
    }
    return Job("measure", "packager.measure.retrieval:measure", arguments, needs_out=False)


def measured_by(task: str) -> JsonObject:
    """The version of the benchmark of vectors or scores, for a key; nothing for text."""
    return {} if task == "generate" else {"retrieval": measuring.VERSION}


def reference(plan: Plan, fetched: Entry) -> Job:
    """What the unquantized checkpoint makes of the corpus."""
    # Late: only a build computes a reference, and numpy comes with it.
    from packager.reference.states import VERSION as STATES

    task = plan.shape.task
    key = key_of(
        {
            "files": inputs_of(fetched.facts),
            "corpus": retrieval_corpus.sha256(),
            "task": task,
            "version": [STATES, VERSION],
        }
    )
    return Job(
        "reference",
        "packager.quality.retrieval:reference",
        {"checkpoint": str(checkpoint_of(fetched)), "task": task},
        key,
        row="quality",
        evidence=Evidence.of(checkpoint_of(fetched), fetched.facts),
    )


def compare(
    plan: Plan,
    fetched: Entry,
    converted: Entry,
    artifact: Job,
    divergence: bool,
    kept: Entry | None = None,
) -> Job:
    """The artifact against its checkpoint: tokens and conventions, and with `divergence` its
    vectors or scores against what is `kept`."""
    settings = {"kv": plan.chosen.recipe.kv, "threads": None, "gpu_layers": plan.gpu_layers}
    task, dimension = plan.shape.task, plan.workload.dimension
    arguments = {
        "session": session_of(plan.runtime),
        "artifact": str(converted.folder / "out"),
        "settings": settings,
        "checkpoint": str(checkpoint_of(fetched)),
        "task": task,
        "dimension": dimension,
        "reference": None if kept is None else str(kept.folder / "out"),
    }
    key = key_of(
        {
            "artifact": artifact.key,
            "settings": settings,
            "corpus": retrieval_corpus.sha256(),
            "task": task,
            "dimension": dimension,
            "divergence": divergence,
            "version": VERSION,
        }
    )
    return Job(
        "quality",
        "packager.quality.retrieval:compare",
        arguments,
        key,
        needs_out=False,
        evidence=Evidence.of(checkpoint_of(fetched), fetched.facts, None if divergence else SMALL),
    )


def result(plan: Plan, facts: JsonObject, why_not: str | None) -> Quality:
    """The manifest's `quality`; `why_not` says why nothing was compared but tokens, where that is
    so."""
    text = {"name": retrieval_corpus.FILE.name, "sha256": retrieval_corpus.sha256()}
    grade = plan.chosen.recipe.grade
    return retrieval_verdict.judged(
        {**facts, "text": text},
        plan.shape.task,
        grade,
        retrieval_limits.limits(grade),
        why_not,
        plan.gate.allow_loss,
    )
