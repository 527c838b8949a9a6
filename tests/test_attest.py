"""Whether a GGUF follows from a checkpoint: bytes decide, and where they differ numbers say how
far."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.plan.attested_texts import texts_that_differ
from targets.gguf.attest import attest
from targets.gguf.given import read_given
from tests.conftest import REPOSITORY
from tests.support.building import command
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.given_gguf import quantized, with_keys
from tests.support.make_checkpoint import Silent

pytestmark = pytest.mark.engine

MODEL = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint, its GGUF in 16 bits, and an importance matrix for llama.cpp's quantizer."""
    folder = tmp_path_factory.mktemp("attest")
    source = checkpoint(folder / "ck", SHAPES["qwen3"])
    return {"checkpoint": source, "plain": build(source, folder / "plain.gguf", "BF16")}


def compared(path: Path, source: Path, out: Path, weights: str, **more: Any) -> dict[str, Any]:
    found = attest(
        Silent(),
        files=[str(path)],
        checkpoint=str(source),
        recipe={"weights": weights, "tensor_types": more.pop("tensor_types", {})},
        imatrix=more.pop("imatrix", None),
        out=str(out),
    )
    shutil.rmtree(out)
    return dict(found)


@pytest.mark.parametrize("preset", ["Q4_K_M", "Q8_0"])
def test_what_llama_cpp_quantized_follows_exactly_whatever_its_keys_say(
    preset: str, made: dict[str, Path], tmp_path: Path
) -> None:
    path = quantized(made["plain"], tmp_path / "q.gguf", preset)
    path = with_keys(path, tmp_path / "named.gguf", general__name="Something else")
    found = compared(path, made["checkpoint"], tmp_path / "out", preset)
    assert (found["follows"], found["different"]) == ("exactly", [])
    assert found["equal"] == found["tensors"]
    assert found["metadata"]["network"] == []
    assert "general.name" in {row["key"] for row in found["metadata"]["description"]}


def test_what_a_folder_says_of_itself_is_told_on_one_line_without_escapes(tmp_path: Path) -> None:
    config = json.loads((MODEL / "config.json").read_text())
    told = tmp_path / "config.json"
    told.write_text(json.dumps({**config, "hidden_act": "si\nlu\x1b[31m"}))
    files = {"config.json": told}
    (row,) = texts_that_differ(files, Checkpoint.open(MODEL))["network"]
    assert (row["key"], row["recipe"]) == ("hidden_act", "silu")
    assert row["file"].isprintable()


def test_a_text_that_is_nested_too_deeply_is_refused_with_a_sentence(tmp_path: Path) -> None:
    told = json.loads((MODEL / "tokenizer.json").read_text())
    deep = tmp_path / "tokenizer.json"
    text = json.dumps({**told, "normalizer": "HERE"})
    deep.write_text(text.replace('"HERE"', "[" * 900 + "]" * 900))
    with pytest.raises(PackError, match="nested too deeply") as refused:
        texts_that_differ({"tokenizer.json": deep}, Checkpoint.open(MODEL))
    assert refused.value.exit_code == ExitCode.INPUT


def test_a_mixture_of_its_own_follows_with_its_own_types(
    made: dict[str, Path], tmp_path: Path
) -> None:
    path = build(
        made["checkpoint"], tmp_path / "m.gguf", "Q4_0", overrides={"blk.0.attn_v": "Q8_0"}
    )
    assert compared(path, made["checkpoint"], tmp_path / "out", "mixed")["follows"] == "exactly"
    found = compared(path, made["checkpoint"], tmp_path / "out", "Q4_0")
    assert found["follows"] == "another recipe"
    (row,) = found["different"]
    assert (row["name"], row["type"], row["wanted"], row["bytes"]) == (
        "blk.0.attn_v.weight",
        "Q8_0",
        "Q4_0",
        None,
    )
    assert row["error"] < row["usual"]
    # Also where the recipe that is named loses less than the file's own types.
    found = compared(path, made["checkpoint"], tmp_path / "out", "Q8_0")
    assert found["follows"] == "another recipe"
    assert all(row["usual"] < row["error"] <= 2 * row["own"] for row in found["different"])


