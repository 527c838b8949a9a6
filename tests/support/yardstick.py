"""A grid of tiny checkpoints over all that a config.json and its tensors can say, and what
transformers makes of one.

Every generation meets every kind of positions and every way to tie; windows, stored types, and
further switches take turns so that each of them meets each generation. `grid()` is the same in
every run.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from packager.checkpoint.byte_level_bpe import tokenizer_config, tokenizer_json
from packager.checkpoint.control_tokens import QWEN2_5
from packager.shape import Experts, Hybrid, Shape
from packager.shape.names import NAMINGS
from packager.shape.tensors import tensors

Weights = dict[str, np.ndarray[Any, Any]]

CONTEXT, ORIGINAL, VOCABULARY, WINDOW = 64, 32, 512, 8
LENGTHS = (20, 90)
"""Within every original context, and beyond every context and window."""


def _shape(model_type: str, number: int) -> Shape:
    """Odd numbers have widths that transformers computes and llama.cpp has no graph or kernel
    for."""
    decoder, odd = NAMINGS[model_type].decoder, number % 2 == 1
    experts = hybrid = None
    if decoder.endswith(("_moe", "_next")):
        shared = None if decoder == "qwen3_moe" else 40
        experts = Experts(4, 2, 24, shared_intermediate=shared, norm_topk=decoder != "qwen2_moe")
    if decoder in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
        key, value = (8, 12) if odd else (64, 64)
        hybrid = Hybrid(2, 2, 4, key_head_dim=key, value_head_dim=value, conv_kernel=4)
    second, width = decoder.startswith("qwen2"), 16
    if not odd and second:
        width = 8
    elif not odd and hybrid is not None:
        width = 64
    return Shape(
        model_type,
        hidden=32,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=width,
        intermediate=0 if decoder == "qwen3_5_moe" else 48,
        vocab=VOCABULARY,
        tied=False,
        qkv_bias=second,
        qk_norm=not second,
        context=CONTEXT,
        rope_theta=10_000.0,
        experts=experts,
        hybrid=hybrid,
    )


GENERATIONS = (
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_5",
    "qwen3_5_moe",
)
TIES = ("tied", "untied", "tied, yet different")

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}


def _long(width: int, **more: Any) -> dict[str, Any]:
    short = [1.0 + 0.02 * pair for pair in range(width // 2)]
    long = [1.5 + 0.7 * pair for pair in range(width // 2)]
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": ORIGINAL,
        **more,
    }


POSITIONS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "plain": lambda width: {"rope_theta": 10_000.0},
    "linear": lambda width: {
        "rope_theta": 5_000.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "dynamic": lambda width: {
        "rope_theta": 10_000.0,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
    },
    "yarn by type": lambda width: {
        "rope_theta": 10_000.0,
        "rope_scaling": {**_YARN, "type": "yarn", "rope_type": None},
    },
    "yarn": lambda width: {"rope_theta": 500.0, "rope_scaling": _YARN},
    "yarn, attention_factor": lambda width: {
        "rope_theta": 10_000.0,
        "rope_scaling": {**_YARN, "attention_factor": 1.3},
    },
    "yarn, betas": lambda width: {
        "rope_theta": 100.0,
        "rope_scaling": {**_YARN, "beta_fast": 2.0, "beta_slow": 0.5, "truncate": False},
    },
    "yarn, mscale": lambda width: {
        "rope_theta": 10_000.0,
        "rope_scaling": {**_YARN, "mscale": 1.5, "mscale_all_dim": 0.6},
    },
    "yarn, original beside": lambda width: {
        "rope_theta": 200.0,
        "original_max_position_embeddings": 16,
        "rope_scaling": {**_YARN, "original_max_position_embeddings": 60},
    },
    "yarn, no original": lambda width: {
        "rope_theta": 200.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 3.0},
    },
    "yarn in rope_parameters": lambda width: {"rope_parameters": {**_YARN, "rope_theta": 300.0}},
    "both tables": lambda width: {
        "rope_parameters": {"rope_type": "default", "rope_theta": 77.0},
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    },
    "both tables, one empty": lambda width: {
        "rope_scaling": {},
        "rope_parameters": {**_YARN, "rope_theta": 300.0},
    },
    "two thetas": lambda width: {
        "rope_theta": 50.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0},
    },
    "llama3": lambda width: {
        "rope_theta": 1_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    },
    "longrope": lambda width: {"rope_theta": 1_000.0, "rope_scaling": _long(width)},
    "longrope, factors": lambda width: {
        "rope_theta": 1_000.0,
        "rope_scaling": _long(width, factor=3.0, attention_factor=1.1),
    },
}

WINDOWS: Mapping[str, dict[str, Any]] = {
    "none": {},
    "by max_window_layers": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "by layer_types": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "layer_types": [
            "sliding_attention",
            "full_attention",
            "full_attention",
            "sliding_attention",
        ],
    },
    "switched off": {"use_sliding_window": False, "sliding_window": WINDOW, "max_window_layers": 0},
}

DTYPES: Mapping[str, Callable[[str], str]] = {
    "F32": lambda name: "F32",
    "BF16": lambda name: "BF16",
    "F16": lambda name: "F16",
    "F64": lambda name: "F64",
    "BF16, norms F32": lambda name: "F32" if "norm" in name else "BF16",
    "F16, layer 1 F32, last norm F64": lambda name: (
        "F32" if ".1." in name else "F64" if name.endswith("model.norm.weight") else "F16"
    ),
    "BF16, embedding F32": lambda name: "F32" if "embed" in name else "BF16",
}
_NUMPY = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16, "F64": np.float64}


@dataclass(frozen=True)
class Case:
    """One point of the grid; `number` also seeds its weights."""

    number: int
    generation: str
    positions: str
    tie: str
    window: str
    dtype: str

    def __str__(self) -> str:
        return (
            f"{self.number}: {self.generation}, {self.positions}, {self.tie}, window "
            f"{self.window}, {self.dtype}"
        )

    @property
    def shape(self) -> Shape:
        """The decoder's shape as config.json describes it."""
        return _shape(self.generation, self.number)

    def config(self) -> dict[str, Any]:
        """The whole config.json."""
        shape = _shape(self.generation, self.number)
        config = shape.to_config()
        table = config
        for key in NAMINGS[self.generation].config:
            table = table[key]
        for key in ("rope_theta", "rope_parameters", "rope_scaling"):
            table.pop(key, None)
        width = shape.head_dim // 4 if shape.hybrid else shape.head_dim
        table.update(POSITIONS[self.positions](width))
        if shape.hybrid is None:
            table.update(WINDOWS[self.window])
        if self.generation == "qwen2_moe":
            table["qkv_bias"] = self.number % 2 == 0
            table["norm_topk_prob"] = self.number % 3 == 0
        config["tie_word_embeddings"] = table["tie_word_embeddings"] = self.tie != "untied"
        # Else a composite model is computed in the type that its inner table names.
        config["torch_dtype"] = table["torch_dtype"] = "float32"
        return _without_nulls(config)

    def weights(self) -> Weights:
        """Tensors by official name; the logits that come of them are large, and norms differ from
        one."""
        random = np.random.default_rng(self.number)
        shape = Shape.from_config(self.config(), "config.json")
        found: Weights = {}
        for spec in tensors(shape):
            vector = len(spec.shape) == 1
            values = random.normal(
                1.0 if "norm" in spec.name else 0.0, 0.2 if vector else 0.15, spec.shape
            )
            found[spec.name] = values.astype(_NUMPY[DTYPES[self.dtype](spec.name)])
        if self.tie == "tied, yet different":
            embedding = next(name for name in found if "embed_tokens" in name)
            found["lm_head.weight"] = np.roll(found[embedding], 7, axis=0)
        elif self.tie == "tied" and self.number % 2:
            found["lm_head.weight"] = found[next(name for name in found if "embed_tokens" in name)]
        return found

    def ids(self) -> list[list[int]]:
        """A short and a long sequence of token ids."""
        random = np.random.default_rng(1000 + self.number)
        return [random.integers(0, 256, length).tolist() for length in LENGTHS]

    def write(self, folder: Path) -> Path:
        """The checkpoint, tokenizer included."""
        return write(folder, self.config(), self.weights())


