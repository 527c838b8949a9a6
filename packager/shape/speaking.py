"""Models that also speak (Qwen2.5-Omni): what is built of one, and why the rest is not."""

from __future__ import annotations

from collections.abc import Mapping

SPEAKING = ("qwen2_5_omni",)
"""Model types whose thinker is built: its text decoder and its vision tower."""

SPEECH = ("talker", "token2wav")
"""The parts of their checkpoints that make speech of the thinker's states."""

HEARD_WRONGLY: Mapping[str, str] = {
    "qwen2_5_omni": "llama.cpp computes the sound of Qwen2.5-Omni wrongly (on a tiny model its "
    "audio embeddings have cosines of 0.3 to 0.6 to those of transformers)",
}
"""Model types whose audio encoder is not built, with the reason."""
HEARS_WELL = "Qwen3-ASR-0.6B or Qwen3-ASR-1.7B"
"""What to take for sound."""

BRACKETS: Mapping[str, str] = {
    "<|vision_bos|>": "<|vision_start|>",
    "<|vision_eos|>": "<|vision_end|>",
}
"""The tokens around a picture in the vocabulary of Qwen2.5-Omni, and what those of the same ids are
called in Qwen2.5-VL's, which is what llama.cpp writes around every picture (tools/mtmd/mtmd.cpp):
it would take those names for plain text."""
