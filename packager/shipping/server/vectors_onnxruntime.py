"""ONNX Runtime for vectors and scores: all that makes them is in the graph."""

from __future__ import annotations

from typing import Any

import numpy
import onnxruntime
from tokenizers import Tokenizer

from .settings import Settings

# Any: arrays of numpy, whose types the graph says.


class Engine:
    """One model; one request at a time."""

    def __init__(self, settings: Settings, unit: str) -> None:
        self._special = settings.task == "embed"
        options = onnxruntime.SessionOptions()
        for name, value in settings.options.items():
            options.add_session_config_entry(name, value)
        self._session = onnxruntime.InferenceSession(
            str(settings.model / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(settings.model / "tokenizer.json"))
        self._tokenizer.no_truncation()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        self._tokenizer.no_padding()
        return len(self._tokenizer.encode(text, add_special_tokens=self._special).ids)

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, of length 1."""
        rows: list[list[float]] = self._computed("sentence_embedding", texts).tolist()
        return rows

    def scores(self, query: str, documents: list[str]) -> list[float]:
        """The probability of yes for each document."""
        logits = self._computed("score", [query + document for document in documents])
        numbers: list[float] = logits[:, 0].tolist()
        return numbers

    def _computed(self, name: str, texts: list[str]) -> Any:
        self._tokenizer.enable_padding(direction="right")
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=self._special)
        given = {
            "input_ids": numpy.array([text.ids for text in encodings], numpy.int64),
            "attention_mask": numpy.array([text.attention_mask for text in encodings], numpy.int64),
        }
        return self._session.run([name], given)[0]
