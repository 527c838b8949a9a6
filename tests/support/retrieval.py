"""Tiny embedders and rerankers of the true architecture, with the files that the published ones have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.make_checkpoint import tiny_shape, write_tiny
from training.retrieval import add_word as put_word

SHAPE = tiny_shape(
    "qwen3", layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, intermediate=512
)
END = "<|endoftext|>"


def edit(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def add_word(folder: Path, word: str) -> None:
    """Make `word` one token of the tokenizer in a folder."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    put_word(data, word)
    path.write_text(json.dumps(data), "utf-8")


def end_id(folder: Path) -> int:
    """The id of the end of text."""
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return next(entry["id"] for entry in data["added_tokens"] if entry["content"] == END)


def write_embedder(folder: Path, *, appends: bool = True, **writing: Any) -> Path:
    """A checkpoint as Qwen3-Embedding is published: end of text by the post-processor, files for
    Sentence Transformers, and a tokenizer_config.json that says nothing of it."""
    write_tiny(folder, shape=SHAPE, **writing)
    number = end_id(folder)
    if appends:
        piece = [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END, "type_id": 0}},
        ]
        special = {END: {"id": END, "ids": [number], "tokens": [END]}}
        template = {
            "type": "TemplateProcessing",
            "single": piece,
            "pair": [*piece, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special,
        }
        own = json.loads((folder / "tokenizer.json").read_text("utf-8"))["post_processor"]
        edit(
            folder / "tokenizer.json",
            post_processor={"type": "Sequence", "processors": [own, template]},
        )
    edit(folder / "tokenizer_config.json", add_eos_token=False)
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": SHAPE.hidden,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(
            (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
        )
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    prompt = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": prompt, "document": ""}})
    )
    return folder


def write_reranker(folder: Path, *, tied: bool = True, **writing: Any) -> Path:
    """A checkpoint as Qwen3-Reranker is published: a text generator in whose vocabulary yes and no
    are one token each."""
    from dataclasses import replace

    write_tiny(folder, shape=replace(SHAPE, tied=tied), **writing)
    for word in ("yes", "no"):
        add_word(folder, word)
    return folder


def built(folder: Path, out: Path, preset: str, task: str) -> Path:
    """The GGUF of such a checkpoint."""
    pytest.importorskip("llama_cpp")
    from targets.gguf.convert import convert

    convert(folder, out, preset, task=task)
    return out
