"""What a config.json may say, and whether the tensors are the ones that it describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from packager.checkpoint import first_generation
from packager.checkpoint.header import TensorInfo
from packager.errors import bad_input
from packager.shape import FIRST_GENERATION, Shape, tensors

_NAMED = 3
_MORE_THAN_STORED = 10_000
_OUTPUT = "lm_head.weight"
# Old exports store the rotary frequencies, which follow from the config; Qwen3-Next and Qwen3.5 a
# draft module (mtp).
_BESIDE = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|transformer\.rotary_emb\.inv_freq|mtp\..+"
)
_ENCODER = re.compile(r"model\.visual\..+")

COMPOSITE_TYPES = ("qwen3_5", "qwen3_5_moe")
"""Model types whose checkpoints hold an image encoder besides, which is left out."""

TEXT_TYPES = (
    "qwen",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    *COMPOSITE_TYPES,
)
"""The model types whose text decoder is opened; none of them needs Python of its own."""


def refuse_unsupported(where: str, model_type: Any) -> None:
    """Refuse what is no Qwen whose text decoder can be opened."""
    if model_type not in TEXT_TYPES:
        raise bad_input(
            f"{where}: checkpoints of model_type {model_type!r} are not supported.",
            f"Supported: {', '.join(TEXT_TYPES)}.",
        )


def refuse_other_inputs(where: str, config: dict[str, Any]) -> None:
    """Refuse Qwen-VL and Qwen-Audio, which share their model_type with the first generation's text
    models."""
    if config.get("model_type") == FIRST_GENERATION and not first_generation.text_only(config):
        raise bad_input(
            f"{where} describes an image or audio encoder of the first generation, which is not "
            "supported.",
            "Name a text checkpoint, such as Qwen-1_8B-Chat.",
        )


def refuse_foreign_code(path: Path, config: dict[str, Any], *, first: bool = False) -> None:
    """Refuse a config that points at Python of its own: it would have to be run.

    The `first` generation's own is known without it, and is left alone.
    """
    if config.get("auto_map") and not (first and first_generation.own_python(config["auto_map"])):
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
            f"{path} says that the checkpoint is already quantized "
            f"({method or 'quantization_config'}).",
            "Name the unquantized repository or folder that it was made from.",
        )


def match(config: Path, shape: Shape, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of the text decoder, in stored order.

    A tied checkpoint may store its output matrix again (Qwen1.5-0.5B, Qwen3-0.6B and Qwen3-1.7B
    do): that copy is dropped, and so are rotary frequencies, draft modules and, of Qwen3.5, the
    image encoder. Raises PackError (exit code 6) that names the first tensors which are missing,
    additional or of another shape.
    """
    # No more than there are, and some: a config that describes millions is not written out.
    expected = {
        spec.name: spec.shape for spec in islice(tensors(shape), len(stored) + _MORE_THAN_STORED)
    }
    kept = dict(stored)
    if shape.tied and _OUTPUT in kept and kept[_OUTPUT].shape == (shape.vocab, shape.hidden):
        del kept[_OUTPUT]
    kept = {name: tensor for name, tensor in kept.items() if not _BESIDE.fullmatch(name)}
    if shape.model_type in COMPOSITE_TYPES:
        kept = {name: tensor for name, tensor in kept.items() if not _ENCODER.fullmatch(name)}
    problems = []
    for name, size in expected.items():
        if name not in kept:
            problems.append(f"tensor {name!r} is missing")
        elif kept[name].shape != size:
            problems.append(
                f"tensor {name!r} in {kept[name].file.name} has the shape {list(kept[name].shape)} "
                f"instead of {list(size)}"
            )
    problems += [
        f"tensor {name!r} in {tensor.file.name} is not one of its own"
        for name, tensor in kept.items()
        if name not in expected
    ]
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise bad_input(
            f"The weights are not the ones that {config} describes: "
            f"{'; '.join(problems[:_NAMED])}{more}.",
            "Take config.json and the safetensors files from one and the same revision.",
        )
    return kept
