"""The logits of an OpenVINO artifact: its graph compiled by openvino itself, as openvino-genai
hands out tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, at
from packager.session import LOGITS_BLOCK
from targets.openvino import adapter


class Scorer:
    """One compiled graph; its cache is a state inside, emptied before every sequence."""

    def __init__(self, artifact: Path, settings: JsonObject) -> None:
        properties: JsonDict = {"KV_CACHE_PRECISION": settings["kv"]}
        if settings.get("threads"):
            properties["INFERENCE_NUM_THREADS"] = at(settings, "threads", int)
        core = openvino.Core()
        model: Any = artifact / "openvino_model.xml"
        added = adapter.given(settings)
        if added:
            model = core.read_model(model)
            adapter.add(model, added)
        compiled = core.compile_model(model, "CPU", properties)
        self._names = {name for port in compiled.inputs for name in port.get_names()}
        if (
            not {"input_ids", "attention_mask"} <= self._names
            or compiled.outputs[0].get_partial_shape().rank.get_length() != 3
        ):
            raise bad_input(
                f"The graph of {artifact} takes no token ids or gives no logits.", "Build it again."
            )
        self._request = compiled.create_infer_request()

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Blocks (tokens, vocabulary), each the engine's own until the next is asked for."""
        self._request.reset_state()
        for start in range(0, len(ids), LOGITS_BLOCK):
            piece = np.asarray([list(ids[start : start + LOGITS_BLOCK])], dtype=np.int64)
            end = start + piece.shape[1]
            given = {
                "input_ids": piece,
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(start, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            }
            self._request.infer(
                {name: value for name, value in given.items() if name in self._names}
            )
            logits = self._request.get_output_tensor(0).data
            if logits.shape[1] != piece.shape[1]:
                raise bad_input(
                    "The graph answers with the last token's logits only.", "Build it again."
                )
            yield logits[0]
