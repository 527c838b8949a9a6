"""The warm start of a build and of a package: which chats share a prefix, what it gains, where its
state is kept."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from packager.chat import speech
from packager.checkpoint.template import render_apart
from packager.errors import PackError, usage
from packager.json_values import JsonObject
from packager.measure.prefix import VERSION, StartsWarm
from packager.paths import PREFIXES, made_cache_dir
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, checkpoint_of
from packager.pipeline.measured_job import measured_job
from packager.predict.memory import kv_cache_bytes
from packager.records.contents import WarmStart

if TYPE_CHECKING:
    from packager.plan.plan import Plan

PROBES = ("How are you?", "7")
"""Two questions that begin with different tokens: what their prompts share is what every chat of
the package begins with."""

_BYTES_PER_TOKEN = 2
"""Of UTF-8, at least on average: English has four, Chinese two and more."""
_FRAME = 64
"""Tokens that a template adds around a system prompt and tools, about."""


def obstacle(plan: Plan) -> PackError | None:
    """Why a warm start that was asked for cannot be; None where it can."""
    if not plan.warm:
        return None
    if plan.shape.task != "generate":
        return usage("Vectors and scores have no warm start.", "Leave --warm out.")
    if plan.profile.system_prompt is None and not plan.profile.tools:
        return usage(
            "A warm start keeps the state of a fixed prefix, and this build fixes none.",
            "Give --system-prompt or --tools, or leave --warm out.",
        )
    if not isinstance(plan.runtime, StartsWarm):
        return usage(
            f"{plan.runtime.name} keeps no state between two answers.",
            "Take llama.cpp, which keeps it in a file, or OpenVINO, which keeps it as long as it "
            "runs; or leave --warm out.",
        )
    return None


def planned_bytes(plan: Plan) -> int:
    """The most that the state takes on the device, before a tokenizer has counted its tokens."""
    text = (plan.profile.system_prompt or "").encode()
    fixed = len(text) + sum(len(str(dict(tool)).encode()) for tool in plan.profile.tools)
    tokens = min(ceil(fixed / _BYTES_PER_TOKEN) + _FRAME, plan.workload.context)
    return state_bytes(plan, tokens)


def state_bytes(plan: Plan, tokens: int) -> int:
    """Bytes of the state of so many tokens: keys and values, a hybrid's recurrent state, and four
    bytes a token for the ids."""
    return kv_cache_bytes(plan.shape, tokens, plan.chosen.recipe.kv_bits) + 4 * tokens


def measure(plan: Plan, converted: Entry, artifact: Job, fetched: Entry, log: Path) -> Job:
    """A first token cold and warm, of what `artifact` left; the figures hold for this machine."""
    template = speech.of_folder(checkpoint_of(fetched), plan.profile).template
    if template is None:
        raise usage("A base model has no chats that could share a prefix.", "Leave --warm out.")
    probes = [render_apart(template, [{"role": "user", "content": text}], log) for text in PROBES]
    job = "packager.measure.prefix:measure"
    inputs: JsonObject = {"probes": probes}
    return measured_job(plan, "warm", job, converted, artifact, inputs, {"version": VERSION})


def record(plan: Plan, entry: Entry) -> WarmStart:
    """What the manifest keeps."""
    assert isinstance(plan.runtime, StartsWarm)
    seen = WarmStart.from_json({**entry.facts, "how": plan.runtime.warm_start})
    return seen.but(predicted_state_bytes=state_bytes(plan, seen.prefix_tokens))


def asked(key: str, probes: list[str]) -> JsonObject:
    """What packager.measure.prefix.keep takes: the states lie in the user's own cache, where a
    package brings none."""
    return {"probes": probes, "folder": str(made_cache_dir() / PREFIXES), "key": key}
