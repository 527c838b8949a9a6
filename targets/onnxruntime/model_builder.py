"""The GenAI model builder, driven without its command line. Runs in a child process: its modules
import by top-level names."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packager.checkpoint import codes
from packager.errors import usage
from packager.json_values import JsonObject
from packager.runtime import Report
from packager.shape import Shape
from targets.onnxruntime import embedding, sizes
from targets.onnxruntime.quantization import Quantization, Settings

_MATRICES = ("attn/qkv_proj", "attn/o_proj", "mlp/gate_proj", "mlp/up_proj", "mlp/down_proj")

UNNEEDED = ("boto3", "sklearn")
"""What transformers and accelerate load where it is installed: a quarter of what the model builder
takes to load, for assisted generation and for Amazon's cloud."""


def run(
    report: Report,
    checkpoint: Path,
    shape: Shape,
    settings: Settings,
    out: Path,
    work: Path,
    taken: Mapping[str, codes.Part] | None = None,
) -> None:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer's files into `out`;
    `work` takes what is temporary. What is `taken` over stays in its groups of 4 bits."""
    stay_at_home()
    report.note("loading the model builder")
    builder = _modules()
    if settings.quantization is not None:
        # Late: it loads ONNX Runtime, which must see the environment set above.
        from targets.onnxruntime import sliced

        sliced.install(report, sizes.quantized_weights(shape))
        if (
            not shape.tied
            and settings.quantization.zero_points
            and sizes.quantizes_embedding(settings)
        ):
            embedding.install(importlib.import_module("builders.base"))
        if shape.tied and settings.quantization.sensitive_bits:
            embedding.install_names(importlib.import_module("builders.base"))
    groups = None
    if taken is not None:
        # Late: it loads the exporter of graphs.
        from targets.onnxruntime import repacked

        level = settings.quantization.accuracy_level if settings.quantization else 0
        groups = repacked.install(importlib.import_module("builders.base"), taken, level)
    precision, options, structured = arguments(shape, settings)
    cache = str(work / "cache")
    report.note("reading the weights and writing the graph")
    parsed = builder.parse_extra_options(
        None, str(checkpoint), str(out), precision, settings.provider, cache, options, **structured
    )
    builder.create_model(
        None, str(checkpoint), str(out), precision, settings.provider, cache, **parsed
    )
    if groups is not None:
        groups.refuse_unused()


def arguments(shape: Shape, settings: Settings) -> tuple[str | None, list[str], JsonObject]:
    """Precision, options and structured options of the builder for a recipe; nothing is left to its
    defaults."""
    options = {
        "hf_token": "false",
        "hf_remote": "false",
        # Only the last token's logits are used: without it a prompt of 512 tokens takes 311 MB for
        # the others.
        "prune_lm_head": "true",
        # A layer with a sliding window would keep no more than the window, in a ring that
        # onnxruntime itself cannot be given.
        "windowed_kv_cache": "false",
        "shared_embeddings": "true" if sizes.shares_embedding(shape) else "false",
    }
    quantization = settings.quantization
    if quantization is None:
        return settings.precision, _listed(options), {}
    operators = ["MatMul"]
    if sizes.shares_embedding(shape) or sizes.quantizes_embedding(settings):
        operators.append("Gather")
    if quantization.bits == 8:
        return None, _listed(options), _eight_bits(shape, quantization, operators)
    options |= {
        "algo_config": method(quantization),
        "block_size": str(quantization.block),
        "is_symmetric": "false" if quantization.zero_points else "true",
        "accuracy_level": str(quantization.accuracy_level),
        "op_types_to_quantize": "/".join(operators),
    }
    raised = ["last_matmul:int8"] if quantization.head_bits == 8 else []
    raised += ["mixed_layers:int8"] if quantization.sensitive_bits == 8 else []
    if raised:
        options["matmul_mixed_precision"] = ",".join(raised)
    return "int4", _listed(options), {}


def method(quantization: Quantization) -> str:
    """The builder has two ways to round to nearest: `default` uses all 16 steps of a symmetric
    block and can take an embedding too, but it loses the tie between embedding and output matrix
    where there are zero points."""
    return (
        "default"
        if quantization.method == "rtn" and not quantization.zero_points
        else quantization.method
    )


def _eight_bits(shape: Shape, quantization: Quantization, operators: list[str]) -> JsonObject:
    """Four bits with every matrix raised to eight: the builder's own int8 keeps a tied embedding
    beside it, in 32 bits."""
    names = [
        "/lm_head/MatMul",
        *(
            f"/model/layers.{layer}/{name}/MatMul"
            for layer in range(shape.layers)
            for name in _MATRICES
        ),
    ]
    weights: JsonObject = {
        "type": "int4",
        "method": quantization.method,
        "block_size": quantization.block,
        "symmetric": True,
        "accuracy_level": quantization.accuracy_level,
        "op_types": operators,
        "overrides": [{"match": {"name": name}, "type": "int8"} for name in names],
    }
    return {"builder_config_version": 2, "target_options": {"quant_config": {"weights": weights}}}


def _listed(options: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in options.items()]


def stay_at_home() -> None:
    """Nothing is asked of the hub, nothing is sent, and the builder does not look for a git
    repository around its own files.

    It would write that repository's commit into the graph: the bytes would change with every commit
    of whoever keeps the virtual environment inside a repository. Must run before the engines are
    imported: they read these variables once.
    """
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    os.environ["GIT_DIR"] = os.devnull


def _modules() -> Any:
    """The module `builder`, which finds its siblings by top-level names only."""
    spec = find_spec("onnxruntime_genai")
    if spec is None or not spec.submodule_search_locations:
        raise usage(
            "onnxruntime-genai is not installed.", "Install it with: pip install 'qwen-pack[onnx]'"
        )
    folder = str(Path(next(iter(spec.submodule_search_locations))) / "models")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("builder")
