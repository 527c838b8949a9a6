"""Models that write sound down: which are built, and the files of such an artifact, as ASRPipeline
of openvino-genai opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.shape import Shape
from packager.shape.audio import AudioTower, audio_tower_of

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


def refuse_half(artifact: Path) -> None:
    """Raise PackError (bad input) where one of the two graphs is missing."""
    for name in (ENCODER, DECODER):
        if not (artifact / name).is_file():
            raise bad_input(f"{artifact} holds no {name}.", "Build the package again.")


def tower_in(artifact: Path) -> AudioTower:
    """The encoder that the artifact's config.json describes. Raises PackError (bad input), also for
    one whose windows the engine would cut otherwise."""
    path = artifact / "config.json"
    if not path.is_file():
        raise bad_input(f"{artifact} holds no config.json.", "Build the package again.")
    config = read_json(path)
    return audio_tower_of(config, Shape.from_config(config, str(path)), str(path))
