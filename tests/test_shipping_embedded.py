"""What an embedded device is told: how its program starts the engine of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.json_values import JsonObject
from tests.support.shipping_packages import exported, gguf_package

pytestmark = pytest.mark.slow


def test_the_command_for_an_embedded_device_starts_an_engine_that_opens_the_package(
    tmp_path: Path,
) -> None:
    layers = {"offload": {"gpu_layers": 9}}
    rows: list[tuple[str, JsonObject, str, str]] = [
        ("llama.cpp", layers, " --n-gpu-layers 9 --model`", "PROGRAM"),
        (
            "llama.cpp",
            {"workload": {"context": 512}},
            "llama-server --ctx-size 512 --model`",
            "PROGRAM",
        ),
        ("llama.cpp", {"retrieval": {"task": "embed"}}, " --embedding --model`", "PROGRAM"),
        ("llama.cpp", {"retrieval": {"task": "rerank"}}, " --reranking ", "PROGRAM"),
        ("openvino", {}, "qwen-pack-check FOLDER/package PROGRAM`", "llama-server"),
        ("onnxruntime", {}, "qwen-pack-check FOLDER/package PROGRAM`", "llama-server"),
    ]
    for at, (name, more, wanted, absent) in enumerate(rows):
        folder = tmp_path / str(at)
        package = gguf_package(folder / "package", runtime={"name": name, "version": "1"}, **more)
        readme = (exported(package, "embedded", folder / "out") / "README.md").read_text("utf-8")
        assert wanted in readme and absent not in readme, (name, more)
