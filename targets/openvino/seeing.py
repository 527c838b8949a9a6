"""Models that take pictures: which are built, and the files of such an artifact, as VLMPipeline of
openvino-genai opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from packager.shape import Shape
from packager.shape.tower import Tower

DECODERS: Mapping[str, str] = {"qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3"}
"""The model types that are built with their vision tower, and the text decoder that each has."""

NO_ADAPTER = "OpenVINO adds none to a model that takes pictures, llama.cpp does"
"""Why such a package takes no adapter, as the end of a sentence."""

LANGUAGE = "openvino_language_model.xml"
"""The decoder, which takes embeddings: inputs_embeds (batch, tokens, hidden), position_ids (3,
batch, tokens), attention_mask, beam_idx; with DeepStack visual_pos_masks (batch, tokens) and
deepstack_visual_embeds (layers, image tokens, hidden)."""
EMBEDDINGS = "openvino_text_embeddings_model.xml"
"""Token ids to embeddings."""
PATCHES = "openvino_vision_embeddings_model.xml"
"""Patches (patches, 3 x 2 x side x side) to the tower's width. The engine puts what resizes and
normalizes a picture in front of it."""
MERGER = "openvino_vision_embeddings_merger_model.xml"
"""The layers of the tower and what makes image tokens of patches."""
POSITIONS = "openvino_vision_embeddings_pos_model.xml"
"""Learned positions, looked up: (4, patches) to (4, patches, width)."""

OWN_PLACES = (
    *("<ov_genai_image_", "<ov_genai_video_"),
    "<|vision_start|><|video_pad|><|vision_end|>",
)
"""What the engine takes for the place of a picture or a video in a prompt, besides what a template
writes for a picture."""


def decoder_of(shape: Shape) -> Shape:
    """The text decoder of a model that takes pictures, as a text model. Raises KeyError for a model
    type that is not built."""
    return replace(shape.decoder, model_type=DECODERS[shape.model_type])


def graphs_of(tower: Tower) -> tuple[str, ...]:
    """The files of the tower's graphs."""
    return (PATCHES, MERGER, *((POSITIONS,) if tower.positions else ()))
