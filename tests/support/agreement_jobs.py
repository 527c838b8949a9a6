"""What one engine makes of many checkpoints in its highest precision, in one child process, as the
engines load slowly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from packager.process import resolve
from packager.runtime import Report
from targets import registry

CONTEXT = 256


def build_and_say(
    report: Report,
    *,
    runtime: str,
    weights: str,
    kv: str,
    checkpoints: dict[str, str],
    ids: list[int],
    prompts: dict[str, list[str]],
    new_tokens: int,
    out: str,
) -> dict[str, Any]:
    """Per checkpoint its artifact in `out`, the logits behind every one of `ids` in NAME.npy, and
    the greedy answers to its prompts.

    Returns per checkpoint the prompts' ids and the answers' ids.
    """
    adapter = registry.runtime(runtime)
    recipe = adapter.recipe(weights, kv)
    build, session = resolve(adapter.build_job), resolve(adapter.session)
    found: dict[str, Any] = {}
    for name, checkpoint in checkpoints.items():
        artifact = Path(out, name)
        artifact.mkdir(parents=True)
        build(
            report,
            checkpoint=checkpoint,
            recipe=asdict(recipe),
            workload={"context": CONTEXT},
            out=str(artifact),
        )
        model = session(str(artifact), {"context": CONTEXT, "kv": recipe.kv, "threads": 1})
        try:
            np.save(
                Path(out, f"{name}.npy"),
                np.concatenate([block.copy() for block in model.logits(ids)]),
            )
            asked = [model.encode(prompt) for prompt in prompts.get(name, [])]
            found[name] = {
                "asked": asked,
                "said": [
                    model.generate(prompt, new_tokens, lambda token: None, stop=False)
                    for prompt in asked
                ],
            }
        finally:
            model.close()
    return found
