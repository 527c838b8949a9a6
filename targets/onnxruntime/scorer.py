"""The logits of an ONNX artifact behind every token: its graph run by onnxruntime itself, without
the cut to the last token.

The model builder lets the output matrix see the last token of a run only. The graph is changed in
memory, its weights stay in their file, and onnxruntime-genai's own cache is replaced by feeding
every run what the one before left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
)

from packager.errors import PackError, bad_input
from packager.json_values import JsonObject, at, at_or_none, object_at
from packager.session import LOGITS_BLOCK
from targets.onnxruntime import adapter, providers
from targets.onnxruntime.options import session_options

_WEIGHTS = "session.model_external_initializers_file_folder_path"
_CUT = "/lm_head/prune/"
_ENGINE_ERRORS = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)


class Scorer:
    """One loaded graph, with the provider that it is made for: a graph for CUDA has operations
    that the CPU lacks.

    `config` is the artifact's genai_config.json. Raises PackError (bad input) for a graph that is
    not the model builder's.
    """

    def __init__(self, artifact: Path, settings: JsonObject, config: JsonObject) -> None:
        graph = uncut(artifact / "model.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_WEIGHTS, str(artifact.resolve()))
        for key, value in session_options().items():
            options.add_session_config_entry(key, value)
        if threads := at_or_none(settings, "threads", int):
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                graph.SerializeToString(), options, providers=providers.names(providers.of(config))
            )
        except _ENGINE_ERRORS as error:
            raise _refused(artifact, error) from error
        self._artifact = artifact
        self._options = onnxruntime.RunOptions()
        added = adapter.given(settings)
        if added is not None:
            # Kept: the options hold no reference to it.
            self._adapter = onnxruntime.LoraAdapter()
            self._adapter.Load(str(added))
            self._options.add_active_adapter(self._adapter)
        model = object_at(config, "model")
        self._vocabulary = at(model, "vocab_size", int)
        decoder = object_at(model, "decoder")
        heads, width = (at(decoder, key, int) for key in ("num_key_value_heads", "head_size"))
        self._cache_shape = (1, heads, 0, width)
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self._past = [name for name in self._inputs if name.startswith("past_key_values.")]
        self._outputs = [
            "logits",
            *(name.replace("past_key_values.", "present.") for name in self._past),
        ]

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Blocks (tokens, vocabulary)."""
        past = {name: self._empty(name) for name in self._past}
        for start in range(0, len(ids), LOGITS_BLOCK):
            piece = np.asarray([list(ids[start : start + LOGITS_BLOCK])], dtype=np.int64)
            end = start + piece.shape[1]
            given = {
                "input_ids": piece,
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(start, end, dtype=np.int64)[None],
            }
            fed = {name: given[name] for name in given if name in self._inputs} | past
            try:
                logits, *present = self._session.run(self._outputs, fed, self._options)
            except _ENGINE_ERRORS as error:
                raise _refused(self._artifact, error) from error
            past = dict(zip(self._past, present, strict=True))
            yield logits[0, :, : self._vocabulary].astype(np.float32, copy=False)

    def _empty(self, name: str) -> NDArray[Any]:
        return np.zeros(
            self._cache_shape,
            dtype=np.float16 if "float16" in self._inputs[name].type else np.float32,
        )


def _refused(artifact: Path, error: Exception) -> PackError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return bad_input(
        f"ONNX Runtime cannot compute {artifact}: {line}",
        "`qwen-pack verify` says whether a file is damaged; else choose another recipe.",
    )


def uncut(path: Path) -> onnx.ModelProto:
    """The graph of an artifact, without weights, whose logits belong to every token of a run and
    not to the last alone."""
    model = onnx.load(str(path), load_external_data=False)
    cut = [node for node in model.graph.node if node.name.startswith(_CUT)]
    gather = next((node for node in cut if node.op_type == "Gather"), None)
    if gather is not None:
        ends = {name for node in cut for name in node.output}
        for node in model.graph.node:
            if node not in cut:
                node.input[:] = [gather.input[0] if name in ends else name for name in node.input]
        for node in cut:
            model.graph.node.remove(node)
    logits = next((output for output in model.graph.output if output.name == "logits"), None)
    if logits is None:
        raise bad_input(f"{path} has no output of logits.", "Build the package again.")
    logits.type.tensor_type.shape.dim[1].Clear()
    logits.type.tensor_type.shape.dim[1].dim_param = "sequence_length"
    return model
