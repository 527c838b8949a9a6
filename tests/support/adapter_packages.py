"""Bases of the trained model, and the adapter that is trained on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager.files import regular_files, sha256
from packager.package import manifest
from packager.pipeline import adapter_package
from packager.process import run_job
from packager.quality.gate import Gate
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import finish
from tests.support.trained_package import TRAINED, describe, write_trained

AHOY = REPOSITORY / "tests" / "models" / "tiny-qwen3-ahoy"
BY_LLAMA_CPP = "108dac712f7b3f04a5d1f25b3accbb4858a46d5983b4f2d2e5e943d8c59ec4e9"
"""sha256 of what convert_lora_to_gguf.py of llama.cpp (in llama-cpp-python 0.3.36) writes of the
trained adapter."""


def source() -> dict[str, Any]:
    rows = [
        {"path": path.name, "size": path.stat().st_size, "sha256": sha256(path)}
        for path in regular_files(TRAINED)
    ]
    return {"kind": "local", "location": TRAINED.name, "files": rows}


def base_for(runtime: str, folder: Path) -> Path:
    if runtime == "llama.cpp":
        return write_trained(folder, source=source())
    made: Any = registry.runtime(runtime)
    if runtime == "onnxruntime":
        made = made.with_adapter_inputs()
    recipe = made.recipe("int8_sym_b32" if runtime == "onnxruntime" else "int8_asym")
    arguments: dict[str, Any] = {
        "checkpoint": str(TRAINED),
        "recipe": asdict(recipe),
        "workload": {"context": 512},
        "out": str(folder / "model"),
    }
    folder.mkdir()
    finish(run_job(made.build_job, arguments, folder.with_name("log")))
    told = {"id": recipe.id, "kv": recipe.kv, "settings": recipe.settings}
    return describe(folder, recipe.id, runtime, source=source(), recipe=told)


def built(base: Path, out: Path, adapter: str = str(AHOY), **more: Any) -> Path:
    runtime = registry.runtime(manifest.read(base).contents.runtime.name)
    plan = adapter_package.make_plan(
        base, adapter, runtime, weights=TRAINED, out=out, gate=Gate(tokens=60), **more
    )
    return Path(finish(adapter_package.run(plan)).path)