def grid() -> Iterator[Case]:
    """All points."""
    windows, dtypes = itertools.cycle(WINDOWS), itertools.cycle(DTYPES)
    points = itertools.product(GENERATIONS, POSITIONS, TIES)
    for number, (generation, positions, tie) in enumerate(points):
        # One more step every so often: else a kind of positions would meet one window for ever.
        if number % 12 == 0:
            next(windows)
        yield Case(number, generation, positions, tie, next(windows), next(dtypes))


def write(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    """A checkpoint of these tensors and this config.json, with a tokenizer that has as many tokens
    as the smallest embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    for name, data in _tokenizer().items():
        (folder / name).write_bytes(data)
    return folder


def safetensors(weights: Weights) -> bytes:
    """A file with these arrays: the library's numpy side does not know bfloat16 of ml_dtypes in
    every version."""
    names = {np.dtype(kind): name for name, kind in _NUMPY.items()}
    names |= {
        np.dtype(kind): name
        for kind, name in (
            (np.int64, "I64"),
            (np.int32, "I32"),
            (np.int8, "I8"),
            (np.uint8, "U8"),
            (np.bool_, "BOOL"),
        )
    }
    names |= {np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in weights.items():
        start, end = end, end + values.nbytes
        header[name] = {
            "dtype": names[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return (
        len(text).to_bytes(8, "little")
        + text
        + b"".join(np.ascontiguousarray(values).tobytes() for values in weights.values())
    )


@cache
def _tokenizer() -> dict[str, bytes]:
    base = 300
    return {
        "tokenizer.json": tokenizer_json(base, QWEN2_5),
        "tokenizer_config.json": json.dumps(tokenizer_config(base, QWEN2_5, CONTEXT)).encode(),
        "generation_config.json": json.dumps(
            {"eos_token_id": base + 2, "bos_token_id": base}
        ).encode(),
    }


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def of_transformers(folder: Path, sequences: list[list[int]]) -> list[np.ndarray[Any, Any]]:
    """Logits (tokens, vocabulary) of every sequence in float32; AssertionError where the files
    leave a weight to chance."""
    transformers = pytest.importorskip(
        "transformers",
        reason="needs transformers, which comes with the openvino-optimum and onnx extras",
    )
    torch = pytest.importorskip("torch")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not loading["missing_keys"], loading["missing_keys"]
    model.eval()
    with torch.no_grad():
        return [
            model(torch.tensor([sequence]), use_cache=False).logits[0].float().numpy()
            for sequence in sequences
        ]


def divergence(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """Mean divergence of `found` from `expected` in nats per token; both are logits or
    log-probabilities."""
    wanted, said = (
        logits.astype(np.float64) for logits in (expected, found[:, : expected.shape[1]])
    )
    wanted, said = (
        values - np.logaddexp.reduce(values, axis=1, keepdims=True) for values in (wanted, said)
    )
    return float((np.exp(wanted) * (wanted - said)).sum(axis=1).mean())
