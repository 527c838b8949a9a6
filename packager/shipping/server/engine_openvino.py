"""OpenVINO GenAI, its cache allocated once for the whole context; what prompts have in common is
computed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import openvino
import openvino_genai

from packager import huge_pages

from .answers import OnToken
from .refused import Refused
from .settings import Settings


class Engine:
    """One model; one answer at a time."""

    def __init__(self, settings: Settings, unit: str) -> None:
        self._ends = settings.ends
        self._gathered = False
        scheduler = openvino_genai.SchedulerConfig()
        # What was computed with one adapter is wrong for another, and its cache tells none apart.
        scheduler.enable_prefix_caching = not settings.choices
        scheduler.num_kv_blocks = -(-settings.context // 32) + 1
        # Any: properties of the engine, which has no type for them.
        more: dict[str, Any] = {}
        if settings.adapters:
            added = [openvino_genai.Adapter(path) for path in settings.adapters]
            more["adapters"] = openvino_genai.AdapterConfig(added)
        self._choices = {
            name: openvino_genai.Adapter(path) for name, path in settings.choices.items()
        }
        self._chosen: str | None = None
        if self._choices:
            more["adapters"] = openvino_genai.AdapterConfig(list(self._choices.values()))
        self._pipeline = self._open(
            settings.model, unit, scheduler_config=scheduler, KV_CACHE_PRECISION=settings.kv, **more
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        own = self._pipeline.get_generation_config()
        if not self._ends:
            # An older package does not say: the artifact's own configuration does.
            self._ends = frozenset({*own.stop_token_ids, own.eos_token_id} - {-1})

    def _open(self, model: Path, unit: str, **properties: Any) -> Any:
        return openvino_genai.LLMPipeline(model, unit, **properties)

    def choose(self, adapter: str | None) -> None:
        """Answer with the adapter of that name from now on; None: with the model alone."""
        self._chosen = adapter

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, control tokens recognised, none added."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data
        return [int(number) for number in ids.reshape(-1)]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; a character whose last bytes are missing ends in U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def generate(
        self,
        ids: list[int],
        most: int,
        sampling: dict[str, float],
        schema: str | None,
        on_token: OnToken,
    ) -> None:
        """Call `on_token` with every token until it says False, the turn ends, or `most` have
        come."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = most
        if self._choices:
            one = [self._choices[self._chosen]] if self._chosen is not None else []
            config.adapters = openvino_genai.AdapterConfig(one)
        config.stop_token_ids = set(self._ends)
        temperature = sampling.get("temperature", 1.0)
        config.do_sample = temperature > 0
        if config.do_sample:
            config.temperature = temperature
            config.rng_seed = int(sampling.get("seed", 0)) or int.from_bytes(_random(), "little")
            for name, kind in (("top_k", int), ("top_p", float), ("min_p", float)):
                if sampling.get(name):
                    setattr(config, name, kind(sampling[name]))
        config.repetition_penalty = sampling.get("repetition_penalty", 1.0)
        if schema is not None:
            form = openvino_genai.StructuredOutputConfig(json_schema=schema)
            config.structured_output_config = form
        try:
            self._run(ids, config, _Streamer(on_token, self._ends))
            if not self._gathered:
                # The engine lays the weights out anew for the first answer.
                huge_pages.gather()
                self._gathered = True
        except RuntimeError as error:
            if schema is not None and ("chema" in str(error) or "rammar" in str(error)):
                raise Refused(
                    f"the engine does not accept this JSON schema: {json.loads(schema)}"
                ) from error
            raise

    def _run(self, ids: list[int], config: Any, streamer: Any) -> None:
        tensor = openvino.Tensor(numpy.asarray([ids], dtype=numpy.int64))
        self._pipeline.generate(tensor, config, streamer)


class _Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
    def __init__(self, on_token: OnToken, ends: frozenset[int]) -> None:
        super().__init__()
        self._on_token, self._ends = on_token, ends

    def write(self, token: Any) -> Any:
        """One token, or several where the engine held some back."""
        for number in [token] if isinstance(token, int) else token:
            if number not in self._ends and not self._on_token(number):
                return openvino_genai.StreamingStatus.CANCEL
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""


def _random() -> bytes:
    import os

    return os.urandom(4)
