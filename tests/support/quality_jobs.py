"""Jobs for child processes: one engine builds and is compared in several recipes, and ways to
damage what it built."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from packager.process import resolve
from packager.quality import job
from packager.runtime import Report
from targets import registry
from tests.support.parity_jobs import rewrite_gguf


def build_and_compare(
    report: Report,
    *,
    runtime: str,
    recipes: list[str],
    damaged: list[str],
    read: dict[str, Any],
    reference: str,
    out: str,
) -> dict[str, Any]:
    """What `packager.quality.job:compare` finds of each recipe, by id, and of copies of the last
    one, by the name of their damage.

    A recipe of another runtime is built by that one, and its file read by this one.
    """
    adapter = registry.runtime(runtime)
    artifacts = {}
    for name in recipes:
        artifacts[name] = Path(out, name.replace(":", "-"))
        _build(report, name, read["checkpoint"], artifacts[name])
        if not name.startswith(f"{adapter.prefix}:"):
            _read_by_openvino(artifacts[name])
    for damage in damaged:
        artifacts[damage] = Path(shutil.copytree(artifacts[recipes[-1]], Path(out, damage)))
        DAMAGES[damage](artifacts[damage])
    settings = {"kv": adapter.recipes()[0].kv, "threads": 1, "gpu_layers": 0}
    ways = {"session": adapter.session, "settings": settings, "reference": reference, "stops": True}
    return {
        name: job.compare(report, **ways, **read, artifact=str(folder))
        for name, folder in artifacts.items()
    }


def _build(report: Report, recipe_id: str, checkpoint: str, out: Path) -> None:
    adapter = next(one for one in registry.runtimes() if recipe_id.startswith(f"{one.prefix}:"))
    recipe = asdict(adapter.recipe(recipe_id.partition(":")[2]))
    resolve(adapter.build_job)(
        report, checkpoint=checkpoint, out=str(out), recipe=recipe, workload={"context": 512}
    )
    # OpenVINO's, which has a process to itself otherwise, leaves behind a folder for temporary
    # files that is gone.
    os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None


def _read_by_openvino(artifact: Path) -> None:
    """openvino-genai makes a graph of a GGUF file and writes it beside it."""
    import openvino_genai

    (model,) = artifact.glob("*.gguf")
    openvino_genai.LLMPipeline(model, "CPU", enable_save_ov_model=True)


def gguf_with_another_template(
    report: Report, *, checkpoint: str, recipe: dict[str, Any], workload: dict[str, Any], out: str
) -> Any:
    """llama.cpp's own build job, after which the file has the chat template of another family."""
    facts = resolve(registry.runtime("llama.cpp").build_job)(
        report, checkpoint=checkpoint, recipe=recipe, workload=workload, out=out
    )
    (model,) = Path(out).glob("*.gguf")
    other = "{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}"
    rewrite_gguf(model, model.with_name("other"), chat_template=other).replace(model)
    return facts


def _neighbours_scales(artifact: Path) -> None:
    """Every group of weights of one layer's matrices gets the scale of the group before."""
    described = (artifact / "openvino_model.xml").read_text()
    places = re.findall(
        r'name="model.layers.1[^"]*/scale" type="Const"[^>]*>\s*<data element_type="f16" '
        r'shape="[^"]*" offset="(\d+)" size="(\d+)"',
        described,
    )
    assert places
    weights = np.memmap(artifact / "openvino_model.bin", mode="r+", dtype=np.uint8)
    for start, size in ((int(start), int(size)) for start, size in places):
        scales = weights[start : start + size].view(np.uint16)
        scales[:] = np.roll(scales, 1)
    weights.flush()


DAMAGES: dict[str, Callable[[Path], None]] = {"scales of the neighbours": _neighbours_scales}
