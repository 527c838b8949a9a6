"""Jobs that the tests of embedders and rerankers run in child processes: many builds in one, as the
engines load slowly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager.process import resolve
from packager.runtime import Report
from targets import registry


def build_all(report: Report, *, runtime: str, wanted: list[list[str]]) -> dict[str, Any]:
    """Per recipe, task, checkpoint and folder one artifact."""
    adapter = registry.runtime(runtime)
    for recipe, task, checkpoint, out in wanted:
        resolve(adapter.build_job)(
            report,
            checkpoint=checkpoint,
            recipe={**asdict(adapter.recipe(recipe)), "inputs": {"task": task}},
            workload={"context": 1024},
            out=str(Path(out)),
        )
    return {}
