"""Fit the draft module for multi-token prediction of a small hybrid checkpoint: by least squares,
from what the model says itself.

Its layer adds nothing (attention and feed-forward end in zeros), so that the module is one matrix:
from the hidden state and the embedding of the token that was said to the hidden state behind that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.shape import heads
from targets.llama_cpp.session import Session

_RIDGE = 1e-4
_LOUD = 1.0
"""How large the numbers of an embedding are, against about a tenth that a random layer adds."""


def states(model: Path, prompts: list[list[int]], tokens: int) -> tuple[Any, Any]:
    """Answers of a GGUF to the prompts: token ids (prompts, length), and the hidden state that each
    token left (prompts, length, width)."""
    from llama_cpp import llama_cpp_ext

    length = len(prompts[0]) + tokens
    session = Session(str(model), {"context": length, "kv": "f16", "threads": 1})
    lib, _, context = session.handles()
    width = lib.llama_model_n_embd_out(session._model)
    ids, seen = [], []
    try:
        for prompt in prompts:
            answer = session.generate(prompt, tokens, lambda _: None, stop=False)
            llama_cpp_ext.llama_set_embeddings_nextn(context, True, False)
            session.keep_until(0)
            session.feed_at([*prompt, *answer], 0)
            rows = llama_cpp_ext.llama_get_embeddings_nextn(context)
            seen.append(np.ctypeslib.as_array(rows, (length, width)).copy())
            llama_cpp_ext.llama_set_embeddings_nextn(context, False, False)
            ids.append([*prompt, *answer])
    finally:
        session.close()
    return np.array(ids), np.array(seen)


def fit(folder: Path, model: Path, prompts: list[list[int]], tokens: int) -> None:
    """Add the module to model.safetensors of the checkpoint in `folder`, whose GGUF is `model`."""
    source = Checkpoint.open(folder)
    ids, seen = states(model, prompts, tokens)
    embedding = source.array(next(name for name in source.tensors if "embed_tokens" in name))
    norm = source.array(next(name for name in source.tensors if name.endswith("model.norm.weight")))
    # (h_p, x_p+1) -> h_p+1 before the decoder's last norm, which the module takes over.
    said = np.asarray(embedding, np.float64)[ids[:, 1:]].reshape(-1, embedding.shape[1])
    before = seen[:, :-1].reshape(said.shape).astype(np.float64)
    after = seen[:, 1:].reshape(said.shape) / (1 + np.asarray(norm, np.float64))
    inputs = np.concatenate([_normed(said), _normed(before)], axis=1)
    square = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    matrix = np.linalg.solve(square, inputs.T @ after).T
    tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in heads.tensors(source.shape)}
    tensors["mtp.fc.weight"] = matrix.astype(np.float32)
    # Norms are kept as their distance from one.
    tensors["mtp.norm.weight"] = np.asarray(norm, np.float32)
    path = folder / "model.safetensors"
    stored = load_file(path)
    save_file({**stored, **tensors}, path, metadata={"format": "pt"})


def _normed(rows: Any) -> Any:
    return rows / np.sqrt(np.mean(rows**2, axis=-1, keepdims=True) + 1e-6)


def sharpen(folder: Path, seed: int = 0) -> None:
    """Make a random checkpoint one that says something: after each token one other above all, with
    what its layers add on top."""
    path = folder / "model.safetensors"
    stored = dict(load_file(path))
    embedding = next(name for name in stored if name.endswith("embed_tokens.weight"))
    rows = np.asarray(stored[embedding], np.float32)
    rows *= _LOUD / np.sqrt(np.mean(rows**2))
    follows = np.random.default_rng(seed).permutation(len(rows))
    output = np.zeros_like(rows)
    output[follows] = rows
    stored |= {embedding: rows, "lm_head.weight": output}
    save_file(stored, path, metadata={"format": "pt"})
