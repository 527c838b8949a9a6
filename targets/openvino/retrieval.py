"""One embedder or reranker of OpenVINO: its graph compiled with the pooling that the artifact
names, as openvino-genai's pipelines compile it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from packager.checkpoint import retrieval_file
from packager.cores import cores
from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, at, at_or_none
from packager.measure.batches import groups, refuse_longer, side_by_side
from targets.openvino import pooled
from targets.openvino.shared_core import shared_core
from targets.openvino.skeleton import GRAPH

_CUT = 4
"""Tokens to which a text is cut that shows whether its end stays."""


class Session:
    """See packager.session.RetrievalSession."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        folder = Path(artifact)
        self.context = at(settings, "context", int)
        self.threads = at_or_none(settings, "threads", int) or cores().big
        self._head = retrieval_file.read(folder)
        try:
            self._tokenizer = openvino_genai.Tokenizer(folder)
            model = openvino.Core().read_model(folder / GRAPH)
            self._scores = pooled.LOGITS in model.outputs[0].get_names()
            if not self._scores:
                _pool(model, self._head)
            properties: JsonDict = {"INFERENCE_NUM_THREADS": self.threads}
            self._request: Any = (
                shared_core().compile_model(model, "CPU", properties).create_infer_request()
            )
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line and "src/" not in line]
            last = lines[-1].strip()[:300].rstrip(".") if lines else "no reason given"
            raise bad_input(
                f"OpenVINO cannot load {folder}: {last}.",
                "`qwen-pack verify` finds damaged files; or build it again.",
            ) from error

    def encode(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return self._ids(text, True)

    def plain(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return self._ids(text, False)

    def _ids(self, text: str, special: bool) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data
        return [int(number) for number in ids.reshape(-1)]

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See packager.session.RetrievalSession."""
        if self._scores:
            raise bad_input("The graph gives scores and no vectors.", "Build the package again.")
        return self._computed(batch)

    def score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """See packager.session.RetrievalSession: by the logistic function, as TextRerankPipeline
        has it."""
        if not self._scores:
            raise bad_input("The graph gives no scores.", "Build the package again.")
        logits = self._computed(batch)[:, 0].astype(np.float64)
        return [float(number) for number in 1 / (1 + np.exp(-logits))]

    def facts(self) -> JsonObject:
        """See packager.session.RetrievalSession."""
        more = self.encode("a")[len(self.plain("a")) :]
        padded = self._tokenizer.encode(["a", "a a a a"]).attention_mask.data
        # Its pipelines cut by the tokenizer, whatever stands behind a text.
        cut = self._tokenizer.encode("a a a a a a a a", max_length=_CUT).input_ids.data
        return {
            "pooling": self._head.pooling,
            "labels": list(self._head.labels),
            "template": self._head.template,
            "end": more[0] if more else None,
            "padding": "right" if padded[0, 0] else "left",
            "cut": int(cut.reshape(-1)[-1]),
        }

    def close(self) -> None:
        """See packager.session.RetrievalSession."""
        self._request = None

    def _computed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(texts, hidden) or (texts, 1), in the order of the texts."""
        refuse_longer(batch, self.context)
        rows: dict[int, NDArray[np.float32]] = {}
        for group in groups(batch):
            ids, mask = side_by_side([batch[number] for number in group])
            self._request.infer({"input_ids": ids, "attention_mask": mask})
            computed = self._request.get_output_tensor(0).data
            rows |= {number: np.array(row) for number, row in zip(group, computed, strict=True)}
        return np.array([rows[number] for number in range(len(batch))], np.float32)


def _pool(model: Any, head: retrieval_file.Head) -> None:
    """Put behind the graph what its application puts there."""
    mask = next(node for node in model.get_parameters() if node.get_friendly_name() != "input_ids")
    result = model.get_results()[0]
    pool = pooled.means if head.pooling == "mean" else pooled.last_states
    vectors = pool(result.input_value(0), mask.output(0))
    result.input(0).replace_source_output(pooled.unit(vectors) if head.normalize else vectors)
    model.validate_nodes_and_infer_types()
