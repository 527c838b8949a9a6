"""Tokens drawn by llama.cpp's own samplers, with a grammar where the answer is to follow a JSON
schema."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from packager.errors import usage

_LAST = 64
"""Tokens of the answer that the repetition penalty looks back at: llama.cpp's own default."""


class Sampler:
    """Draws one answer. `sampling` has temperature (0 is greedy), top_k, top_p, min_p,
    repetition_penalty and seed, each of which may be missing."""

    def __init__(
        self, lib: Any, vocab: Any, sampling: Mapping[str, float], schema: str | None = None
    ) -> None:
        """Raises PackError (usage) for a schema that no grammar can be made of."""
        self._lib = lib
        grammar = _grammar(lib, vocab, schema) if schema is not None else None
        params = lib.llama_sampler_chain_default_params()
        self._chain = lib.llama_sampler_chain_init(params)
        penalty = sampling.get("repetition_penalty", 1.0)
        temperature = sampling.get("temperature", 1.0)
        steps = [grammar] if grammar else []
        if penalty != 1.0:
            count = lib.llama_vocab_n_tokens(vocab)
            steps.append(lib.llama_sampler_init_penalties(count, _LAST, penalty, 0.0, 0.0))
        steps += _random(lib, sampling, temperature) if temperature > 0 else _greedy(lib)
        for step in steps:
            lib.llama_sampler_chain_add(self._chain, step)

    def next(self, context: Any, row: int = -1) -> int:
        """The token after one of those that were computed last, counted from 0; after the last of
        them unless said otherwise."""
        return int(self._lib.llama_sampler_sample(self._chain, context, row))

    def close(self) -> None:
        """Free it."""
        self._lib.llama_sampler_free(self._chain)


def _greedy(lib: Any) -> list[Any]:
    return [lib.llama_sampler_init_greedy()]


def _random(lib: Any, sampling: Mapping[str, float], temperature: float) -> list[Any]:
    """In the order of llama.cpp's tools."""
    steps = []
    if sampling.get("top_k"):
        steps.append(lib.llama_sampler_init_top_k(int(sampling["top_k"])))
    if sampling.get("top_p"):
        steps.append(lib.llama_sampler_init_top_p(sampling["top_p"], 1))
    if sampling.get("min_p"):
        steps.append(lib.llama_sampler_init_min_p(sampling["min_p"], 1))
    seed = int(sampling.get("seed", 0)) or int.from_bytes(os.urandom(4), "little")
    return [*steps, lib.llama_sampler_init_temp(temperature), lib.llama_sampler_init_dist(seed)]


def _grammar(lib: Any, vocab: Any, schema: str) -> Any:
    # Late: it comes with the engine.
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        text = json_schema_to_gbnf(schema).encode()
    except Exception:  # its converter raises whatever it stumbles over
        text = b""
    grammar = lib.llama_sampler_init_grammar(vocab, text, b"root") if text else None
    if not grammar:
        raise usage(
            f"The engine does not accept this JSON schema: {schema[:200]}.", "Make it simpler."
        )
    return grammar
