"""The two graphs of an artifact that takes sound, run by openvino as ASRPipeline of openvino-genai
runs them. That one writes its prompt itself and hands out texts; here a prompt is any tokens, and
every token of the answer is handed on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from packager.reference.audio import features
from packager.shape.audio import WINDOW_CHUNKS
from packager.sounds.silence import whole_seconds
from targets.openvino import hearing, sound_files
from targets.openvino.audio_graph import INPUT, features_of
from targets.openvino.choosing import Chooser
from targets.openvino.opening import opening
from targets.openvino.shared_core import shared_core
from targets.openvino.sound_decoder import VECTORS

_CACHE = "KV_CACHE_PRECISION"
_WHOLE = {"INFERENCE_PRECISION_HINT": "f32"}
"""Of the encoder: where a processor has bfloat16, the engine would compute in that, with 8 bits of
a number."""
_OF_PAGES = ("ATTENTION_BACKEND", "scheduler_config")
"""What pipelines with paged attention are told besides."""

# Any: the engine's own objects.


class SoundPipeline:
    """The decoder, and the encoder once the first sound comes. Has what `LLMPipeline` has of a
    tokenizer, a configuration and `generate`; raises what the engine raises."""

    def __init__(self, artifact: Path, device: str, **properties: Any) -> None:
        sound_files.refuse_half(artifact)
        sound_files.check(artifact)
        self._width = sound_files.tower_in(artifact).out
        self._artifact, self._device = artifact, device
        self._given = {name: value for name, value in properties.items() if name not in _OF_PAGES}
        self._tokenizer = openvino_genai.Tokenizer(artifact)
        self._decoder = self._opened(hearing.DECODER, self._given)
        self._encoder: Any = None

    def get_tokenizer(self) -> Any:
        """See LLMPipeline."""
        return self._tokenizer

    def get_generation_config(self) -> Any:
        """See LLMPipeline."""
        return openvino_genai.GenerationConfig(self._artifact / "generation_config.json")

    def open_encoder(self) -> None:
        """Load the encoder, where that was not done yet. Raises PackError (bad input)."""
        if self._encoder is None:
            own = {name: value for name, value in self._given.items() if name != _CACHE}
            own |= _WHOLE
            with opening(self._artifact):
                self._encoder = self._opened(hearing.ENCODER, own)

    def vectors(self, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """(tokens, width) of a sound with silence up to whole seconds, and the seconds that the
        encoder took."""
        self.open_encoder()
        given = features_of(features(whole_seconds(samples)))
        rows, taken = [], 0.0
        # A window of attention at once: the planes of its convolutions are what takes memory.
        for start in range(0, len(given), WINDOW_CHUNKS):
            began = time.perf_counter()
            self._encoder.infer({INPUT: given[start : start + WINDOW_CHUNKS]})
            taken += time.perf_counter() - began
            tokens = self._encoder.get_output_tensor(0).data
            rows.append(tokens.reshape(-1, tokens.shape[-1]).copy())
        return np.concatenate(rows), taken

    def generate(
        self,
        ids: openvino.Tensor,
        config: Any,
        streamer: Any,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        """Answer to ids (1, tokens), with vectors (tokens, width) in the places of `PAD`; every
        token goes to `streamer.write`, but for the one that ends the turn."""
        prompt = [int(number) for number in ids.data.reshape(-1)]
        ends = set() if config.ignore_eos else {*config.stop_token_ids, config.eos_token_id}
        chooser = Chooser(config, prompt)
        logits = self.begin(prompt, vectors)
        for number in range(config.max_new_tokens):
            token = chooser.next(logits)
            if token in ends:
                break
            if streamer.write(token) != openvino_genai.StreamingStatus.RUNNING:
                break
            if number + 1 < config.max_new_tokens:
                logits = self.follow(token)
        streamer.end()

    def begin(
        self, prompt: Sequence[int], vectors: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """(vocabulary,) of logits behind a prompt, from a cold cache."""
        if vectors is None:
            vectors = np.zeros((1, self._width), np.float32)
        self._decoder.reset_state()
        return self._computed(prompt, {VECTORS: vectors[None]})

    def follow(self, token: int) -> NDArray[np.float32]:
        """The same behind one more token."""
        return self._computed([token], {})

    def _computed(self, ids: Sequence[int], more: dict[str, Any]) -> NDArray[np.float32]:
        given = {"input_ids": np.asarray([list(ids)], np.int64), "beam_idx": np.zeros(1, np.int32)}
        self._decoder.infer({**given, **more})
        row: NDArray[np.float32] = self._decoder.get_output_tensor(0).data[0, -1]
        return row

    def _opened(self, name: str, properties: dict[str, Any]) -> Any:
        path = self._artifact / name
        return shared_core().compile_model(path, self._device, properties).create_infer_request()
