"""OpenVINO GenAI's pipelines for vectors and scores."""

from __future__ import annotations

from typing import Any

import openvino_genai

from .settings import Settings


class Engine:
    """One model; one request at a time."""

    def __init__(self, settings: Settings, unit: str) -> None:
        self._special = settings.task == "embed"
        self._tokenizer = openvino_genai.Tokenizer(settings.model)
        self._pipeline: Any
        if settings.task == "embed":
            config = openvino_genai.TextEmbeddingPipeline.Config()
            config.pooling_type = openvino_genai.TextEmbeddingPipeline.PoolingType.LAST_TOKEN
            config.normalize = True
            self._pipeline = openvino_genai.TextEmbeddingPipeline(settings.model, unit, config)
        else:
            # The server itself says how many of a request's documents are told.
            self._pipeline = openvino_genai.TextRerankPipeline(
                settings.model, unit, top_n=1 << 20, max_length=settings.context
            )

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ids = self._tokenizer.encode(text, add_special_tokens=self._special).input_ids
        return int(ids.shape[1])

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, of length 1."""
        return [list(map(float, row)) for row in self._pipeline.embed_documents(texts)]

    def scores(self, query: str, documents: list[str]) -> list[float]:
        """The probability of yes for each document."""
        scores = dict(self._pipeline.rerank(query, documents))
        return [float(scores[number]) for number in range(len(documents))]
