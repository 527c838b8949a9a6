"""What ONNX Runtime GenAI's artifact holds: the workload's context, files of its own, the
checkpoint's tokenizer, and the same bytes each time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from packager.files import regular_files, sha256
from packager.process import JobResult, Note, Progress
from targets.onnxruntime import sizes
from targets.onnxruntime.finish import set_context
from tests.conftest import REPOSITORY
from tests.support.child_jobs import finish
from tests.support.make_checkpoint import write_tiny
from tests.support.onnx_engine import CONTEXT, QWEN2, RUNTIME, build_all

pytestmark = pytest.mark.engine

Built = tuple[Path, JobResult, list[Any]]

FILES = {
    "chat_template.jinja",
    "genai_config.json",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("onnx")
    write_tiny(home / "qwen2", shape=QWEN2)
    return home


@pytest.fixture(scope="module")
def tied(home: Path) -> Path:
    """Two recipes by one process, in folders named after the recipes."""
    return build_all(home, "qwen2", ["int4_sym_b32", "int4_k_quant_b32"], "tied")


@pytest.fixture(scope="module")
def alone(home: Path) -> Built:
    """One recipe by the job as the pipeline calls it, from a checkpoint that looks like a snapshot
    in the hub's cache."""
    blobs, snapshot = home / "hub" / "blobs", home / "hub" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in regular_files(home / "qwen2"):
        shutil.copyfile(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    (snapshot / "modeling_evil.py").write_text("raise SystemExit('remote code ran')\n")
    out = home / "work" / "out"
    recipe = asdict(RUNTIME.recipe("int4_k_quant_b32"))
    return out, *finish(
        RUNTIME.build_job,
        home / "alone.log",
        checkpoint=str(snapshot),
        recipe=recipe,
        workload={"context": CONTEXT},
        out=str(out),
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in regular_files(folder)}


def test_the_configuration_has_the_workloads_context_and_keeps_the_models(alone: Built) -> None:
    config = json.loads((alone[0] / "genai_config.json").read_text())
    assert config["search"]["max_length"] == CONTEXT
    assert config["model"]["context_length"] == QWEN2.context
    assert config["search"]["past_present_share_buffer"] is True


def test_a_context_beyond_the_models_own_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "genai_config.json"
    path.write_text(json.dumps({"model": {"context_length": 2048}, "search": {"max_length": 2048}}))
    set_context(path, 10**6)
    assert json.loads(path.read_text())["search"]["max_length"] == 2048


def test_the_artifact_holds_regular_files_of_its_own_and_no_name_of_the_machine(
    home: Path, alone: Built
) -> None:
    out = alone[0]
    assert {path.name for path in out.iterdir()} == FILES
    assert all(
        path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
        for path in out.iterdir()
    )
    for path in out.iterdir():
        assert str(home).encode() not in path.read_bytes(), path.name
    assert os.listdir(out.parent) == ["out"]


def test_the_tokenizer_is_the_checkpoints_own(home: Path, alone: Built) -> None:
    out, source = alone[0], home / "qwen2"
    assert json.loads((out / "tokenizer.json").read_text()) == json.loads(
        (source / "tokenizer.json").read_text()
    )
    assert (out / "tokenizer_config.json").read_bytes() == (
        source / "tokenizer_config.json"
    ).read_bytes()
    template = json.loads((source / "tokenizer_config.json").read_text())["chat_template"]
    assert (out / "chat_template.jinja").read_text() == template


def test_the_build_tells_its_progress_and_its_settings(alone: Built) -> None:
    _, result, messages = alone
    progress = [message for message in messages if isinstance(message, Progress)]
    assert progress[-1].done == progress[-1].total == sizes.quantized_weights(QWEN2)
    assert [message.text for message in messages if isinstance(message, Note)][
        -1
    ] == "writing the configuration and the tokenizer"
    assert result.value["provider"] == "cpu"
    assert result.value["settings"] == RUNTIME.recipe("int4_k_quant_b32").settings
    assert result.peak_bytes > 100_000_000


def test_two_builds_are_the_same_bytes_and_the_same_as_without_slices(
    home: Path, tied: Path, alone: Built
) -> None:
    name = "int4_k_quant_b32"
    whole = {
        "checkpoint": str(home / "qwen2"),
        "recipe": name,
        "context": CONTEXT,
        "out": str(home / "whole"),
    }
    finish("tests.support.onnx_jobs:build_whole_matrices", home / "whole.log", **whole)
    assert digests(tied / name) == digests(alone[0]) == digests(home / "whole" / name)


@pytest.mark.thorough(
    "test_a_module_that_is_left_out_counts_as_not_installed_for_the_while_and_no_longer"
)
def test_what_the_model_builder_asks_nothing_is_not_loaded(home: Path, tmp_path: Path) -> None:
    arguments = {
        "checkpoint": str(home / "qwen2"),
        "recipe": asdict(RUNTIME.recipe("int4_k_quant_b32")),
        "workload": {"context": CONTEXT},
        "out": str(tmp_path / "out"),
    }
    script = (
        "import sys; from tests.support.make_checkpoint import Silent; "
        "from targets.onnxruntime.convert import convert\n"
        f"convert(Silent(), **{arguments!r})\n"
        "print(sorted({'boto3', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert run.stdout.splitlines()[-1] == "['transformers']"
