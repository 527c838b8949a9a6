"""Checkpoints as people have them and that nobody can build, each with a part of the sentence of
its refusal."""

from __future__ import annotations

import codecs
import gzip
import json

import ml_dtypes
import numpy as np

from packager.checkpoint.folder import INDEX
from tests.support.field_cases import EMBEDDING, LFS, Case, Field, odd_shards
from tests.support.yardstick import safetensors


def _without_index(field: Field) -> None:
    odd_shards(field)
    del field.files[INDEX]


def _nan(field: Field) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    field.weights[name] = field.weights[name].copy()
    field.weights[name][3, 5] = np.nan


def _nan_head(field: Field) -> None:
    """A trained output matrix of a tied checkpoint with one number that is none."""
    head = field.weights[EMBEDDING].astype(np.float32)
    head[7, 9] = np.nan
    field.weights["lm_head.weight"] = head


def _infinity(field: Field) -> None:
    name = "model.layers.3.self_attn.o_proj.weight"
    field.weights[name] = field.weights[name].copy()
    field.weights[name][200, 1] = -np.inf


def _without_gathering(field: Field) -> None:
    for name in [name for name in field.weights if "layers.3.self_attn" in name]:
        field.weights[name] = field.weights[name].reshape(-1)[:0]


def _layer_cut(field: Field) -> None:
    """A layer taken out, and a layer_types that is as long as before."""
    field.weights = {name: rows for name, rows in field.weights.items() if ".3." not in name}
    field.config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 4}


def _hidden_cut(field: Field) -> None:
    """Columns taken out, and a hidden_size that is what was meant to be left."""
    for name in [name for name in field.weights if field.weights[name].shape[-1] == 256]:
        field.weights[name] = field.weights[name][..., :224]
    field.config["hidden_size"] = 192


def _below(field: Field) -> None:
    odd_shards(field)
    places = dict.fromkeys(field.weights, "shards/model-00001-of-00001.safetensors")
    field.files[INDEX] = json.dumps({"weight_map": places}).encode()


