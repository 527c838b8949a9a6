"""The text decoder of Qwen3-VL: the third generation with positions in three axes, whose first
layers take states of the vision tower (DeepStack)."""

from __future__ import annotations

import gguf

from packager.shape.tower import describes_tower, tower_of
from packager.shape.write_config import mrope_section
from targets.gguf.arch.base import Architecture
from targets.gguf.arch.qwen3 import Qwen3
from targets.gguf.arch.qwen3moe import Qwen3Moe


class _TakesStates(Architecture):
    """llama.cpp requires the sections of the rotary embedding, and reads how many layers take
    states."""

    def new_name(self, name: str) -> str:
        """The decoder is one level deeper."""
        return super().new_name(name.replace("language_model.", ""))

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """How wide the embedding of an image token is follows from the tower."""
        super().describe(writer)
        if self.mrope_section is None:
            writer.add_rope_dimension_sections([*mrope_section(self.shape), 0])
        layers = 0
        if describes_tower(self.whole):
            layers = len(tower_of(self.whole, self.shape, "config.json").deepstack)
        writer.add_num_deepstack_layers(layers)


class Qwen3Vl(_TakesStates, Qwen3):
    """The dense models."""

    arch = "QWEN3VL"


class Qwen3VlMoe(_TakesStates, Qwen3Moe):
    """Qwen3-VL-30B-A3B and 235B-A22B, whose experts are stored transposed."""

    arch = "QWEN3VLMOE"
    transposed = True
