"""What a manifest says to whoever hands a package texts for vectors, pictures or sound."""

from __future__ import annotations

from packager.checkpoint import Checkpoint, retrieval
from packager.hearing import Hears, encoder_file
from packager.json_values import JsonObject, object_at
from packager.package.package import MODEL
from packager.pipeline.job import checkpoint_of
from packager.pipeline.stages import Made
from packager.plan.plan import Plan
from packager.runtime import Sees
from packager.shape.audio import RATE, audio_tokens


def retrieval_of(plan: Plan, made: Made) -> JsonObject | None:
    """How vectors or scores are made, for whoever runs it; None for text."""
    task = plan.shape.task
    if task == "generate":
        return None
    if task == "rerank":
        prompt = retrieval.RERANK.replace("{instruction}", retrieval.INSTRUCTION)
        return {"task": task, "pooling": "last", "prompt": prompt}
    own = retrieval.conventions(Checkpoint.open(checkpoint_of(made.fetched)))
    hidden = plan.shape.hidden
    return {
        "task": task,
        "pooling": "last",
        "normalized": True,
        "end": own.end,
        "query": own.query,
        "hidden": hidden,
        "dimension": plan.workload.dimension or hidden,
    }


def projector_of(plan: Plan) -> str | None:
    """The name of the file of the vision tower or the audio encoder; None for text alone."""
    runtime = plan.runtime
    if plan.shape.vision is not None and isinstance(runtime, Sees):
        return runtime.projector
    if plan.shape.audio is not None and isinstance(runtime, Hears):
        return encoder_file(runtime)
    return None


def vision_of(plan: Plan, made: Made) -> JsonObject | None:
    """What whoever hands over a picture must know; None for text alone."""
    name = projector_of(plan)
    if name is None or plan.shape.vision is None:
        return None
    facts = object_at(made.converted.facts, "projector")
    kept = ("type", "projector", "parameters", "patch_size", "pixels_per_token", "deepstack")
    return {
        "file": f"{MODEL}/{name}",
        **{key: facts[key] for key in kept},
        "max_image_tokens": plan.shape.image_tokens,
    }


def audio_of(plan: Plan, made: Made) -> JsonObject | None:
    """What whoever hands over a sound must know; None where none is taken."""
    name = projector_of(plan)
    if name is None or plan.shape.audio is None:
        return None
    facts = object_at(made.converted.facts, "projector")
    window = plan.shape.audio.window
    told: JsonObject = {
        "file": f"{MODEL}/{name}",
        **{key: facts[key] for key in ("type", "projector", "parameters")},
        "sample_rate": RATE,
        "tokens_per_second": audio_tokens(1),
        "max_audio_seconds": plan.shape.audio_seconds,
    }
    if window is None:
        return told
    tokens = plan.shape.audio.tokens(window)
    of_windows = {"window_seconds": window, "window_tokens": tokens}
    return {**told, "tokens_per_second": tokens // window, **of_windows}