def _no_type(field: Field) -> None:
    """What a writer leaves of a tensor that it never got."""
    data = safetensors(field.weights)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["lm_head.weight"] = {"dtype": "", "shape": [], "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    field.files["model.safetensors"] = len(text).to_bytes(8, "little") + text + data[8 + length :]


def _gptq(field: Field) -> None:
    for name in [name for name in field.weights if name.endswith("_proj.weight")]:
        rows, columns = field.weights.pop(name).shape
        start = name.removesuffix(".weight")
        field.weights |= {
            f"{start}.qweight": np.zeros((columns // 8, rows), np.int32),
            f"{start}.qzeros": np.zeros((columns // 64, rows // 8), np.int32),
            f"{start}.scales": np.zeros((columns // 64, rows), np.float16),
        }


def _fp8(field: Field) -> None:
    for name in [name for name in field.weights if name.endswith("_proj.weight")]:
        field.weights[name] = field.weights[name].astype(ml_dtypes.float8_e4m3fn)
        field.weights[f"{name}_scale_inv"] = np.ones((2, 2), np.float32)
    field.config["quantization_config"] = {"quant_method": "fp8"}


def _mlx(field: Field) -> None:
    for name in [name for name in field.weights if name.endswith("_proj.weight")]:
        rows, columns = field.weights[name].shape
        start = name.removesuffix(".weight")
        field.weights[name] = np.zeros((rows, columns // 8), np.int32)
        field.weights |= {
            f"{start}.{part}": np.zeros((rows, columns // 64), np.float16)
            for part in ("scales", "biases")
        }
    field.config |= {"quantization": {"bits": 4}, "quantization_config": {"bits": 4}}


def _bnb8(field: Field) -> None:
    _int8(field)
    for name in [name for name in field.weights if name.endswith("_proj.weight")]:
        field.weights[name.replace(".weight", ".SCB")] = np.ones(
            len(field.weights[name]), np.float32
        )


def _int8(field: Field) -> None:
    field.retype(np.int8, lambda name: name.endswith("_proj.weight"))


def _classifier(field: Field) -> None:
    field.config["architectures"] = ["Qwen3ForSequenceClassification"]
    field.weights["score.weight"] = np.ones((1, 256), np.float32)


def _vocabulary_grown(field: Field) -> None:
    field.weights[EMBEDDING] = np.concatenate(
        [field.weights[EMBEDDING], field.weights[EMBEDDING][:5]]
    )


def _pruned(field: Field) -> None:
    for part in ("gate", "up"):
        name = f"model.layers.3.mlp.{part}_proj.weight"
        field.weights[name] = field.weights[name][:448]
    name = "model.layers.3.mlp.down_proj.weight"
    field.weights[name] = field.weights[name][:, :448]
    field.config["layer_inter_size"] = [512, 512, 512, 448]


def _norms_lost(field: Field) -> None:
    field.weights = {
        name: values for name, values in field.weights.items() if "input_layernorm" not in name
    }


def _index_of_pickles(field: Field) -> None:
    odd_shards(field)
    places = dict.fromkeys(field.weights, "pytorch_model-00001-of-00002.bin")
    field.files[INDEX] = json.dumps({"weight_map": places}).encode()


_PAGE = b"<!DOCTYPE html><html>Access denied</html>"


def _bom(field: Field) -> None:
    field.files["config.json"] = codecs.BOM_UTF8 + json.dumps(field.config).encode()


REFUSED: dict[str, tuple[Case, str]] = {
    "NaN": (
        _nan,
        "'model.layers.2.mlp.down_proj.weight' in model.safetensors holds NaN or infinity",
    ),
    "NaN in a trained output matrix": (
        _nan_head,
        "'lm_head.weight' in model.safetensors holds NaN or infinity",
    ),
    "infinity in one number": (
        _infinity,
        "'model.layers.3.self_attn.o_proj.weight' in model.safetensors holds NaN or infinity",
    ),
    "NaN in a norm": (
        lambda field: field.weights.update(
            {"model.layers.1.self_attn.q_norm.weight": np.full(64, np.nan, np.float32)}
        ),
        "'model.layers.1.self_attn.q_norm.weight' in model.safetensors holds NaN or infinity",
    ),
    "saved without gathering": (_without_gathering, "zero_to_fp32.py"),
    "a layer cut, layer_types as before": (_layer_cut, "layer_types is not 3 times"),
    "columns cut, another hidden_size": (
        _hidden_cut,
        "'model.embed_tokens.weight' in model.safetensors has the shape [2048, 224]",
    ),
    "shards in a folder below": (
        _below,
        "names the file 'shards/model-00001-of-00001.safetensors'",
    ),
    "a tensor without a type": (_no_type, "tensor 'lm_head.weight' has the unknown type ''"),
    "FP8 by accident": (
        lambda field: field.retype(
            ml_dtypes.float8_e4m3fn, lambda name: name.endswith("down_proj.weight")
        ),
        "is stored as F8_E4M3",
    ),
    "window layers, no window": (
        lambda field: field.config.update(layer_types=["sliding_attention"] * 4, sliding_window=64),
        "use_sliding_window is not true",
    ),
    "untied without a head": (
        lambda field: field.config.update(tie_word_embeddings=False),
        "'lm_head.weight' is missing",
    ),
    "torch.compile": (lambda field: field.rename(lambda name: f"_orig_mod.{name}"), "'_orig_mod.'"),
    "DDP": (lambda field: field.rename(lambda name: f"module.{name}"), "'module.'"),
    "PEFT": (
        lambda field: field.rename(lambda name: f"base_model.model.{name}"),
        "merge_and_unload",
    ),
    "language_model. in front": (
        lambda field: field.rename(lambda name: f"language_model.{name}"),
        "begin with 'language_model.'",
    ),
    "no tie key": (
        lambda field: field.config.pop("tie_word_embeddings"),
        "'lm_head.weight' is missing. Set tie_word_embeddings to true in config.json if",
    ),
    "no head_dim": (
        lambda field: field.config.pop("head_dim"),
        "q_proj.weight' in model.safetensors has the shape",
    ),
    "an embedding of no rows": (
        lambda field: field.weights.update({EMBEDDING: field.weights[EMBEDDING][:0]}),
        "has the shape [0, 256] instead of [2048, 256]",
    ),
    "shards without an index": (_without_index, "no model.safetensors.index.json"),
    "another name for the file": (
        lambda field: field.files.update(
            {"pytorch_model.safetensors": safetensors(field.weights), "model.safetensors": None}
        ),
        "no model.safetensors",
    ),
    "MLX": (_mlx, "already quantized"),
    "bitsandbytes, 8 bits": (_bnb8, "already quantized"),
    "GPTQ": (_gptq, "already quantized"),
    "FP8": (_fp8, "already quantized (fp8) and says weight_block_size None"),
    "INT8": (_int8, "is stored as I8"),
    "a classifier": (
        _classifier,
        "Qwen3ForSequenceClassification, a classifier and not a text generator",
    ),
    "vocab_size as before": (_vocabulary_grown, "Set vocab_size to 2053"),
    "LFS weights": (lambda field: field.files.update({"model.safetensors": LFS}), "git lfs pull"),
    "LFS tokenizer": (lambda field: field.files.update({"tokenizer.json": LFS}), "git lfs pull"),
    "byte order mark": (_bom, "byte order mark"),
    "an adapter alone": (
        lambda field: field.files.update({"config.json": None, "adapter_config.json": b"{}"}),
        "it holds an adapter",
    ),
    "an adapter within": (
        lambda field: field.weights.update(
            {"model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((4, 256), np.float32)}
        ),
        "'model.layers.0.self_attn.q_proj.lora_A.weight' in model.safetensors is part of an adapter that is not merged",
    ),
    "an adapter around": (
        lambda field: field.rename(lambda name: name.replace("q_proj.", "q_proj.base_layer.")),
        "q_proj.base_layer.weight' in model.safetensors is part of an adapter that is not merged",
    ),
    "a module of its own within": (
        lambda field: field.weights.update(
            {"lm_head.modules_to_save.default.weight": field.weights[EMBEDDING]}
        ),
        "'lm_head.modules_to_save.default.weight' in model.safetensors is part of an adapter",
    ),
    "FSDP within": (
        lambda field: field.rename(
            lambda name: name.replace("layers.0.", "layers.0._fsdp_wrapped_module.")
        ),
        "'_fsdp_wrapped_module.'",
    ),
    "a trainer's own name in front": (
        lambda field: field.rename(lambda name: f"pretrained_model.{name}"),
        "begin with 'pretrained_model.' ('pretrained_model.model.embed_tokens.weight')",
    ),
    "a page in place of weights": (
        lambda field: field.files.update({"model.safetensors": _PAGE}),
        "it is text that begins '<!DOCTYPE html><html>Access denied</html'",
    ),
    "an error in place of weights": (
        lambda field: field.files.update({"model.safetensors": b"Entry not found"}),
        "it is text that begins 'Entry not found'",
    ),
    "an archive in place of weights": (
        lambda field: field.files.update({"model.safetensors": gzip.compress(bytes(999))}),
        "is an archive and holds no tensors as it is",
    ),
    "an index of pickles": (
        _index_of_pickles,
        "names the file 'pytorch_model-00001-of-00002.bin', which is not a safetensors file",
    ),
    "UTF-16": (
        lambda field: field.files.update(
            {"config.json": json.dumps(field.config).encode("utf-16")}
        ),
        "config.json is in UTF-16",
    ),
    "infinity in float64": (
        lambda field: field.weights.update({"model.norm.weight": np.full(256, 1e300)}),
        "'model.norm.weight' in model.safetensors holds NaN or infinity",
    ),
    "pruned by layer": (
        _pruned,
        "'model.layers.3.mlp.gate_proj.weight' in model.safetensors has the shape [448, 256]",
    ),
    "norms lost": (_norms_lost, "tensor 'model.layers.0.input_layernorm.weight' is missing"),
    "unknown positions": (
        lambda field: field.config.update(rope_scaling={"type": "spiral"}),
        "'spiral'",
    ),
}
"""What nobody can build, with a part of the sentence."""
