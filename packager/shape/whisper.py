"""The audio encoder of Qwen2-Audio: that of Whisper large v3 with a mean over each two states, and
a projector of one matrix.

Sources: configuration_qwen2_audio.py and modeling_qwen2_audio.py of transformers 5.5, whose names
of tensors are those of the repositories; tools/mtmd/mtmd-audio.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Protocol

SECONDS = 30
"""Every sound is filled up with silence to so many seconds (chunk_length of the published
preprocessor_config.json). What is longer the published processor cuts off."""
FRAMES, STATES, TOKENS = 3000, 1500, 750
"""Of these seconds: frames of features, states of the encoder, and what the engine hands to the
decoder. The published model hands over only those of the sound itself, see `published_tokens`."""
PROJECTOR = "multi_modal_projector.linear"
MELS = 128

_SAMPLES = 161
"""Samples of 30 seconds that are not given to the engine: it takes a frame for each 160 samples and
one more, and begins another window of 30 seconds with the last but one."""


class Sizes(Protocol):
    """The widths of the encoder, see packager.shape.audio.AudioTower."""

    @property
    def hidden(self) -> int:
        """Width of a state."""

    @property
    def intermediate(self) -> int:
        """Width between the two matrices of a layer."""

    @property
    def depth(self) -> int:
        """Layers."""

    @property
    def heads(self) -> int:
        """Heads of a layer."""

    @property
    def out(self) -> int:
        """Width of a token."""


Named = tuple[str, tuple[int, ...]]


def most_samples(rate: int) -> int:
    """Samples of one window, at most."""
    return SECONDS * rate - _SAMPLES


def published_tokens(frames: int) -> int:
    """Tokens that the published processor makes of so many frames of sound
    (processing_qwen2_audio.py)."""
    return max(0, (published_states(frames) - 2) // 2 + 1)


def published_states(frames: int) -> int:
    """States of the encoder that see one another in the published model."""
    return (frames - 1) // 2 + 1


def tensors(tower: Sizes, prefix: str) -> Iterator[Named]:
    """Name and shape of every tensor; `prefix` stands before those of the encoder."""
    hidden = tower.hidden
    around: tuple[Named, ...] = (
        ("conv1.weight", (hidden, MELS, 3)),
        ("conv1.bias", (hidden,)),
        ("conv2.weight", (hidden, hidden, 3)),
        ("conv2.bias", (hidden,)),
        ("embed_positions.weight", (STATES, hidden)),
    )
    for name, size in around:
        yield prefix + name, size
    for layer in range(tower.depth):
        for name, size in _layer(tower):
            yield f"{prefix}layers.{layer}.{name}", size
    yield f"{prefix}layer_norm.weight", (hidden,)
    yield f"{prefix}layer_norm.bias", (hidden,)
    yield f"{PROJECTOR}.weight", (tower.out, hidden)
    yield f"{PROJECTOR}.bias", (tower.out,)


def _layer(tower: Sizes) -> Iterator[Named]:
    hidden, between = tower.hidden, tower.intermediate
    for part in ("k", "v", "q", "out"):
        yield f"self_attn.{part}_proj.weight", (hidden, hidden)
        if part != "k":
            yield f"self_attn.{part}_proj.bias", (hidden,)
    yield "self_attn_layer_norm.weight", (hidden,)
    yield "self_attn_layer_norm.bias", (hidden,)
    yield "fc1.weight", (between, hidden)
    yield "fc1.bias", (between,)
    yield "fc2.weight", (hidden, between)
    yield "fc2.bias", (hidden,)
    yield "final_layer_norm.weight", (hidden,)
    yield "final_layer_norm.bias", (hidden,)


def operations(tower: Sizes) -> float:
    """Operations for one sound, however short; a multiply-add counts as two."""
    hidden = tower.hidden
    stem = 3 * hidden * (FRAMES * MELS + STATES * hidden)
    layer = sum(prod(size) for _, size in _layer(tower)) + 2 * hidden * STATES
    return 2.0 * (stem + STATES * tower.depth * layer + TOKENS * hidden * tower.out)


# Any: the JSON of a config.json.
def config(tower: Sizes) -> dict[str, Any]:
    """The audio_config of an encoder."""
    return {
        "model_type": "qwen2_audio_encoder",
        "activation_dropout": 0.0,
        "activation_function": "gelu",
        "attention_dropout": 0.0,
        "d_model": tower.hidden,
        "dropout": 0.0,
        "encoder_attention_heads": tower.heads,
        "encoder_ffn_dim": tower.intermediate,
        "encoder_layerdrop": 0.0,
        "encoder_layers": tower.depth,
        "max_source_positions": STATES,
        "num_mel_bins": MELS,
        "scale_embedding": False,
    }
