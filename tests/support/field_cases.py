"""Checkpoints as people have them: variations of the trained tiny Qwen3, each after a kind of
public report (docs/field.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import INDEX
from packager.shape import Shape, tensors
from tests.conftest import REPOSITORY
from tests.support.yardstick import Weights, safetensors

BASE = REPOSITORY / "tests" / "models" / "tiny-qwen3"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5777728\n"
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


class Field:
    """A checkpoint in memory: `weights`, `config`, and `files` by name (bytes; None removes
    one)."""

    def __init__(self) -> None:
        opened = Checkpoint.open(BASE)
        self.weights: Weights = {name: opened.array(name) for name in opened.tensors}
        self.config: dict[str, Any] = json.loads((BASE / "config.json").read_bytes())
        self.files: dict[str, bytes | None] = {}

    def save(self, folder: Path) -> Path:
        """Write it; `files` last."""
        folder.mkdir(parents=True)
        for path in BASE.iterdir():
            if path.name not in ("config.json", "model.safetensors"):
                shutil.copy(path, folder)
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "model.safetensors").write_bytes(safetensors(self.weights))
        for name, data in self.files.items():
            if data is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(data)
        return folder

    def rename(self, change: Callable[[str], str]) -> None:
        """Give every tensor another name."""
        self.weights = {change(name): values for name, values in self.weights.items()}

    def retype(self, kind: Any, which: Callable[[str], bool] = lambda name: True) -> None:
        """Store the chosen tensors in another type."""
        self.weights = {
            name: values.astype(kind) if which(name) else values
            for name, values in self.weights.items()
        }


Case = Callable[[Field], Any]


def _tied_diverged(field: Field) -> None:
    rows = np.arange(len(field.weights[EMBEDDING]))
    rows[300:340] = rows[300:340][::-1]
    field.weights[OUTPUT] = field.weights[EMBEDDING][rows]


def _head_alone(field: Field) -> None:
    field.weights[OUTPUT] = field.weights.pop(EMBEDDING)


def _yarn(**more: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, **more}


def _both_tables(field: Field) -> None:
    theta = field.config.pop("rope_theta")
    field.config |= {
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rope_scaling": _yarn(),
    }


def _index(field: Field, change: Callable[[dict[str, str]], Any]) -> None:
    """Everything in one shard with an index that `change` has been over."""
    shard = "model-00001-of-00001.safetensors"
    names = dict.fromkeys(field.weights, shard)
    change(names)
    field.files |= {
        shard: safetensors(field.weights),
        "model.safetensors": None,
        INDEX: json.dumps({"metadata": {}, "weight_map": names}).encode(),
    }


def _misses_tied_copy(field: Field) -> None:
    field.weights[OUTPUT] = field.weights[EMBEDDING]
    _index(field, lambda names: names.pop(OUTPUT))


def _stale_index(field: Field) -> None:
    names = dict.fromkeys(field.weights, "model-00001-of-00002.safetensors")
    field.files[INDEX] = json.dumps({"metadata": {}, "weight_map": names}).encode()


def odd_shards(field: Field) -> None:
    """Two shards with names of their own, and an index."""
    names = list(field.weights)
    shards = {
        f"model.safetensors-0000{number}-of-00002.safetensors": part
        for number, part in ((1, names[:20]), (2, names[20:]))
    }
    for shard, part in shards.items():
        field.files[shard] = safetensors({name: field.weights[name] for name in part})
    places = {name: shard for shard, part in shards.items() for name in part}
    field.files |= {
        "model.safetensors": None,
        INDEX: json.dumps({"metadata": {}, "weight_map": places}).encode(),
    }


def _vocabulary_cut(field: Field) -> None:
    tokenizer = json.loads((BASE / "tokenizer.json").read_bytes())
    rows = max(token["id"] for token in tokenizer["added_tokens"]) + 1
    field.weights[EMBEDDING] = field.weights[EMBEDDING][:rows]
    field.config["vocab_size"] = rows


def _another_shape(
    field: Field,
    heads: int,
    kv_heads: int,
    width: int,
    hidden: int,
    inner: int,
    amplify: float = 1.0,
) -> None:
    """A Qwen2 of two layers with weights by chance, speaking with the same tokens.

    `amplify` enlarges queries, keys and embedding. With 2 a mistake about positions costs 0.1 nats
    and the rounding of 16 bits 0.0002; with more, attention of noise turns rounding into answers.
    """
    random = np.random.default_rng(5)
    shape = Shape(
        "qwen2", hidden, 2, heads, kv_heads, width, inner, 2048, True, True, False, 2048, 10_000.0
    )
    ends = {key: field.config[key] for key in ("bos_token_id", "eos_token_id")}
    field.config = shape.to_config() | ends
    field.weights = {}
    for spec in tensors(shape):
        values = np.ones(spec.shape) if "norm" in spec.name else random.normal(0, 0.04, spec.shape)
        if spec.name == EMBEDDING or any(part in spec.name for part in ("q_proj", "k_proj")):
            values *= amplify
        field.weights[spec.name] = values.astype(ml_dtypes.bfloat16)


def _rows_of_896(field: Field) -> None:
    """The half-billion models' width, which no K block divides."""
    _another_shape(field, 14, 2, 64, 896, 1216)


