"""The stage "Quality gate": its two jobs and the keys under which the cache keeps what they
leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packager.checkpoint.folder import checkpoint_files
from packager.digests import key_of
from packager.errors import PackError
from packager.files import sha256
from packager.hearing import Hears
from packager.json_values import JsonObject, object_at
from packager.pipeline import retrieval_stage
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, environment, reference_of
from packager.quality import VERSION
from packager.quality.cache_type import VERSION as CACHE_VERSION
from packager.quality.pictures import VERSION as PICTURES_VERSION
from packager.quality.sounds import VERSION as SOUNDS_VERSION
from packager.quality.text import FURTHEST
from packager.quality.thresholds import limits
from packager.quality.verdict import judged, skipped
from packager.records import Quality
from packager.runtime import Sees
from packager.sources.adapters import inputs_of
from packager.sources.reread import SMALL, Evidence

if TYPE_CHECKING:
    from packager.plan.plan import Plan

RANDOM = "the weights are random, so what they lose means nothing"
ADOPTED = "no unquantized checkpoint was named to compare it with (--against)"
_WHOLE, _WHOLE_BITS = "f16", 16
"""The cache type that a quantized one is compared with, in every runtime that has any."""
ELSEWHERE = "the artifact cannot be run on this machine"


def not_here(measured: Entry) -> Quality | None:
    """The manifest's `quality` of an artifact that cannot be run here; None for one that can."""
    return skipped(ELSEWHERE) if "not_measured" in measured.facts else None


def why_not(plan: Plan) -> str | None:
    """Why a divergence from the unquantized weights would mean nothing; None where it means
    something."""
    if plan.source.reference is None:
        return ADOPTED
    return RANDOM if plan.source.kind == "dummy" else None


def reference(plan: Plan, fetched: Entry) -> Job:
    """What the unquantized checkpoint says of the text, whatever is made of it."""
    if plan.shape.task != "generate":
        return retrieval_stage.reference(plan, fetched)
    # Late: only a build computes a reference, and numpy comes with it.
    from packager.reference.states import VERSION as STATES

    folder, facts = reference_of(fetched)
    key = key_of({"files": inputs_of(facts), "text": _text(plan), "version": [STATES, VERSION]})
    evidence = Evidence.of(folder, facts)
    return Job(
        "reference",
        "packager.quality.job:reference",
        _arguments(plan, fetched),
        key,
        row="quality",
        evidence=evidence,
    )


def compare(
    plan: Plan,
    fetched: Entry,
    converted: Entry,
    artifact: Job,
    divergence: bool,
    kept: Entry | None = None,
) -> Job:
    """The artifact against its checkpoint: its tokenizer and template, and with `divergence` its
    logits against what is `kept`."""
    if plan.shape.task != "generate":
        return retrieval_stage.compare(plan, fetched, converted, artifact, divergence, kept)
    settings = {"kv": plan.chosen.recipe.kv, "threads": None, "gpu_layers": plan.gpu_layers}
    arguments = {
        **_arguments(plan, fetched),
        "session": plan.runtime.session,
        "artifact": str(converted.folder / "out"),
        "settings": settings,
        "reference": None if kept is None else str(kept.folder / "out"),
        "stops": plan.source.kind != "dummy",
        **({"profile": plan.profile.as_dict()} if plan.profile else {}),
    }
    looking = _pictures(plan, converted)
    if looking:
        arguments["pictures"] = looking
    listening = _sounds(plan, converted)
    if listening:
        arguments["sounds"] = listening
    cache = _cache(plan) if divergence else None
    if cache:
        arguments["cache"] = cache
    # The reference follows from what the artifact was made of and from the text.
    started = plan.start.identity if plan.start else {}
    asked = {
        "artifact": artifact.key,
        "settings": settings,
        "text": _text(plan),
        "divergence": divergence,
        "version": VERSION,
        **({"pictures": [looking, PICTURES_VERSION]} if looking else {}),
        **_held_against(plan, fetched),
        **({"cache": [cache, CACHE_VERSION]} if cache else {}),
        **({"sounds": [listening, SOUNDS_VERSION]} if listening else {}),
    }
    key = key_of({**asked, **started})
    evidence = Evidence.of(*reference_of(fetched), None if divergence else SMALL)
    return Job(
        "quality",
        "packager.quality.job:compare",
        arguments,
        key,
        needs_out=False,
        env=environment(plan),
        by_start=True,
        evidence=evidence,
    )


