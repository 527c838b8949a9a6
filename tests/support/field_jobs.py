"""What one engine makes of many checkpoints, in one child process: logits, or the sentence of its
refusal."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from packager.errors import PackError
from packager.process import resolve
from packager.runtime import Report
from targets import registry


def say(
    report: Report,
    *,
    runtime: str,
    weights: str,
    kv: str | None,
    checkpoints: dict[str, str],
    ids: dict[str, list[int]],
    context: int,
    out: str,
) -> dict[str, Any]:
    """Per checkpoint a file with the logits behind each of its `ids`, or the refusal: `exit_code`
    and `message`."""
    adapter = registry.runtime(runtime)
    recipe = adapter.recipe(weights, kv)
    build, session = resolve(adapter.build_job), resolve(adapter.session)
    found: dict[str, Any] = {}
    for number, (name, checkpoint) in enumerate(checkpoints.items()):
        artifact = Path(out, str(number))
        artifact.mkdir(parents=True)
        workload = {"context": context}
        try:
            build(
                report,
                checkpoint=checkpoint,
                recipe=asdict(recipe),
                workload=workload,
                out=str(artifact),
            )
            model = session(str(artifact), {"context": context, "kv": recipe.kv, "threads": 1})
        except PackError as error:
            found[name] = {
                "exit_code": int(error.exit_code),
                "message": f"{error.message} {error.hint}",
            }
            continue
        try:
            logits = np.concatenate([block.copy() for block in model.logits(ids[name])])
        finally:
            model.close()
        np.save(Path(out, f"{number}.npy"), logits)
        found[name] = {"logits": str(Path(out, f"{number}.npy"))}
        shutil.rmtree(artifact)
    return found


def say_by_recipe(
    report: Report, *, recipes: list[str], out: str, **arguments: Any
) -> dict[str, dict[str, Any]]:
    """What `say` gives for each of several recipes of one engine, by their names: it loads once."""
    return {
        weights: say(report, weights=weights, kv=None, out=str(Path(out, weights)), **arguments)
        for weights in recipes
    }