def _true_yarn(rope: dict[str, Any]) -> Case:
    """True numbers of YaRN: heads of 128, base one million, 32,768 positions trained; its mistakes
    show in ordinary text."""

    def change(field: Field) -> None:
        _another_shape(field, 2, 1, 128, 256, 512, amplify=2.0)
        field.config.pop("rope_parameters")
        field.config |= {"max_position_embeddings": 32768, "rope_theta": 1e6, **rope}
        if "rope_parameters" in rope:
            del field.config["rope_theta"]

    return change


def _scaled(power: int) -> Case:
    """Values that only bfloat16 and float32 hold; what they are multiplied with takes it back."""

    def change(field: Field) -> None:
        for name, factor in (("up", 2.0**power), ("down", 2.0**-power)):
            key = f"model.layers.2.mlp.{name}_proj.weight"
            field.weights[key] = (field.weights[key].astype(np.float32) * factor).astype(
                ml_dtypes.bfloat16
            )

    return change


_ROPE_BUFFER = np.ones(32, np.float32)
_BNB = {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 512}
_LONG = {"rope_type": "longrope", "short_factor": [1.0 + 0.05 * pair for pair in range(32)]}
_LONG |= {
    "long_factor": [2.0 + pair for pair in range(32)],
    "original_max_position_embeddings": 512,
}

