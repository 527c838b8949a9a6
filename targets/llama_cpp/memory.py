"""Resident bytes of a loaded model: weights and cache exactly, the rest from measured constants
(memory.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from packager.measure.speculation import WIDTHS
from packager.predict.memory import (
    Drafting,
    Footprint,
    kv_cache_bytes,
    logits_bytes,
    recurrent_state_bytes,
)
from packager.recipe import Recipe
from packager.shape import Shape
from packager.shape.audio import RATE, WINDOW_CHUNKS, AudioTower
from packager.shape.tower import MERGE, Tower
from targets.gguf.presets import projector_type
from targets.gguf.sizes import Sizes

_FILE = Path(__file__).with_name("memory.toml")
_FLOAT = 4

EMBEDDING_BATCH = 128
"""Tokens computed at once where vectors or scores are made: as fast as 512 on a processor, with a
quarter of the logits, which llama.cpp computes of all of them (src/models/qwen3.cpp)."""


@dataclass(frozen=True, slots=True)
class Constants:
    """memory.toml: its tables, and the tokens of a batch of a prompt."""

    batch: int
    compute: dict[str, float]
    overhead: dict[str, float]
    offload: dict[str, int]
    build: dict[str, int]
    tower: dict[str, float]
    audio: dict[str, float]


@cache
def constants() -> Constants:
    """memory.toml, checked."""
    return msgspec.convert(tomllib.loads(_FILE.read_text(encoding="utf-8")), Constants)


def footprint(shape: Shape, recipe: Recipe, sizes: Sizes, context: int) -> Footprint:
    """What stays resident while a full context is answered.

    The model is loaded without mapping the file: tensors that the CPU kernels repack then exist
    once, and the size does not depend on which instructions the processor has. Mapping would keep
    the file's pages beside the repacked copies.
    """
    if shape.task == "generate":
        compute = activations(shape, context) + _FLOAT * shape.vocab
    else:
        # The engine computes logits of every token of a batch even where they are not read, and
        # keeps a copy of them.
        batch = min(EMBEDDING_BATCH, context)
        compute = activations(shape, context, batch) + 2 * _FLOAT * batch * shape.vocab
    return Footprint(
        sizes.data - sizes.heads + tower_weights(shape, recipe),
        kv_cache_bytes(shape, padded_context(context), recipe.kv_bits),
        compute + tower_compute(shape),
        overhead(shape),
    )


def drafting(shape: Shape, recipe: Recipe, with_heads: Sizes, context: int, how: str) -> Drafting:
    """What a way of drafting takes beside the model: of a recurrent state one copy for each token
    that may be taken back, and the logits of every checked token. A draft model brings its
    vocabulary a second time. With heads also their weights, of which `with_heads` knows the size,
    the cache of their one layer, and a context of their own with its buffer and logits."""
    tokens = WIDTHS[-1] + 1
    checking = tokens * recurrent_state_bytes(shape) + logits_bytes(shape, tokens)
    if how == "draft":
        return Drafting(compute=_vocabulary(shape), checking=checking)
    if how != "mtp":
        return Drafting(checking=checking)
    cells = padded_context(context)
    cache = kv_cache_bytes(shape, cells, recipe.kv_bits) - recurrent_state_bytes(shape)
    return Drafting(
        with_heads.heads,
        cache // shape.attention_layers,
        activations(shape, context) + logits_bytes(shape),
        checking,
    )


def tower_weights(shape: Shape, recipe: Recipe) -> int:
    """Bytes of the vision tower or the audio encoder, which is read into memory and never mapped; 0
    without one."""
    found: Tower | AudioTower | None = shape.vision or shape.audio
    if found is None:
        return 0
    # Late: most models take text alone.
    from targets.gguf import tower

    return sum(tower.bytes_by_type(found, projector_type(recipe.weights)).values())


def tower_compute(shape: Shape) -> int:
    """What is kept for one picture of `image_tokens`: the tower's compute buffer, which stays after
    the first picture, the picture as floats, the embeddings that the decoder gets, and the library;
    likewise for sound of `audio_seconds`."""
    if shape.audio is not None:
        return _audio_compute(shape, shape.audio)
    vision, tokens = shape.vision, shape.image_tokens
    if vision is None:
        return 0
    known = constants().tower
    picture = known["bytes_per_pixel"] * tokens * vision.pixels_per_token**2 + known["engine_bytes"]
    return tower_buffer(shape) + int(picture) + _FLOAT * tokens * vision.embedding_width


def _audio_compute(shape: Shape, encoder: AudioTower) -> int:
    known, seconds = constants().audio, shape.audio_seconds
    tokens = encoder.tokens(seconds)
    sound = known["copies_of_the_samples"] * _FLOAT * RATE * (encoder.window or seconds)
    if encoder.window is not None:
        buffer = known["bytes_per_width_of_a_window"] * encoder.hidden
        return int(buffer + sound) + _FLOAT * tokens * encoder.out
    chunks = min(WINDOW_CHUNKS, seconds)
    buffer = chunks * known["bytes_per_channel_and_chunk"] * encoder.channels
    return int(buffer + sound) + _FLOAT * tokens * encoder.out


def tower_buffer(shape: Shape) -> int:
    """Bytes of the tower's compute buffer, linear in the patches but for the mask of Qwen2.5-VL's
    windows; 0 without a tower."""
    vision = shape.vision
    if vision is None:
        return 0
    known, patches = constants().tower, shape.image_tokens * MERGE * MERGE
    kind = "deepstack" if vision.deepstack else "plain"
    vectors = known[f"vectors_of_{'windows' if vision.full_attention else kind}"]
    buffer = _FLOAT * vectors * vision.hidden * patches
    if vision.full_attention:
        buffer += known["mask_bytes_of_windows"] * patches * patches
    return int(buffer)


def activations(shape: Shape, context: int, batch: int | None = None) -> int:
    """What stands between the layers while a batch of a prompt is computed (the engine's own size
    of one, unless given), and the attention mask."""
    known = constants()
    batch = min(known.batch, context) if batch is None else batch
    compute = known.compute
    per_token = compute["vectors_of_hidden"] * shape.hidden + compute[
        "vectors_of_feed_forward"
    ] * feed_forward(shape)
    return int(_FLOAT * batch * per_token + compute["mask_bytes"] * batch * context)


def overhead(shape: Shape) -> int:
    """The process itself, and the vocabulary in it."""
    return int(constants().overhead["engine_bytes"]) + _vocabulary(shape)


def _vocabulary(shape: Shape) -> int:
    return int(constants().overhead["bytes_per_token_of_vocabulary"] * shape.vocab)


def feed_forward(shape: Shape) -> int:
    """Width of the feed-forward part that one token goes through: of a mixture, the active experts
    together."""
    if shape.experts is None:
        return shape.intermediate
    return shape.experts.active * shape.experts.intermediate + (
        shape.experts.shared_intermediate or 0
    )


def padded_context(context: int) -> int:
    """Cells of the cache: llama.cpp rounds the context up to 256."""
    return -(-context // 256) * 256
