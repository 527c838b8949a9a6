"""Checkpoints that are quantized already, as a source: every number is what the layout says, and
what does not fit together is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import to_float32
from packager.checkpoint.rewrite import for_every_engine
from packager.errors import ExitCode, PackError
from tests.support.damage import WEIGHTS, edit_json
from tests.support.gguf_checkpoints import FIRST, build, values
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.quantized_checkpoints import awq, by_rows, compressed, fp8, gptq, nf4, write

GPTQ = {"quant_method": "gptq", "sym": True}
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
SMALL = tiny_shape("qwen3", hidden=64, intermediate=128)


def compressed_config(form: str, bits: int, kind: str) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": "channel", "symmetric": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}


LAYOUTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    f"GPTQ of {bits} bits": (
        gptq(bits, 32),
        {**GPTQ, "bits": bits, "group_size": 32},
        f"GPTQ, {bits} bits, groups of 32",
    )
    for bits in (2, 3, 4, 8)
} | {
    "GPTQ with act-order": (
        gptq(4, 32, act=True),
        {**GPTQ, "bits": 4, "group_size": 32, "desc_act": True},
        "GPTQ, 4 bits, groups of 32",
    ),
    "GPTQ, asymmetric, a group for a row": (
        gptq(4, -1, symmetric=False),
        {**GPTQ, "bits": 4, "group_size": -1, "sym": False},
        "GPTQ, 4 bits, a group for every row",
    ),
    "GPTQ with whole zero points": (
        gptq(3, 32, symmetric=False, second=True),
        {**GPTQ, "bits": 3, "group_size": 32, "checkpoint_format": "gptq_v2"},
        "GPTQ, 3 bits, groups of 32",
    ),
    "AWQ": (
        awq(32),
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
        "AWQ, 4 bits, groups of 32",
    ),
    "FP8 in blocks": (
        fp8((48, 40)),
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [48, 40]},
        "FP8, F8_E4M3, blocks of 48 x 40",
    ),
    "FP8 with one scale": (
        fp8(None),
        {"quant_method": "fp8", "fmt": "e4m3"},
        "FP8, F8_E4M3, one scale",
    ),
    "compressed-tensors, symmetric": (
        compressed(4, 32, True),
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
        },
        "compressed-tensors, 4 bits, groups of 32",
    ),
    "compressed-tensors, asymmetric": (
        compressed(8, 32, False),
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": 32}}},
        },
        "compressed-tensors, 8 bits, groups of 32",
    ),
    "compressed-tensors of 8 bits": (
        by_rows(np.int8),
        compressed_config("int-quantized", 8, "int"),
        "compressed-tensors, 8 bits, a scale for every row",
    ),
    "compressed-tensors FP8": (
        by_rows(ml_dtypes.float8_e4m3fn),
        compressed_config("float-quantized", 8, "float"),
        "compressed-tensors, F8_E4M3, a scale for every row",
    ),
    "FP8 with a scale for every row": (
        by_rows(ml_dtypes.float8_e4m3fn),
        {"quant_method": "fp8", "fmt": "e4m3"},
        "FP8, F8_E4M3, a scale for every row",
    ),
    "NF4": (nf4(64), BITSANDBYTES, "bitsandbytes, NF4, blocks of 64"),
    # Blocks that no row divides, rows that share a byte.
    "NF4, doubly quantized": (
        nf4(128, double=True),
        BITSANDBYTES,
        "bitsandbytes, NF4, blocks of 128, magnitudes of 8 bits",
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("plain") / "tiny", shape=SMALL)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_is_what_the_layout_says(layout: str, plain: Path, tmp_path: Path) -> None:
    quantize, described, how = LAYOUTS[layout]
    dtype = "bfloat16" if "FP8" in layout else "float16"
    expected = write(plain, tmp_path / "q", quantize, described, dtype)
    opened = Checkpoint.open(tmp_path / "q")
    assert opened.quantized == how
    assert any(
        "reference of the quality gate is the dequantized model" in note for note in opened.notes
    )
    assert "quantization_config" not in opened.config
    assert not opened.as_published
    assert set(opened.tensors) == set(expected)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(to_float32(opened.array(name)), wanted, err_msg=name)
        made = opened.tensors[name].made
        if made is not None:
            pieces = [made.rows(row, min(row + 5, len(wanted))) for row in range(0, len(wanted), 5)]
            assert (np.concatenate(pieces) == made.rows(0, len(wanted))).all()


def test_sizes_of_groups_that_no_matrix_has_mean_one_group_or_are_refused(tmp_path: Path) -> None:
    shape = tiny_shape("qwen2", layers=1, hidden=64, intermediate=64)
    plain = write_tiny(tmp_path / "plain", shape=shape)
    for method, quantize in (("awq", awq(64)), ("gptq", gptq(4, 64))):
        folder = tmp_path / method
        described = {"quant_method": method, "bits": 4, "version": "gemm", "group_size": 64}
        expected = write(plain, folder, quantize, described)
        for size in (64, 10**6, 1 << 63, 10**40, 0, -1, True, "64", None, [64]):
            edit_json(folder / "config.json", quantization_config={**described, "group_size": size})
            opened = Checkpoint.open(folder)
            for name, wanted in expected.items():
                np.testing.assert_array_equal(to_float32(opened.array(name)), wanted)
        edit_json(folder / "config.json", quantization_config={**described, "group_size": 1})
        if method == "awq":  # GPTQ stores the group of every column
            with pytest.raises(PackError, match="group_size 1 and has 1 groups"):
                Checkpoint.open(folder)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_first_generation_as_it_was_published(bits: int, tmp_path: Path) -> None:
    plain = write_tiny(tmp_path / "plain", shape=FIRST)
    described = {**GPTQ, "bits": bits, "group_size": 128, "desc_act": False}
    expected = write(plain, tmp_path / "q", gptq(bits, 128), described, "bfloat16")
    opened = Checkpoint.open(tmp_path / "q")
    for name, wanted in expected.items():
        np.testing.assert_array_equal(to_float32(opened.array(name)), wanted)
    rewritten = for_every_engine(Silent(), opened, tmp_path / "qwen2")
    name = "transformer.h.1.attn.c_attn.weight"
    key = rewritten.array("model.layers.1.self_attn.k_proj.weight")
    np.testing.assert_array_equal(to_float32(key), expected[name][256:512])


def test_the_gguf_and_the_rewritten_folder_hold_the_same_numbers(
    plain: Path, tmp_path: Path
) -> None:
    quantize, described, _ = LAYOUTS["GPTQ with act-order"]
    expected = write(plain, tmp_path / "q", quantize, described)
    gguf = values(build(tmp_path / "q", tmp_path / "q.gguf", "F16"))
    folder = for_every_engine(Silent(), Checkpoint.open(tmp_path / "q"), tmp_path / "rewritten")
    assert folder.as_published
    for official, short in (("self_attn.o_proj", "attn_output"), ("mlp.down_proj", "ffn_down")):
        wanted = expected[f"model.layers.1.{official}.weight"]
        np.testing.assert_array_equal(gguf[f"blk.1.{short}.weight"], wanted)
        np.testing.assert_array_equal(
            to_float32(folder.array(f"model.layers.1.{official}.weight")), wanted
        )


def _change(part: str, new: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        name = f"model.layers.1.mlp.up_proj.{part}"
        value = new(tensors.pop(name))
        save_file(tensors if value is None else tensors | {name: value}, folder / WEIGHTS)

    return damage


def _described(**changes: Any) -> Callable[[Path], None]:
    described = {**GPTQ, "bits": 4, "group_size": 32} | changes
    return lambda folder: edit_json(folder / "config.json", quantization_config=described)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "bits that do not exist": (_described(bits=5), "says bits 5"),
    "other bits than the tensors have": (_described(bits=8), "has 'model.layers"),
    "no scales": (
        _change("scales", lambda value: None),
        "has no 'model.layers.1.mlp.up_proj.scales",
    ),
    "scales of another shape": (_change("scales", lambda value: value[:, :8].copy()), "scales"),
    "zero points of another shape": (_change("qzeros", lambda value: value[:1].copy()), "qzeros"),
    "groups that are not there": (_change("g_idx", lambda value: value + 7), "are not there"),
    "numbers that are not packed": (
        _change("qweight", lambda value: value.astype(np.float32)),
        "not a packed matrix",
    ),
    "a bias that the network has not": (
        _change("bias", lambda value: value + 1),
        "'model.layers.1.mlp.up_proj.bias'",
    ),
    "another method": (_described(quant_method="hqq"), "already quantized"),
}


def _said(**changes: Any) -> Callable[[Any], Any]:
    """The description of a matrix of bitsandbytes with other words in it."""
    return lambda stored: _bytes({**json.loads(stored.tobytes()), **changes})


def _bytes(value: Any) -> Any:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


STATE = "weight.quant_state.bitsandbytes__nf4"
BLOCKWISE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "fewer magnitudes": ("weight.absmax", lambda value: value[:-1], "absmax' as U8 [63]"),
    "magnitudes in two rows": ("weight.absmax", lambda value: value.reshape(2, -1), "absmax' as"),
    "magnitudes that are no numbers of 8 bits": (
        "weight.absmax",
        lambda value: value.astype(np.float32),
        "instead of U8 [64]",
    ),
    "no magnitudes": ("weight.absmax", lambda value: None, "has no 'model.layers.1"),
    "no scales of magnitudes": ("weight.nested_absmax", lambda value: None, "has no"),
    "too many scales": ("weight.nested_absmax", lambda value: np.repeat(value, 2), "F32 [2]"),
    "a short table": ("weight.quant_map", lambda value: value[:8], "quant_map' as F32 [8]"),
    "a short nested table": ("weight.nested_quant_map", lambda value: value[:8], "F32 [256]"),
    "a weight of another size": ("weight", lambda value: value[:-1], "not a matrix of 128 x 64"),
    "a weight in three dimensions": (
        "weight",
        lambda value: value.reshape(2, -1, 1),
        "as U8 [2, 2048, 1]",
    ),
    "another shape": (STATE, _said(shape=[64, 64]), "not a matrix of 64 x 64"),
    "a shape without end": (STATE, _said(shape=[1 << 62, 1 << 62]), "says the shape"),
    "no shape": (STATE, _said(shape=None), "says the shape None"),
    "blocks of nothing": (STATE, _said(blocksize=0), "says blocksize 0"),
    "blocks that are text": (STATE, _said(blocksize="64"), "says blocksize '64'"),
    "blocks of magnitudes of nothing": (STATE, _said(nested_blocksize=0), "nested_blocksize 0"),
    "an offset that is none": (STATE, _said(nested_offset=1e300), "says nested_offset"),
    "a list": (STATE, lambda stored: _bytes([]), "has no object in"),
    "no JSON": (STATE, lambda stored: stored[:-1], "quant_state.bitsandbytes__nf4'"),
    "too long": (STATE, lambda stored: np.full(1 << 13, 32, np.uint8), "stores"),
    "nested without end": (STATE, lambda stored: np.full(4000, 91, np.uint8), "quant_state"),
}


@pytest.mark.parametrize("case", BLOCKWISE)
def test_what_bitsandbytes_did_not_write_is_refused(case: str, plain: Path, tmp_path: Path) -> None:
    part, new, said = BLOCKWISE[case]
    write(plain, tmp_path / "q", *LAYOUTS["NF4, doubly quantized"][:2])
    _change(part, new)(tmp_path / "q")
    with pytest.raises(PackError) as caught:
        Checkpoint.open(tmp_path / "q")
    assert said in str(caught.value)
    assert caught.value.exit_code is ExitCode.INPUT


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused(case: str, plain: Path, tmp_path: Path) -> None:
    damage, said = REFUSED[case]
    write(plain, tmp_path / "q", *LAYOUTS["GPTQ of 4 bits"][:2])
    damage(tmp_path / "q")
    with pytest.raises(PackError) as caught:
        Checkpoint.open(tmp_path / "q")
    assert said in str(caught.value)
    assert caught.value.exit_code is ExitCode.INPUT