TAKEN: dict[str, Case] = {
    "as it is": lambda field: None,
    # Output matrices of tied checkpoints.
    "tied, yet different": _tied_diverged,
    "tied, stored again": lambda field: field.weights.update({OUTPUT: field.weights[EMBEDDING]}),
    "tied, stored again in 32 bits": lambda field: field.weights.update(
        {OUTPUT: field.weights[EMBEDDING].astype(np.float32)}
    ),
    "tied, head alone": _head_alone,
    # Stored types.
    "F32": lambda field: field.retype(np.float32),
    "F16": lambda field: field.retype(np.float16),
    "F64": lambda field: field.retype(np.float64),
    "norms F32": lambda field: field.retype(np.float32, lambda name: "norm" in name),
    "embedding F32": lambda field: field.retype(np.float32, lambda name: name == EMBEDDING),
    "layer 1 F32, last norm F64": lambda field: (
        field.retype(np.float32, lambda name: ".1." in name),
        field.retype(np.float64, lambda name: name == "model.norm.weight"),
    ),
    "values beyond float16": _scaled(18),
    "values far beyond float16": _scaled(24),
    "values below float16": _scaled(-24),
    "rows of 896": _rows_of_896,
    "rows of 896, F32": lambda field: (_rows_of_896(field), field.retype(np.float32)),
    "vocabulary cut": _vocabulary_cut,
    # Names.
    "no model. in front": lambda field: field.rename(lambda name: name.removeprefix("model.")),
    "model. once more": lambda field: field.rename(lambda name: f"model.{name}"),
    "inverse frequencies": lambda field: field.weights.update(
        {"model.rotary_emb.inv_freq": _ROPE_BUFFER}
    ),
    "inverse frequencies by layer": lambda field: field.weights.update(
        {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": _ROPE_BUFFER for layer in range(4)}
    ),
    "integer buffers": lambda field: field.weights.update(
        {"model.layers.0.self_attn.position_ids": np.arange(16)}
    ),
    "masks of attention": lambda field: field.weights.update(
        {
            "model.layers.0.self_attn.bias": np.ones((1, 1, 8, 8), bool),
            "model.layers.0.self_attn.masked_bias": np.array(-1e4, np.float32),
        }
    ),
    "ends beyond the vocabulary": lambda field: field.files.update(
        {"generation_config.json": b'{"eos_token_id": [2024, 151645], "bos_token_id": 151643}'}
    ),
    "a value head beside": lambda field: field.weights.update(
        {"v_head.summary.weight": np.ones((1, 256), np.float32)}
    ),
    "state of Transformer Engine": lambda field: field.weights.update(
        {
            "model.layers.1.self_attn.q_proj._extra_state": np.empty(0, np.uint8),
            "model.layers.1.mlp.up_proj._extra_state": np.ones(7, np.uint8),
        }
    ),
    "NaN in what is left out": lambda field: field.weights.update(
        {
            "v_head.summary.weight": np.full((1, 256), np.nan, np.float32),
            "model.layers.0.self_attn.rotary_emb.inv_freq": np.full(32, np.nan, np.float32),
        }
    ),
    "stale quantization_config": lambda field: field.config.update(quantization_config=_BNB),
    "stale quantization of MLX": lambda field: field.config.update(
        quantization={"bits": 4}, quantization_config={"bits": 4}
    ),
    # Indexes.
    "index names too much": lambda field: _index(
        field, lambda names: names.update({OUTPUT: "model-00001-of-00001.safetensors"})
    ),
    "index misses the tied copy": _misses_tied_copy,
    "index misses a norm": lambda field: _index(
        field, lambda names: names.pop("model.norm.weight")
    ),
    "index of shards that are gone": _stale_index,
    "odd names of shards": odd_shards,
    "files of other tools beside": lambda field: field.files.update(
        {
            "consolidated.safetensors": bytes(64),
            "._model.safetensors": b"\0\5\x16\7",
            ".DS_Store": b"\0",
        }
    ),
    # Positions and windows that act in no piece, or are computed everywhere.
    "rope_theta within": lambda field: field.config.update(
        rope_parameters={"rope_theta": field.config.pop("rope_theta")}
    ),
    "linear": lambda field: field.config.update(rope_scaling={"type": "linear", "factor": 2.0}),
    "dynamic": lambda field: field.config.update(rope_scaling={"type": "dynamic", "factor": 2.0}),
    "yarn": lambda field: field.config.update(rope_scaling=_yarn()),
    "yarn by type": lambda field: field.config.update(rope_scaling={**_yarn(), "type": "yarn"}),
    "yarn, attention_factor": lambda field: field.config.update(
        rope_scaling=_yarn(attention_factor=1.0)
    ),
    "yarn, mscale": lambda field: field.config.update(
        rope_scaling=_yarn(mscale=1.4, mscale_all_dim=0.7)
    ),
    "yarn, no original": lambda field: field.config.update(
        rope_scaling={"rope_type": "yarn", "factor": 4.0}
    ),
    "yarn beside rope_parameters": _both_tables,
    "plain, true numbers": _true_yarn({}),
    "yarn, true numbers": _true_yarn(
        {"rope_scaling": _yarn(original_max_position_embeddings=32768)}
    ),
    "yarn, true numbers, by type": _true_yarn(
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
    ),
    "yarn, true numbers, beside rope_parameters": _true_yarn(
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "rope_scaling": _yarn(original_max_position_embeddings=32768),
        }
    ),
    "yarn, keys that nobody reads": lambda field: field.config.update(
        rope_scaling=_yarn(finetuned=True, mrope_section=[8, 12, 12], extrapolation_factor=1.0),
        dual_chunk_attention_config={"chunk_size": 64},
    ),
    "torch_dtype auto": lambda field: field.config.update(torch_dtype="auto", dtype="auto"),
    "a window that is switched off": lambda field: field.config.update(
        use_sliding_window=False, sliding_window=64
    ),
    "a window alone": lambda field: (
        field.config.pop("use_sliding_window", None),
        field.config.update(sliding_window=64),
    ),
    "a window beyond the layers": lambda field: field.config.update(
        use_sliding_window=True, sliding_window=64, max_window_layers=28
    ),
    "a window that hides nothing": lambda field: field.config.update(
        use_sliding_window=True, sliding_window=1024, max_window_layers=0
    ),
}
"""What every engine builds, with the network that transformers loads."""

BY_SOME: dict[str, tuple[Case, frozenset[str]]] = {
    "llama3": (
        lambda field: field.config.update(rope_scaling=_LLAMA3),
        frozenset({"openvino", "onnxruntime"}),
    ),
    "longrope": (
        lambda field: field.config.update(rope_scaling=_LONG),
        frozenset({"openvino", "onnxruntime"}),
    ),
    "yarn, betas": (
        lambda field: field.config.update(rope_scaling=_yarn(beta_fast=8.0, beta_slow=0.5)),
        frozenset({"openvino", "onnxruntime"}),
    ),
    "sliding window": (
        lambda field: field.config.update(
            use_sliding_window=True, sliding_window=64, max_window_layers=0
        ),
        frozenset({"onnxruntime"}),
    ),
    "sliding window by layer": (
        lambda field: field.config.update(
            use_sliding_window=True,
            sliding_window=64,
            layer_types=["full_attention", "sliding_attention"] * 2,
        ),
        frozenset({"onnxruntime"}),
    ),
}
"""What the engines named here build, and the others refuse before they convert."""
