"""The GGUF of an adapter is that of llama.cpp's own converter; what is more than low rank, or
hostile, is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint.adapter import Adapter
from packager.checkpoint.composed import compose
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.inspection import safetensors
from packager.inspection.unsafe import Unsafe
from targets.gguf import adapter as gguf_adapter
from tests.support.adapter_packages import AHOY, BY_LLAMA_CPP
from tests.support.damage import edit_json
from tests.support.make_checkpoint import Silent
from tests.support.trained_package import TRAINED


def of_trained(folder: Path, adapter: Path = AHOY) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of the GGUF that is made of an adapter of the trained model."""
    compose(folder / "merged", TRAINED, [Adapter.open(adapter)])
    gguf_adapter.build(Silent(), checkpoint=str(folder / "merged"), out=str(folder / "out"))
    reader = gguf.GGUFReader(folder / "out" / gguf_adapter.FILE)
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def changed(folder: Path, **config: Any) -> Path:
    shutil.copytree(AHOY, folder)
    edit_json(folder / "adapter_config.json", **config)
    return folder


def test_the_gguf_is_that_of_llama_cpp_s_own_converter_byte_by_byte(tmp_path: Path) -> None:
    of_trained(tmp_path)
    assert sha256(tmp_path / "out" / gguf_adapter.FILE) == BY_LLAMA_CPP


def test_scales_that_differ_between_matrices_are_multiplied_into_them(tmp_path: Path) -> None:
    # llama.cpp has one alpha for a file, and its own converter writes the first into all.
    plain = of_trained(tmp_path / "plain")
    other = changed(tmp_path / "other", alpha_pattern={r".*q_proj": 16})
    scaled = of_trained(tmp_path / "scaled", other)
    for name, values in plain.items():
        factor = 4 if "attn_q" in name else 2
        expected = values * np.float32(factor) if name.endswith("lora_b") else values
        np.testing.assert_array_equal(scaled[name], expected)


def test_what_is_more_than_low_rank_is_refused_with_the_way_to_merge(tmp_path: Path) -> None:
    whole = shutil.copytree(AHOY, tmp_path / "whole")
    tensors = load_file(whole / "adapter_model.safetensors")
    added = {"base_model.model.model.norm.weight": np.ones(256, np.float32)}
    save_file(tensors | added, whole / "adapter_model.safetensors")
    dora = changed(tmp_path / "dora", use_dora=True)
    vectors = {
        name.replace("lora_A.weight", "lora_magnitude_vector"): np.ones(
            tensors[name.replace("lora_A", "lora_B")].shape[0], np.float32
        )
        for name in tensors
        if "lora_A" in name
    }
    save_file(tensors | vectors, dora / "adapter_model.safetensors")
    head = shutil.copytree(AHOY, tmp_path / "head")
    ends = {
        "base_model.model.lm_head.lora_A.weight": np.ones((4, 256), np.float32),
        "base_model.model.lm_head.lora_B.weight": np.ones((2048, 4), np.float32),
    }
    save_file(tensors | ends, head / "adapter_model.safetensors")
    for folder, why in ((whole, "stores"), (dora, "DoRA"), (head, "an end of the vocabulary")):
        with pytest.raises(PackError, match=why) as caught:
            of_trained(tmp_path / f"of-{folder.name}", folder)
        assert caught.value.exit_code is ExitCode.USAGE
        assert "--lora" in caught.value.hint


def header(rows: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text + data


def row(start: int, end: int, **more: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, end]} | more


HOSTILE = {
    "no header": b"\xff" * 8 + b"{}",
    "not json": (3).to_bytes(8, "little") + b"{x}",
    "behind the end": header({"a": row(0, 4)}, b"\0\0"),
    "unclaimed": header({"a": row(0, 4)}, b"\0" * 8),
    "overlap": header({"a": row(0, 4), "b": row(2, 6)}, b"\0" * 6),
    "impossible": header({"a": row(0, 4, shape=[1 << 40, 1 << 40])}, b"\0" * 4),
    "type": header({"a": row(0, 4, dtype="I64")}, b"\0" * 4),
    "place": header({"a": row(0, 4, data_offsets=[0])}, b"\0" * 4),
    "no row": header({"a": 7}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_safetensors_header_is_not_shown_to_an_engine(case: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(HOSTILE[case])
    with path.open("rb") as file, pytest.raises(Unsafe):
        safetensors.refuse(file, path.stat().st_size)
    save_file({"a": np.ones(3, np.float32), "b": np.zeros((0, 2), np.float32)}, path)
    with path.open("rb") as file:
        safetensors.refuse(file, path.stat().st_size)
