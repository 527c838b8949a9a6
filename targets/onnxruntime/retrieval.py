"""One embedder or reranker of ONNX Runtime: its graph by onnxruntime itself, its tokenizer.json by
tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)
from tokenizers import Tokenizer

from packager.checkpoint import retrieval_file
from packager.cores import cores
from packager.errors import bad_input
from packager.foreign import bounded_bytes
from packager.json_values import JsonObject, at, at_or_none
from packager.limits import TEXT_BYTES
from packager.measure.batches import groups, refuse_longer, side_by_side
from targets.onnxruntime.options import session_options
from targets.onnxruntime.pooled import GRAPH, SCORES, VECTORS

_ENGINE_ERRORS = (
    *(Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented),
    RuntimeException,
)


class Session:
    """See packager.session.RetrievalSession."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        self._folder = folder = Path(artifact)
        self.context = at(settings, "context", int)
        self.threads = at_or_none(settings, "threads", int) or cores().big
        self._head = retrieval_file.read(folder)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        for key, value in session_options().items():
            options.add_session_config_entry(key, value)
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
            )
        except _ENGINE_ERRORS as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise bad_input(
                f"ONNX Runtime cannot load {folder}: {line}",
                "`qwen-pack verify` says which file is damaged.",
            ) from error
        self._output = self._session.get_outputs()[0].name
        try:
            data = bounded_bytes(folder / "tokenizer.json", TEXT_BYTES)
            self._tokenizer = Tokenizer.from_buffer(data)
        # The library raises Exception itself for what it cannot read.
        except Exception as error:
            raise bad_input(
                f"{folder / 'tokenizer.json'} is not a tokenizer.", "Build the package again."
            ) from error
        padding = self._tokenizer.padding
        self._side = str(padding["direction"]).lower() if padding else None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return list(self._tokenizer.encode(text).ids)

    def plain(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See packager.session.RetrievalSession."""
        return self._computed(batch, VECTORS)

    def score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """See packager.session.RetrievalSession."""
        return [float(row[0]) for row in self._computed(batch, SCORES)]

    def facts(self) -> JsonObject:
        """See packager.session.RetrievalSession."""
        more = self.encode("a")[len(self.plain("a")) :]
        return {
            "pooling": self._head.pooling,
            "labels": list(self._head.labels),
            "template": self._head.template,
            "end": more[0] if more else None,
            "padding": self._side,
        }

    def close(self) -> None:
        """See packager.session.RetrievalSession."""
        del self._session

    def _computed(self, batch: Sequence[Sequence[int]], name: str) -> NDArray[np.float32]:
        """(texts, hidden) or (texts, 1), in the order of the texts."""
        if self._output != name:
            raise bad_input(
                f"The graph of {self._folder} gives {self._output} and not {name}.",
                "Build the package again.",
            )
        refuse_longer(batch, self.context)
        rows: dict[int, NDArray[np.float32]] = {}
        for group in groups(batch):
            ids, mask = side_by_side([batch[number] for number in group])
            fed = {"input_ids": ids, "attention_mask": mask}
            (found,) = self._session.run([name], fed)
            rows |= dict(zip(group, found, strict=True))
        return np.array([rows[number] for number in range(len(batch))], np.float32)