def test_another_importance_matrix_gives_other_numbers_that_are_as_near(
    made: dict[str, Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    weights = {
        name: random.uniform(0.5, 2, tensor.shape[-1])
        for name, tensor in read_given(made["plain"]).tensors.items()
        if len(tensor.shape) > 1 and name != "token_embd.weight"
    }
    path = quantized(made["plain"], tmp_path / "i.gguf", "Q4_K_M", weights)
    found = compared(path, made["checkpoint"], tmp_path / "out", "Q4_K_M")
    assert found["follows"] == "nearly"
    assert 0 < found["equal"] < found["tensors"]
    assert all(0 < row["bytes"] <= 1 and row["distance"] > 0 for row in found["different"])


def test_one_other_tensor_is_found_and_named(made: dict[str, Path], tmp_path: Path) -> None:
    path = quantized(made["plain"], tmp_path / "q.gguf", "Q8_0")
    given = read_given(path)
    first, second = (given.tensors[f"blk.{layer}.ffn_up.weight"] for layer in (0, 1))
    data = bytearray(path.read_bytes())
    data[first.offset : first.offset + first.nbytes] = data[
        second.offset : second.offset + second.nbytes
    ]
    path.write_bytes(bytes(data))
    found = compared(path, made["checkpoint"], tmp_path / "out", "Q8_0")
    assert found["follows"] == "not"
    (row,) = found["different"]
    assert row["name"] == "blk.0.ffn_up.weight"
    assert row["error"] > 1 > row["usual"]
    assert row["near"] is False


def test_the_command_says_so_and_ends_with_0_or_4(tmp_path: Path) -> None:
    path = build(MODEL, tmp_path / "tiny.gguf", "Q8_0")
    cache = tmp_path / "cache"
    # In several files it is named by its folder.
    parts = tmp_path / "parts"
    parts.mkdir()
    build(MODEL, parts / "tiny.gguf", "Q8_0", max_file_bytes=1_500_000)
    assert len(list(parts.iterdir())) > 1
    told = command("attest", str(parts), "--against", str(MODEL), "--json", cache=cache)
    assert told.returncode == ExitCode.DONE, told.stderr
    data = json.loads(told.stdout)
    assert (data["schema"], data["follows"], data["recipe"]) == (
        "qwen-pack/attest/1",
        "exactly",
        "gguf:Q8_0",
    )
    other = command(
        *("attest", str(path), "--against", str(MODEL), "--recipe", "gguf:Q4_0"), cache=cache
    )
    assert other.returncode == ExitCode.BUDGET
    assert "was made from tiny-qwen3, but not as gguf:Q4_0" in other.stdout
    assert not list((cache / "work").glob("*"))


def test_what_cannot_be_attested_is_a_sentence(made: dict[str, Path], tmp_path: Path) -> None:
    from packager.pipeline.attest import attest as run
    from targets import registry

    path = quantized(made["plain"], tmp_path / "q.gguf", "Q8_0")
    weighed = with_keys(path, tmp_path / "w.gguf", quantize__imatrix__file="imatrix.dat")
    runtimes = registry.runtimes()
    for place, against, recipe, words, code in (
        (path, MODEL, None, "is not made from", ExitCode.INPUT),
        (
            path,
            made["checkpoint"],
            "openvino:int4_sym_g128",
            "not a recipe of gguf",
            ExitCode.USAGE,
        ),
        (weighed, made["checkpoint"], None, "importance matrix", ExitCode.USAGE),
        (made["checkpoint"], made["checkpoint"], None, "not a model that can be", ExitCode.USAGE),
    ):
        with pytest.raises(PackError, match=words) as caught:
            list(run(str(place), str(against), runtimes, recipe))
        assert caught.value.exit_code == code
