"""The checkpoint as the converter needs it: configuration, tensors, tokenizer, template, whatever the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint, TensorInfo
from packager.checkpoint.agreement import TEXT_TYPES, refuse_quantized
from packager.checkpoint.folder import checkpoint_files, read_json
from packager.checkpoint.shards import read_tensors
from packager.checkpoint.tokenizer import chat_template


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

    Text checkpoints from Qwen1.5 on go through Checkpoint, which compares every tensor with the configuration. For the
    first generation and the decoders of multimodal checkpoints the converter finds what is missing or has no place.
    """
    files = checkpoint_files(folder)
    config = read_json(files["config.json"]) if "config.json" in files else {}
    if not config or config.get("model_type") in TEXT_TYPES:
        checkpoint = Checkpoint.open(folder)
        return Source(
            folder,
            checkpoint.config,
            checkpoint.tensors,
            checkpoint.tokenizer_config,
            checkpoint.generation_config,
            checkpoint.chat_template,
        )
    refuse_quantized(files["config.json"], config)
    tokenizer_config = read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    generation = read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    return Source(folder, config, read_tensors(folder, files), tokenizer_config, generation, chat_template(files, tokenizer_config))
