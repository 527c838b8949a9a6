"""The text decoder of Qwen3-ASR: that of Qwen3 with positions in three axes, as Qwen3-VL's without
states of a vision tower."""

from __future__ import annotations

import gguf

from packager.shape.write_config import mrope_section
from targets.gguf.arch.qwen3 import Qwen3


class Qwen3Asr(Qwen3):
    """llama.cpp knows it as Qwen3-VL."""

    arch = "QWEN3VL"

    def new_name(self, name: str) -> str:
        """The decoder is one level deeper."""
        return super().new_name(name.removeprefix("thinker."))

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """An audio token is as wide as a state: nothing goes into further layers."""
        super().describe(writer)
        if self.mrope_section is None:
            writer.add_rope_dimension_sections([*mrope_section(self.shape), 0])
        writer.add_num_deepstack_layers(0)
