"""The logits of an OpenVINO artifact: its graph compiled by openvino itself, as openvino-genai
hands out tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, at
from packager.session import LOGITS_BLOCK
from targets.openvino import adapter, hearing, seeing, sound_files
from targets.openvino.shared_core import shared_core
from targets.openvino.sound_decoder import VECTORS, answer_all


class Scorer:
    """One compiled graph; its cache is a state inside, emptied before every sequence."""

    _graph = "openvino_model.xml"
    _fed = frozenset({"input_ids", "attention_mask"})

    def __init__(self, artifact: Path, settings: JsonObject) -> None:
        properties: JsonDict = {"KV_CACHE_PRECISION": settings["kv"], **threads_of(settings)}
        model = self._model(artifact / self._graph, settings)
        compiled = shared_core().compile_model(model, "CPU", properties)
        self._names = {name for port in compiled.inputs for name in port.get_names()}
        if (
            not self._fed <= self._names
            or compiled.outputs[0].get_partial_shape().rank.get_length() != 3
        ):
            raise bad_input(
                f"The graph of {artifact} takes no token ids or gives no logits.", "Build it again."
            )
        self._request = compiled.create_infer_request()

    def _model(self, graph: Path, settings: JsonObject) -> Any:
        """What is compiled: the file, or the graph in it with adapters."""
        added = adapter.given(settings)
        if not added:
            return graph
        model = shared_core().read_model(graph)
        adapter.add(model, added)
        return model

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Blocks (tokens, vocabulary), each the engine's own until the next is asked for."""
        self._request.reset_state()
        for start in range(0, len(ids), LOGITS_BLOCK):
            piece = np.asarray([list(ids[start : start + LOGITS_BLOCK])], dtype=np.int64)
            yield self._answer(start, self._tokens(piece, start))

    def _tokens(self, piece: NDArray[np.int64], start: int) -> Mapping[str, Any]:
        """What the graph is fed for token ids (1, tokens) from a position on, besides masks."""
        end = start + piece.shape[1]
        return {
            "input_ids": piece,
            "position_ids": np.arange(start, end, dtype=np.int64)[None],
        }

    def _answer(self, start: int, given: Mapping[str, Any]) -> NDArray[np.float32]:
        count = given["position_ids"].shape[-1]
        masks = {
            "attention_mask": np.ones((1, start + count), dtype=np.int64),
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        fed = {name: value for name, value in {**given, **masks}.items() if name in self._names}
        self._request.infer(fed)
        logits = self._request.get_output_tensor(0).data
        if logits.shape[1] != count:
            raise bad_input(
                "The graph answers with the last token's logits only.", "Build it again."
            )
        rows: NDArray[np.float32] = logits[0]
        return rows


class SeeingScorer(Scorer):
    """The same of an artifact with a vision tower, whose decoder takes embeddings."""

    _graph = seeing.LANGUAGE
    _fed = frozenset({"inputs_embeds", "attention_mask", "position_ids"})

    def __init__(self, artifact: Path, settings: JsonObject) -> None:
        super().__init__(artifact, settings)
        table = shared_core().compile_model(
            artifact / seeing.EMBEDDINGS, "CPU", threads_of(settings)
        )
        self._table = table.create_infer_request()
        self._deep = 0
        if "deepstack_visual_embeds" in self._names:
            port = self._request.get_compiled_model().input("deepstack_visual_embeds")
            self._deep = port.get_partial_shape()[0].get_length()

    def embeddings(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(1, tokens, hidden) of token ids (1, tokens)."""
        self._table.infer({"input": ids})
        rows: NDArray[np.float32] = self._table.get_output_tensor(0).data.copy()
        return rows

    def _tokens(self, piece: NDArray[np.int64], start: int) -> Mapping[str, Any]:
        embeds = self.embeddings(piece)
        count, hidden = embeds.shape[1:]
        places = np.arange(start, start + count, dtype=np.int64)
        return {
            "inputs_embeds": embeds,
            "position_ids": np.broadcast_to(places, (3, 1, count)).copy(),
            "visual_pos_masks": np.zeros((1, 1), np.bool_),
            "deepstack_visual_embeds": np.zeros((self._deep, 1, hidden), np.float32),
        }

    def behind_picture(
        self, ids: Sequence[int], place: int, picture: NDArray[np.float32], grid: tuple[int, int]
    ) -> NDArray[np.float32]:
        """(tokens, vocabulary) of a prompt with one picture, its `place` the number of the token
        that stands for it in `ids`. `picture` (image tokens, hidden x (1 + layers of DeepStack)) is
        what the tower gives, `grid` its rows and columns; fed as openvino-genai feeds them."""
        (rows, columns), count = grid, len(picture)
        embeds = self.embeddings(np.asarray([list(ids)], np.int64))
        own, *deep = np.split(picture, 1 + self._deep, axis=1)
        embeds = np.concatenate([embeds[:, :place], own[None], embeds[:, place + 1 :]], 1)
        total = embeds.shape[1]
        places = np.empty((3, 1, total), np.int64)
        places[:, 0, :place] = np.arange(place)
        down, across = np.unravel_index(np.arange(count), (rows, columns))
        places[:, 0, place : place + count] = place + np.stack([np.zeros(count), down, across])
        behind = total - place - count
        places[:, 0, place + count :] = place + max(rows, columns) + np.arange(behind)
        mask = np.zeros((1, total), np.bool_)
        mask[0, place : place + count] = True
        self._request.reset_state()
        return self._answer(
            0,
            {
                "inputs_embeds": embeds,
                "position_ids": places,
                "visual_pos_masks": mask,
                "deepstack_visual_embeds": np.stack(deep) if deep else np.zeros((0, 1, 1)),
            },
        )


class HearingScorer(Scorer):
    """The same of an artifact that takes sound, whose decoder has a place for vectors of it."""

    _graph = hearing.DECODER
    _fed = frozenset({"input_ids", VECTORS})

    def __init__(self, artifact: Path, settings: JsonObject) -> None:
        self._width = sound_files.tower_in(artifact).out
        super().__init__(artifact, settings)

    def _model(self, graph: Path, settings: JsonObject) -> Any:
        model = shared_core().read_model(graph)
        answer_all(model)
        return model

    def _tokens(self, piece: NDArray[np.int64], start: int) -> Mapping[str, Any]:
        vectors = np.zeros((1, 1, self._width), np.float32)
        return {**super()._tokens(piece, start), VECTORS: vectors}


def threads_of(settings: JsonObject) -> JsonDict:
    """The property of the plug-in for the threads of a session's settings."""
    given = settings.get("threads")
    return {"INFERENCE_NUM_THREADS": at(settings, "threads", int)} if given else {}
