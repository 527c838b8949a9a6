"""Models that write sound down: which are built, and the files of such an artifact, as ASRPipeline
of openvino-genai opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from packager.shape import Shape

DECODERS: Mapping[str, str] = {"qwen3_asr": "qwen3"}
"""The model types that are built with their audio encoder, and the text decoder that each has."""

NO_ADAPTER = "OpenVINO adds none to a model that takes sound"
"""Why such a package takes no adapter, as the end of a sentence."""

ENCODER = "openvino_encoder_model.xml"
"""Features of seconds of sound, input_features (seconds, 128, 100), to last_hidden_state (seconds,
13, width)."""
DECODER = "openvino_decoder_model.xml"
"""The decoder: input_ids (batch, tokens), encoder_hidden_states (1, tokens of sound, width) that
take the places of `PAD`, and beam_idx; it counts positions itself. Gives the logits behind the last
token."""

BEGIN, PAD, END = "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"
"""What stands in a prompt before a sound, for each of its tokens, and behind it."""


def decoder_of(shape: Shape) -> Shape:
    """The text decoder of a model that takes sound, as a text model. Raises KeyError for a model
    type that is not built."""
    return replace(shape.decoder, model_type=DECODERS[shape.model_type])