def _parity(plan: Plan, facts: JsonObject) -> JsonObject:
    """Parity of a model that no checkpoint was compared with, with what that was instead."""
    adopted, parity = plan.source.adopted, facts.get("parity")
    if adopted is None or plan.source.against is not None or not isinstance(parity, dict):
        return {}
    held = "file" if adopted.tokenizer is None else "tokenizer"
    return {"parity": {**parity, "held_against": held}}


def _held_against(plan: Plan, fetched: Entry) -> JsonObject:
    """What an adopted model is compared with, which does not follow from it."""
    if plan.source.adopted is None:
        return {}
    folder, facts = reference_of(fetched)
    texts = {name: sha256(path) for name, path in checkpoint_files(folder).items()}
    held = inputs_of(facts) if facts is not fetched.facts else texts
    return {"held_against": held}


def result(plan: Plan, facts: JsonObject, why_not: str | None) -> Quality:
    """The manifest's `quality`; `why_not` says why there is no divergence, where there is none."""
    if plan.shape.task != "generate":
        return retrieval_stage.result(plan, facts, why_not)
    text = {"name": plan.gate.text.name, "sha256": plan.gate.text.sha256}
    grade = plan.chosen.recipe.grade
    facts = {**facts, **_parity(plan, facts), "text": text, "answer_grade": grade}
    return judged(facts, limits(grade), why_not, plan.gate.allow_loss)


def _pictures(plan: Plan, converted: Entry) -> JsonObject | None:
    """How pictures are compared; None for text alone."""
    if plan.shape.vision is None or not isinstance(plan.runtime, Sees):
        return None
    return {
        "session": plan.runtime.vision_session,
        "grade": _tower_grade(converted),
        "answers": why_not(plan) is None,
    }


def _sounds(plan: Plan, converted: Entry) -> JsonObject | None:
    """How audio embeddings are compared; None where no sound is taken."""
    if plan.shape.audio is None or not isinstance(plan.runtime, Hears):
        return None
    return {"session": plan.runtime.audio_session, "grade": _tower_grade(converted)}


def _tower_grade(converted: Entry) -> str:
    sixteen = object_at(converted.facts, "projector")["type"] in ("F32", "F16", "BF16")
    return "16-bit" if sixteen else "8-bit"


def _cache(plan: Plan) -> JsonObject | None:
    """How the packaged cache type is compared; None for one of 16 bits and more, or where the
    runtime has no such one beside it."""
    recipe = plan.chosen.recipe
    if recipe.kv_bits >= _WHOLE_BITS:
        return None
    try:
        plan.runtime.recipe(recipe.weights, _WHOLE)
    except PackError:
        return None
    grade = f"{int(recipe.kv_bits)}-bit"
    return {"session": plan.runtime.session, "against": _WHOLE, "grade": grade}


def _arguments(plan: Plan, fetched: Entry) -> JsonObject:
    file = plan.gate.file
    return {
        "checkpoint": str(reference_of(fetched)[0]),
        "text": None if file is None else str(Path(file).absolute()),
        "tokens": plan.gate.tokens_for(plan.shape.parameters()),
        "context": plan.workload.context,
    }


def _text(plan: Plan) -> JsonObject:
    # Pieces grow no further than that, whatever the context.
    context = min(plan.workload.context, FURTHEST)
    return {
        "sha256": plan.gate.text.sha256,
        "tokens": plan.gate.tokens_for(plan.shape.parameters()),
        "context": context,
    }
