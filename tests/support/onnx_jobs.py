"""Jobs that the tests of the ONNX runtime run in child processes: many builds or questions in one,
as the engine loads slowly."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager.errors import PackError
from packager.runtime import Report
from targets.onnxruntime import OnnxRuntime
from targets.onnxruntime.convert import convert
from targets.onnxruntime.session import OnnxRuntimeSession


def build_all(
    report: Report, *, checkpoint: str, recipes: list[str], context: int, out: str
) -> dict[str, Any]:
    """One artifact per recipe, in folders named after them."""
    for name in recipes:
        recipe = asdict(OnnxRuntime().recipe(name))
        convert(
            report,
            checkpoint=checkpoint,
            recipe=recipe,
            workload={"context": context},
            out=str(Path(out, name)),
        )
    return {}


def build_whole_matrices(
    report: Report, *, checkpoint: str, recipe: str, context: int, out: str
) -> dict[str, Any]:
    """One artifact as the library's quantizers make it when nothing slices their work."""
    from targets.onnxruntime import sliced

    sliced.install = lambda report, weights: None  # type: ignore[assignment]
    return build_all(report, checkpoint=checkpoint, recipes=[recipe], context=context, out=out)


def answer(
    report: Report, *, artifact: str, prompts: list[list[int]], new_tokens: int, stop: bool
) -> dict[str, Any]:
    """Two answers to every prompt from one session: what was returned, and what was delivered one
    by one."""
    session = OnnxRuntimeSession(artifact, {"context": 128, "kv": "f32", "threads": 1})
    returned, delivered = [], []
    for prompt in [prompt for prompt in prompts for _ in range(2)]:
        heard: list[int] = []
        returned.append(session.generate(prompt, new_tokens, heard.append, stop=stop))
        delivered.append(heard)
    session.close()
    return {"returned": returned, "delivered": delivered}


def overrun(report: Report, *, artifact: str, prompt: list[int], new_tokens: int) -> dict[str, Any]:
    """Ask for more than the context holds."""
    OnnxRuntimeSession(artifact, {"context": 64, "kv": "f32", "threads": None}).generate(
        prompt, new_tokens, lambda token: None
    )
    return {}


def interrupted(report: Report, *, artifact: str, prompt: list[int]) -> dict[str, Any]:
    """Listen to one token only."""

    def listen(token: int) -> None:
        raise PackError("the listener had enough")

    OnnxRuntimeSession(artifact, {"context": 64, "kv": "f32", "threads": None}).generate(
        prompt, 8, listen
    )
    return {}


def threads_of(report: Report, *, artifact: str, threads: int) -> dict[str, int]:
    """Threads that this process has more than before, once a model is loaded."""
    import onnxruntime_genai as og

    tasks = Path("/proc/self/task")
    og.Model(artifact)
    before = len(os.listdir(tasks))
    session = OnnxRuntimeSession(artifact, {"context": 64, "kv": "f32", "threads": threads})
    more = len(os.listdir(tasks)) - before
    session.close()
    return {"more": more}


def speak(report: Report, *, artifact: str, texts: list[str]) -> dict[str, Any]:
    """The ids of every text, and the text of those ids."""
    session = OnnxRuntimeSession(artifact, {"context": 64, "kv": "f32", "threads": None})
    ids = [session.encode(text) for text in texts]
    return {"ids": ids, "texts": [session.decode(some) for some in ids]}


def distances_to_transformers(
    report: Report, *, models: dict[str, dict[str, str]], prompt: list[int]
) -> dict[str, dict[str, float]]:
    """How far logits of the next token lie from those of transformers in float32, as a share of
    their spread.

    `models` maps a checkpoint to its artifacts by name. All run on the CPU, whatever provider they
    are made for.
    """
    import numpy as np
    import onnxruntime_genai as og
    import torch
    from transformers import AutoModelForCausalLM

    found: dict[str, dict[str, float]] = {}
    for checkpoint, artifacts in models.items():
        reference = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, local_files_only=True
        )
        with torch.no_grad():
            wanted = reference(torch.tensor([prompt])).logits[0, -1].numpy()
        found[checkpoint] = {}
        for name, folder in artifacts.items():
            config = og.Config(folder)
            config.clear_providers()
            model = og.Model(config)
            options = og.GeneratorParams(model)
            options.set_search_options(max_length=len(prompt) + 1)
            generator = og.Generator(model, options)
            generator.append_tokens(prompt)
            difference = generator.get_logits()[0, -1] - wanted
            found[checkpoint][name] = float(np.sqrt(np.mean(difference**2)) / wanted.std())
    return found
