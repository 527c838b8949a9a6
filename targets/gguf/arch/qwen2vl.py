"""The text decoders of Qwen2-VL, Qwen2.5-VL and Qwen2.5-Omni: the second generation with positions
in three axes, time, height and width."""

from __future__ import annotations

import gguf

from packager.shape.speaking import BRACKETS
from packager.shape.write_config import mrope_section
from targets.gguf.arch.qwen2 import Qwen2


class Qwen2Vl(Qwen2):
    """llama.cpp requires the sections of the rotary embedding."""

    arch = "QWEN2VL"

    def new_name(self, name: str) -> str:
        """Some checkpoints put the decoder one level deeper."""
        return super().new_name(name.replace("language_model.", ""))

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The sections of the official checkpoints where config.json has none."""
        super().describe(writer)
        if self.mrope_section is None:
            writer.add_rope_dimension_sections([*mrope_section(self.shape), 0])


class Qwen25Omni(Qwen2Vl):
    """Its thinker, one level deeper, with other names for two tokens."""

    renamed_tokens = BRACKETS

    def new_name(self, name: str) -> str:
        """Talker and token2wav are no part of the decoder."""
        return super().new_name(name.removeprefix("thinker."))
