"""The control tokens of each Qwen generation, in the order of their ids.

Source: added_tokens_decoder of the tokenizer_config.json in Qwen/Qwen2-0.5B-Instruct,
Qwen/Qwen2.5-0.5B-Instruct and Qwen/Qwen3-0.6B. Qwen3.5 gets those of Qwen3, at the ids where its
config.json has the end of text and of turn. Qwen2.5-Omni's: its chat template, and the ids of its
configuration (configuration_qwen2_5_omni.py of transformers).
"""

from __future__ import annotations

from dataclasses import dataclass

from packager.checkpoint import tiktoken
from packager.shape import FIRST_GENERATION

_BASE_VOCABS = {248_320: 248_044, 151_936: 151_643}


def base_vocab(rows: int, control: int) -> int:
    """How many byte-level tokens stand below the first of `control` control tokens in an embedding
    of `rows` rows.

    151,643 in Qwen1.5 to Qwen3 and 248,044 in Qwen3.5, whose embeddings are padded; a small
    vocabulary is filled up.
    """
    return next((base for padded, base in _BASE_VOCABS.items() if rows >= padded), rows - control)


@dataclass(frozen=True, slots=True)
class ControlToken:
    """One added token; a `special` one is left out of decoded text."""

    text: str
    special: bool


_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VISION = (
    *(
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
    ),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_TOOLS_AND_CODE = (
    *("<tool_call>", "</tool_call>"),
    *(
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ),
)
_THINKING = ("<tool_response>", "</tool_response>", "<think>", "</think>")


def _tokens(special: tuple[str, ...], plain: tuple[str, ...] = ()) -> tuple[ControlToken, ...]:
    return tuple(ControlToken(text, True) for text in special) + tuple(
        ControlToken(text, False) for text in plain
    )


QWEN = _tokens(tiktoken.SPECIAL)
QWEN2 = _tokens(_CHAT)
QWEN2_VL = _tokens(_CHAT + _VISION)
QWEN2_AUDIO = _tokens((*_CHAT, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"))
"""Source: audio_token_index of configuration_qwen2_audio.py, and the names of
processing_qwen2_audio.py (transformers 5.5). The other tokens of its tokenizer are tasks of the
base model, which no prompt here writes."""
QWEN2_5 = _tokens(_CHAT + _VISION, _TOOLS_AND_CODE)
QWEN2_5_OMNI = _tokens(
    (
        *_CHAT,
        *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        *("<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
        *("<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>"),
    ),
    _TOOLS_AND_CODE,
)
QWEN3 = _tokens(_CHAT + _VISION, _TOOLS_AND_CODE + _THINKING)
QWEN3_ASR = (
    *QWEN3,
    *_tokens(("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"), ("<asr_text>",)),
)


def control_tokens(repo_id: str, model_type: str) -> tuple[ControlToken, ...]:
    """The control tokens of a text variant. Qwen2 and Qwen2.5 share a model_type, so the name
    decides between them."""
    if model_type == FIRST_GENERATION:
        return QWEN
    own = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI, "qwen3_asr": QWEN3_ASR}
    if model_type in own:
        return own[model_type]
    if model_type.startswith("qwen3") or ("QwQ-32B" in repo_id and "Preview" not in repo_id):
        return QWEN3
    if model_type == "qwen2_vl":
        return QWEN2_VL
    return QWEN2_5 if "Qwen2.5" in repo_id or "QwQ" in repo_id else QWEN2
