"""What a config.json may say, and whether the tensors are the ones that it describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.checkpoint.header import TensorInfo
from packager.errors import bad_input
from packager.shape import Shape, tensors

_NAMED = 3
_OUTPUT = "lm_head.weight"
# Old exports store the rotary frequencies, which follow from the config; Qwen3-Next and Qwen3.5 a draft module (mtp).
_BESIDE = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|mtp\..+")

TEXT_TYPES = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
"""The model types whose checkpoints are a text decoder and nothing else, and need no Python of their own."""


def refuse_unsupported(where: str, model_type: Any) -> None:
    """Refuse what is no text-only Qwen from Qwen1.5 on."""
    if model_type not in TEXT_TYPES:
        raise bad_input(
            f"{where}: checkpoints of model_type {model_type!r} are not supported.",
            f"Text checkpoints from Qwen1.5 on are: {', '.join(TEXT_TYPES)}.",
        )


def refuse_foreign_code(path: Path, config: dict[str, Any]) -> None:
    """Refuse a config that points at Python of its own: it would have to be run."""
    if config.get("auto_map"):
        raise bad_input(
            f"{path} needs Python code of its own (auto_map), which is never run here.",
            "Name a checkpoint that the engines know by its model_type, such as Qwen2.5 or Qwen3.",
        )


def refuse_quantized(path: Path, config: dict[str, Any]) -> None:
    """Refuse weights that are quantized already (GPTQ, AWQ, FP8): quantizing twice loses twice."""
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise bad_input(
            f"{path} says that the checkpoint is already quantized ({method or 'quantization_config'}).",
            "Name the unquantized repository or folder that it was made from.",
        )


def match(config: Path, shape: Shape, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of the text decoder, in stored order.

    A tied checkpoint may store its output matrix again (Qwen1.5-0.5B, Qwen3-0.6B and Qwen3-1.7B do): that copy is dropped,
    and so are rotary frequencies and draft modules.
    Raises PackError (exit code 6) that names the first tensors which are missing, additional or of another shape.
    """
    expected = {spec.name: spec.shape for spec in tensors(shape)}
    kept = dict(stored)
    if shape.tied and _OUTPUT in kept and kept[_OUTPUT].shape == (shape.vocab, shape.hidden):
        del kept[_OUTPUT]
    kept = {name: tensor for name, tensor in kept.items() if not _BESIDE.fullmatch(name)}
    problems = []
    for name, size in expected.items():
        if name not in kept:
            problems.append(f"tensor {name!r} is missing")
        elif kept[name].shape != size:
            problems.append(f"tensor {name!r} in {kept[name].file.name} has the shape {list(kept[name].shape)} instead of {list(size)}")
    problems += [f"tensor {name!r} in {tensor.file.name} is not one of its own" for name, tensor in kept.items() if name not in expected]
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise bad_input(
            f"The weights are not the ones that {config} describes: {'; '.join(problems[:_NAMED])}{more}.",
            "Take config.json and the safetensors files from one and the same revision.",
        )
    return kept
