"""The draft module for multi-token prediction: read whole, and converted as llama.cpp's own converter
does it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from safetensors.numpy import load_file, save_file

from packager.catalog import load
from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.shape import heads
from targets.gguf import sizes
from targets.gguf.presets import PRESETS
from targets.gguf.tensors import padded
from targets.llama_cpp import LlamaCpp
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint, keys

HYBRIDS = {
    "qwen3_5_text": "28ea9ab374b17e8895546b0a548aea9e84b9cc7c89bbe0e8258b3869ead05daf",
    "qwen3_5_moe_text": "19192d370374c2447e70ef3cc7458fd76ae906a7b5b9f3c7c117cf4b36a84c1f",
    "qwen3_next": "ac6a4ce3730c970475426fd30b708fc727af740da15735b11c852e3259eadd5c",
}
"""sha256 of the module's tensors (name, type, bytes, by name) in what convert_hf_to_gguf.py of
llama-cpp-python 0.3.36 writes of the same checkpoints in bf16."""


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_module_is_converted_as_by_llama_cpps_own_converter(name: str, tmp_path: Path) -> None:
    shape = replace(SHAPES[name], draft_layers=heads.LAYERS)
    source = checkpoint(tmp_path / "ck", shape)
    whole = build(source, tmp_path / "heads.gguf", "BF16", heads=True)
    digest = hashlib.sha256()
    for tensor in sorted(gguf.GGUFReader(whole).tensors, key=lambda tensor: tensor.name):
        if tensor.name.startswith(f"blk.{shape.layers}."):
            digest.update(f"{tensor.name} {int(tensor.tensor_type)} ".encode())
            digest.update(tensor.data.tobytes())
    assert digest.hexdigest() == HYBRIDS[name]
    family = keys(whole)["general.architecture"]
    assert keys(whole)[f"{family}.block_count"] == shape.layers + 1
    assert keys(whole)[f"{family}.nextn_predict_layers"] == 1
    plain = build(source, tmp_path / "plain.gguf", "BF16")
    assert keys(plain)[f"{family}.block_count"] == shape.layers
    names = {tensor.name for tensor in gguf.GGUFReader(plain).tensors}
    assert not any("nextn" in name or f"blk.{shape.layers}." in name for name in names)


@pytest.mark.engine
def test_a_quantized_module_is_planned_by_the_library_like_any_layer(tmp_path: Path) -> None:
    shape = replace(SHAPES["qwen3_5_text"], draft_layers=heads.LAYERS)
    model = build(checkpoint(tmp_path / "ck", shape), tmp_path / "m.gguf", "Q4_K_M", heads=True)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(model).tensors}
    assert types["blk.2.nextn.eh_proj.weight"] == "Q4_K"
    assert types["blk.2.nextn.enorm.weight"] == "F32"
    # The same sizes are planned, to the byte.
    tensors = gguf.GGUFReader(model).tensors
    planned = sizes.of(shape, PRESETS["Q4_K_M"])
    assert planned.data == sum(padded(int(tensor.n_bytes)) for tensor in tensors)
    own = [tensor for tensor in tensors if tensor.name.startswith("blk.2.")]
    assert planned.heads == sum(padded(int(tensor.n_bytes)) for tensor in own)
    runtime = LlamaCpp()
    drafting = runtime.drafting(shape, runtime.recipe("Q4_K_M"), 512, "mtp")
    assert drafting.weights == planned.heads
    assert drafting.kv_cache == 2 * 2 * 512 * shape.kv_heads * shape.head_dim


def test_the_catalogue_counts_the_module_as_the_official_files_do() -> None:
    counted = 0
    for variant in load():
        # Qwen3-Next's count is of the files' own, which hold more than one such module.
        if variant.params_mtp and variant.shape is not None and heads.may_have(variant.shape):
            shape = replace(variant.shape, draft_layers=heads.LAYERS)
            if shape.model_type != "qwen3_next":
                counted += 1
                assert heads.parameters(shape) == variant.params_mtp, variant.name
    assert counted


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("all", "has no heads"),
        ("mtp.norm.weight", "'mtp.norm.weight' is missing"),
        ("shape", "has the shape"),
        ("more", "is not part of the model"),
        ("twice", "are the same tensor"),
    ],
)
def test_a_module_that_is_not_whole_is_refused(damage: str, words: str, tmp_path: Path) -> None:
    shape = replace(SHAPES["qwen3_5_text"], draft_layers=heads.LAYERS)
    folder = checkpoint(tmp_path / "ck", shape, dtype="F32")
    path = folder / "model.safetensors"
    stored = dict(load_file(path))
    if damage == "all":
        stored = {name: value for name, value in stored.items() if not name.startswith("mtp.")}
    elif damage == "shape":
        stored["mtp.norm.weight"] = stored["mtp.norm.weight"][:-1].copy()
    elif damage == "more":
        stored["mtp.layers.1.input_layernorm.weight"] = stored["mtp.norm.weight"]
    elif damage == "twice":
        stored["model.mtp.norm.weight"] = stored["mtp.norm.weight"]
    else:
        del stored[damage]
    save_file(stored, path, metadata={"format": "pt"})
    opened = Checkpoint.open(folder)
    assert opened.has_heads is (damage != "all")
    with pytest.raises(PackError, match=words) as caught:
        opened.heads()
    assert caught.value.exit_code is ExitCode.INPUT


def test_a_generation_without_such_modules_says_so(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ck", SHAPES["qwen3"])
    with pytest.raises(PackError, match="have no heads for multi-token prediction"):
        Checkpoint.open(folder).heads()
