"""The checkpoint as the converter needs it: configuration, tensors, tokenizer, template, whatever
the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.checkpoint import TensorInfo, first_generation
from packager.checkpoint.agreement import (
    TEXT_TYPES,
    match,
    refuse_foreign_code,
    refuse_other_inputs,
    refuse_quantized,
)
from packager.checkpoint.folder import checkpoint_files, read_json
from packager.checkpoint.kinds import (
    check_config,
    check_generation_config,
    check_tokenizer_config,
)
from packager.checkpoint.shards import read_tensors
from packager.checkpoint.tokenizer import chat_template
from packager.errors import bad_input
from packager.shape import Shape


@dataclass(frozen=True)
class Source:
    """What is read of a checkpoint, without its weights."""

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    tokenizer_config: dict[str, Any]
    generation_config: dict[str, Any]
    chat_template: str | None

    @property
    def dtype(self) -> str:
        """The type most of the weights are stored in: BF16, F16 or F32."""
        weight: dict[str, int] = {}
        for info in self.tensors.values():
            if len(info.shape) > 1:
                weight[info.dtype] = weight.get(info.dtype, 0) + info.nbytes
        return max(weight, key=lambda dtype: weight[dtype], default="BF16")


def open_source(folder: Path) -> Source:
    """Read a checkpoint's descriptions. Raises PackError (bad input) naming the file.

    As Checkpoint.open, but for the tokenizer, which is read once, by `read_vocabulary`.
    """
    files = checkpoint_files(folder)
    if "config.json" not in files:
        raise bad_input(f"{folder} has no config.json.", "Name the folder of a checkpoint.")
    config = read_json(files["config.json"])
    tokenizer_config = (
        read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    )
    refuse_quantized(files["config.json"], config)
    check_config(files["config.json"], config)
    if tokenizer_config:
        check_tokenizer_config(files["tokenizer_config.json"], tokenizer_config)
    tensors: Mapping[str, TensorInfo] = read_tensors(folder, files)
    first = first_generation.text_only(config)
    refuse_other_inputs(str(files["config.json"]), config)
    if config.get("model_type") in TEXT_TYPES:
        refuse_foreign_code(files["config.json"], config, first=first)
        tensors = match(
            files["config.json"], Shape.from_config(config, str(files["config.json"])), tensors
        )
    generation = (
        read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    )
    if generation:
        check_generation_config(files["generation_config.json"], generation)
    template = chat_template(files, tokenizer_config) or (
        first_generation.chat_template(generation) if first else None
    )
    return Source(folder, config, tensors, tokenizer_config, generation, template)
