"""ONNX Runtime GenAI; the provider is what genai_config.json names."""

from __future__ import annotations

import json
from typing import Any
from unicodedata import normalize

import onnxruntime_genai

from packager import huge_pages
from packager.errors import usage

from .answers import OnToken
from .refused import Refused
from .settings import Settings

# Any: what the engine's own options take, numbers and flags.

_ALWAYS = "--adapter"
"""What the engine calls an adapter that every request is answered with."""


class Engine:
    """One model; one answer at a time."""

    def __init__(self, settings: Settings, unit: str) -> None:
        self._ends = settings.ends
        config = onnxruntime_genai.Config(str(settings.model))
        if settings.options:
            decoder = {"session_options": settings.options}
            config.overlay(json.dumps({"model": {"decoder": decoder}}))
        self._model = onnxruntime_genai.Model(config)
        huge_pages.gather()
        self._adapters = onnxruntime_genai.Adapters(self._model)
        for name, path in settings.choices.items():
            self._adapters.load(str(path), name)
        if len(settings.adapters) > 1:
            raise usage("ONNX Runtime adds one adapter at a time.", "Name one with --adapter.")
        self._chosen: str | None = None
        for path in settings.adapters:
            self._adapters.load(str(path), _ALWAYS)
            self._chosen = _ALWAYS
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        self._tokenizer.update_options(skip_special_tokens="false")

    def choose(self, adapter: str | None) -> None:
        """Answer with the adapter of that name from now on; None: with the model alone."""
        self._chosen = adapter

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, control tokens recognised, none added."""
        # The engine's tokenizer leaves Unicode's normal form out, which every Qwen asks for.
        return [int(number) for number in self._tokenizer.encode(normalize("NFC", text))]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; a character whose last bytes are missing ends in U+FFFD."""
        return str(self._tokenizer.decode(ids))

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
        options = onnxruntime_genai.GeneratorParams(self._model)
        temperature = sampling.get("temperature", 1.0)
        # Any: options of the engine, which has no type for them.
        search: dict[str, Any] = {"max_length": len(ids) + most, "do_sample": temperature > 0}
        if temperature > 0:
            search["temperature"] = temperature
            for name in ("top_k", "top_p"):
                if sampling.get(name):
                    search[name] = sampling[name]
            if sampling.get("seed"):
                search["random_seed"] = int(sampling["seed"])
        search["repetition_penalty"] = sampling.get("repetition_penalty", 1.0)
        options.set_search_options(**search)
        try:
            if schema is not None:
                options.set_guidance("json_schema", schema)
            generator = onnxruntime_genai.Generator(self._model, options)
        except RuntimeError as error:
            if schema is not None:
                raise Refused(
                    f"the engine does not accept this JSON schema: {json.loads(schema)}"
                ) from error
            raise
        if self._chosen is not None:
            generator.set_active_adapter(self._adapters, self._chosen)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in self._ends or not on_token(token):
                return
