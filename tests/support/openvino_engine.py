"""Tiny checkpoints for OpenVINO, and conversions of them as the pipeline runs them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from packager.process import JobResult, Note, Progress
from targets.openvino import OpenVino
from tests.support.child_jobs import finish
from tests.support.make_checkpoint import tiny_shape

# 448 columns of the down projection are no multiple of 128: their group becomes 64.
QWEN2 = tiny_shape(
    "qwen2", hidden=256, heads=4, kv_heads=2, intermediate=448, vocab=4096, tied=True
)
QWEN3 = tiny_shape(
    "qwen3", hidden=128, heads=4, kv_heads=2, head_dim=64, intermediate=256, vocab=4096, tied=False
)


def build(
    checkpoint: Path, weights: str, out: Path, log: Path
) -> tuple[JobResult, list[Progress | Note]]:
    """A checkpoint converted by one recipe into a new folder."""
    return finish(
        OpenVino.build_job,
        log,
        checkpoint=str(checkpoint),
        recipe=asdict(OpenVino().recipe(weights)),
        workload={},
        out=str(out),
    )
