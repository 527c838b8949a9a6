"""With an importance matrix the bytes are llama.cpp's own too; a matrix of another model is refused
by the tensor's name."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from targets.gguf import library
from targets.gguf.imatrix import read_imatrix
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

PRESETS = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q4_K_M", "Q4_0", "IQ4_XS"]
REPRESENTATIVE = ("IQ3_XS", "Q4_K_M", "Q4_0", "IQ4_XS")
"""IQ2_S, which IQ3_XXS has too, takes four seconds to begin: its codebook is made then."""
OF_EXPERTS = ["IQ2_S", "IQ3_XXS", "Q4_K_M", "Q4_0", "IQ4_XS"]
"""One of every size of block and of every kind of search: which importances belong to which expert
does not hang on the rest."""


def write_imatrix(
    path: Path, entries: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
) -> Path:
    """The form of llama-imatrix: sums of squares and counts."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    for name, (sums, counts) in entries.items():
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32))
        writer.add_tensor(f"{name}.counts", counts.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def entries_for(plain: Path) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Made-up importances for every matrix of a model."""
    random = np.random.default_rng(11)
    found = {}
    for tensor in gguf.GGUFReader(plain).tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        if len(shape) > 1 and tensor.name != "token_embd.weight":
            matrices = shape[0] if len(shape) == 3 else 1
            counts = np.array(
                [[0 if matrices > 1 and number == 1 else 512] for number in range(matrices)]
            )
            found[tensor.name] = (random.uniform(0.01, 9, (matrices, shape[-1])) * 512, counts)
    return found


def quantized_by_the_library(
    plain: Path, out: Path, preset: str, weights: dict[str, np.ndarray[Any, Any]]
) -> Path:
    lib = library.llama()
    params = lib.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[f"MOSTLY_{preset}"])
    given = (lib.llama_model_imatrix_data * (len(weights) + 1))()
    kept = [np.ascontiguousarray(value) for value in weights.values()]
    for place, (name, value) in enumerate(zip(weights, kept, strict=True)):
        given[place].name, given[place].size = name.encode(), value.size
        given[place].data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params.imatrix = given
    with library.captured_log() as said:
        assert (
            lib.llama_model_quantize(str(plain).encode(), str(out).encode(), ctypes.byref(params))
            == 0
        ), "".join(said)
    return out


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(
            ("qwen2", preset) if preset in REPRESENTATIVE else thorough("qwen2", preset)
            for preset in PRESETS
        ),
        *(
            ("qwen3_moe", preset) if preset.startswith("Q4") else thorough("qwen3_moe", preset)
            for preset in OF_EXPERTS
        ),
    ],
)
def test_weighted_by_importance_the_file_is_llama_cpps_own(
    name: str, preset: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES[name])
    plain = build(source, tmp_path / "plain.gguf", "BF16")
    file = write_imatrix(tmp_path / "imatrix.gguf", entries_for(plain))
    ours = build(source, tmp_path / "ours.gguf", preset, imatrix=file)
    theirs = quantized_by_the_library(
        plain, tmp_path / "theirs.gguf", preset, dict(read_imatrix(file).weights)
    )
    assert ours.read_bytes() == theirs.read_bytes()


def test_importance_is_the_mean_and_one_for_an_expert_never_chosen(tmp_path: Path) -> None:
    file = write_imatrix(
        tmp_path / "i.gguf",
        {"blk.0.ffn_up_exps.weight": (np.array([[2.0, 4.0], [7.0, 7.0]]), np.array([[2], [0]]))},
    )
    assert read_imatrix(file).weights["blk.0.ffn_up_exps.weight"].tolist() == [
        [1.0, 2.0],
        [1.0, 1.0],
    ]


def test_a_tensor_that_needs_an_entry_and_has_none_is_named(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    entries = entries_for(build(source, tmp_path / "plain.gguf", "BF16"))
    del entries["blk.1.ffn_up.weight"]
    file = write_imatrix(tmp_path / "imatrix.gguf", entries)
    with pytest.raises(
        PackError, match=r"'blk\.1\.ffn_up\.weight', which becomes IQ2_XXS"
    ) as caught:
        build(source, tmp_path / "out.gguf", "IQ2_XXS", imatrix=file)
    assert caught.value.exit_code == ExitCode.INPUT
    assert not (tmp_path / "out.gguf").exists()


def test_an_entry_of_another_size_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    file = write_imatrix(
        tmp_path / "imatrix.gguf", {"blk.0.ffn_up.weight": (np.ones((1, 128)), np.array([[4]]))}
    )
    with pytest.raises(PackError, match="128 values"):
        build(source, tmp_path / "out.gguf", "Q4_K_M", imatrix=file)


@pytest.mark.parametrize(
    "data", [b"", b"not a GGUF at all, but longer than a header", b"GGUF" + b"\xff" * 64]
)
def test_a_file_that_is_no_importance_matrix_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "i.gguf").write_bytes(data)
    with pytest.raises(PackError, match=r"i\.gguf") as caught:
        read_imatrix(tmp_path / "i.gguf")
    assert caught.value.exit_code == ExitCode.INPUT


def test_the_older_form_gives_the_same_means(tmp_path: Path) -> None:
    sums = np.array([[2.0, 4.0, 8.0]], np.float32)
    new = write_imatrix(tmp_path / "i.gguf", {"blk.0.ffn_up.weight": (sums, np.array([[2]]))})
    old = tmp_path / "i.dat"
    name, dataset = b"blk.0.ffn_up.weight", b"/home/someone/wiki.txt"
    entry = (
        struct.pack("<i", len(name))
        + name
        + struct.pack("<ii", 4, 3)
        + (sums / 2 * 4).astype("<f4").tobytes()
    )
    old.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<ii", 7, len(dataset)) + dataset)
    found = read_imatrix(old)
    assert np.array_equal(
        found.weights["blk.0.ffn_up.weight"], read_imatrix(new).weights["blk.0.ffn_up.weight"]
    )
    assert (found.chunks, found.dataset) == (7, "wiki.txt")
    for size in range(len(old.read_bytes()) - 8 - len(dataset)):
        old.with_suffix(".cut").write_bytes(old.read_bytes()[:size])
        with pytest.raises(PackError, match=r"i\.cut"):
            read_imatrix(old.with_suffix(".cut"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_mean_squares_are_refused_with_their_entry(
    value: float, tmp_path: Path
) -> None:
    file = write_imatrix(
        tmp_path / "i.gguf", {"blk.0.ffn_up.weight": (np.array([[1.0, value]]), np.array([[4]]))}
    )
    with pytest.raises(PackError, match=r"'blk\.0\.ffn_up\.weight' has values") as caught:
        read_imatrix(file)
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    file = write_imatrix(
        tmp_path / "i.gguf", {"blk.0.ffn_up.weight": (np.ones((1, 512)), np.array([[4]]))}
    )
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(PackError, match="is incomplete"):
        read_imatrix(file)


def test_a_matrix_of_another_model_is_told_by_its_layers(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    file = write_imatrix(
        tmp_path / "i.gguf", {"blk.7.ffn_up.weight": (np.ones((1, 256)), np.array([[4]]))}
    )
    with pytest.raises(PackError, match=r"another model: it names 'blk\.7\.ffn_up\.weight'"):
        build(source, tmp_path / "out.gguf", "Q4_K_M", imatrix=file)
