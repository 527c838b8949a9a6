"""Checkpoint -> GGUF: the bytes are llama.cpp's own, whatever the number of threads; bad weights
leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.inspection import gguf as inspection
from targets.gguf.presets import PRESETS
from tests.support.gguf_checkpoints import (
    AWKWARD,
    OTHERS,
    SHAPES,
    build,
    checkpoint,
    keys,
    library_quantized,
    overwrite,
    values,
)
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

WITHOUT_IMATRIX = [
    preset.name for preset in PRESETS.values() if not preset.imatrix and preset.name != "BF16"
]


@pytest.fixture(scope="module", params=["qwen2-tied", thorough("qwen3_moe"), "awkward"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A checkpoint, and its unquantized GGUF."""
    folder = tmp_path_factory.mktemp(request.param)
    shape = AWKWARD if request.param == "awkward" else SHAPES[request.param]
    source = checkpoint(folder / "Qwen-tiny-0.1B", shape)
    return source, build(source, folder / "plain.gguf", "BF16")


@pytest.mark.parametrize("preset", WITHOUT_IMATRIX)
def test_one_pass_writes_the_file_that_llama_cpp_quantizes_from_the_unquantized_one(
    stored: tuple[Path, Path], preset: str, tmp_path: Path
) -> None:
    source, plain = stored
    ours = build(source, tmp_path / "ours.gguf", preset)
    theirs = library_quantized(plain, tmp_path / "theirs.gguf", preset)
    assert ours.read_bytes() == theirs.read_bytes()
    # And it is safe to open.
    inspected(ours)


def test_the_unquantized_file_is_safe_to_open(stored: tuple[Path, Path]) -> None:
    inspected(stored[1])


@pytest.mark.parametrize(
    "name", [name if name == "qwen3_moe" else thorough(name) for name in (*SHAPES, *OTHERS)]
)
def test_every_architecture_writes_what_is_safe_to_open(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "Qwen-tiny-0.1B", {**SHAPES, **OTHERS}[name])
    inspected(build(source, tmp_path / f"{name}.gguf", "Q4_K_M"))


def inspected(path: Path) -> None:
    data = path.read_bytes()
    inspection.refuse(data, len(data))


@pytest.mark.parametrize("preset", ["Q8_0", "Q4_K_M", "IQ4_XS"])
def test_one_thread_and_two_write_the_same_bytes(
    stored: tuple[Path, Path], preset: str, tmp_path: Path
) -> None:
    one = build(stored[0], tmp_path / "one.gguf", preset, threads=1)
    two = build(stored[0], tmp_path / "two.gguf", preset, threads=2)
    assert one.read_bytes() == two.read_bytes()


def test_sixteen_bit_weights_pass_unchanged(stored: tuple[Path, Path]) -> None:
    source, plain = stored
    from packager.checkpoint import Checkpoint

    embedding = Checkpoint.open(source).array("model.embed_tokens.weight")
    assert np.array_equal(values(plain)["token_embd.weight"], embedding.astype(np.float32))


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_other_stored_types_give_what_llama_cpp_makes_of_them(dtype: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3"], dtype=dtype)
    ours = build(source, tmp_path / "ours.gguf", "Q4_K_M")
    plain = build(source, tmp_path / "plain.gguf", "F16")
    if dtype == "F16":
        assert (
            ours.read_bytes()
            == library_quantized(plain, tmp_path / "theirs.gguf", "Q4_K_M").read_bytes()
        )
    else:
        assert {tensor.tensor_type for tensor in gguf.GGUFReader(ours).tensors} >= {
            gguf.GGMLQuantizationType.Q4_K
        }


def test_shards_and_one_file_give_the_same_gguf(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "one" / "Qwen-tiny", SHAPES["qwen2"])
    shards = checkpoint(tmp_path / "two" / "Qwen-tiny", SHAPES["qwen2"], shards=3)
    assert len(list(shards.glob("*.safetensors"))) > 1
    one = build(whole, tmp_path / "one.gguf", "Q4_0")
    assert one.read_bytes() == build(shards, tmp_path / "two.gguf", "Q4_0").read_bytes()


def test_an_override_changes_the_tensors_it_names_and_no_other(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    plain = build(source, tmp_path / "plain.gguf", "Q4_0")
    changed = build(
        source, tmp_path / "changed.gguf", "Q4_0", overrides={r"attn_v\.weight": "q8_0"}
    )
    before = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(plain).tensors}
    after = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(changed).tensors}
    assert {name for name in before if before[name] != after[name]} == {
        "blk.0.attn_v.weight",
        "blk.1.attn_v.weight",
    }
    assert after["blk.0.attn_v.weight"] == gguf.GGMLQuantizationType.Q8_0


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"attn_v": "Q9"}, "Q9"),
        ({"nothing_like_it": "Q8_0"}, "nothing_like_it"),
        ({"(": "Q8_0"}, "("),
        ({"attn_v": "Q4_K"}, "256"),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_name(
    overrides: dict[str, str], word: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", AWKWARD)
    with pytest.raises(PackError) as caught:
        build(source, tmp_path / "out.gguf", "Q8_0", overrides=overrides)
    assert word in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize(
    ("what", "raw"),
    [("NaN", b"\xc0\x7f"), ("infinity", b"\x80\x7f"), ("minus infinity", b"\x80\xff")],
)
@pytest.mark.parametrize("preset", ["BF16", "Q8_0", "Q4_K_M"])
def test_a_weight_that_is_no_number_is_refused_with_its_tensor_named(
    what: str, raw: bytes, preset: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    overwrite(source, "model.layers.1.mlp.up_proj.weight", 512 * 255, raw)
    out = tmp_path / "out"
    with pytest.raises(PackError) as caught:
        build(source, out / "model.gguf", preset)
    assert "'model.layers.1.mlp.up_proj.weight' in model.safetensors" in caught.value.message
    assert caught.value.exit_code == ExitCode.INPUT
    assert not list(out.iterdir())


def test_a_weight_beyond_half_precision_is_refused_for_f16_and_kept_in_bf16(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    overwrite(source, "model.layers.0.mlp.up_proj.weight", 7, np.float32(70000).tobytes()[2:])
    with pytest.raises(
        PackError, match=r"'model\.layers\.0\.mlp\.up_proj\.weight' holds values above 65504"
    ):
        build(source, tmp_path / "out.gguf", "F16")
    kept = values(build(source, tmp_path / "out.gguf", "BF16"))["blk.0.ffn_up.weight"]
    assert kept[0, 7] == pytest.approx(70000, rel=0.01)


def test_rows_that_no_block_divides_are_refused_with_the_tensor_named(tmp_path: Path) -> None:
    from tests.support.make_checkpoint import tiny_shape

    source = checkpoint(tmp_path / "ck", tiny_shape("qwen3", hidden=64, intermediate=100))
    with pytest.raises(
        PackError, match=r"'model\.layers\.0\.mlp\.down_proj\.weight' have 100 elements"
    ) as caught:
        build(source, tmp_path / "out.gguf", "Q4_0")
    assert caught.value.exit_code == ExitCode.INPUT
    assert build(source, tmp_path / "out.gguf", "F16").exists()


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS.values() if preset.imatrix])
def test_presets_that_need_an_importance_matrix_are_refused_without_one(
    preset: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    with pytest.raises(PackError, match=f"{preset} needs an importance matrix") as caught:
        build(source, tmp_path / "out.gguf", preset)
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_unfinished_file_never_bears_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        build(source, tmp_path / "out" / "model.gguf", "Q8_0")
    assert not list((tmp_path / "out").iterdir())


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "Qwen3-0.1B-Instruct", SHAPES["qwen3"])
    found = keys(build(source, tmp_path / "out.gguf", "Q4_K_M"))
    assert found["general.architecture"] == "qwen3"
    assert found["general.name"] == "Qwen3 0.1B Instruct"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert found["qwen3.context_length"] == 2048
    assert found["qwen3.attention.key_length"] == 128
    assert len(found["tokenizer.ggml.tokens"]) == 1024


def test_a_snapshot_of_a_hub_cache_gives_repository_and_revision(tmp_path: Path) -> None:
    revision = "c1899de289a04d12100db370d81485cdf75e47ca"
    source = checkpoint(
        tmp_path / "models--Qwen--Qwen3-0.6B" / "snapshots" / revision, SHAPES["qwen3"]
    )
    found = keys(build(source, tmp_path / "out.gguf", "Q8_0"))
    assert found["general.name"] == "Qwen3 0.6B"
    assert found["general.organization"] == "Qwen"
    assert found["general.source.repo_url"] == "https://huggingface.co/Qwen/Qwen3-0.6B"
    assert found["general.source.url"] == f"https://huggingface.co/Qwen/Qwen3-0.6B/tree/{revision}"


REVISION = "c1899de289a04d12100db370d81485cdf75e47ca"


@pytest.mark.parametrize(
    ("origin", "expected", "absent"),
    [
        (
            {
                "kind": "hub",
                "repo_id": "Qwen/Qwen3-0.6B",
                "revision": REVISION,
                "license": "apache-2.0",
            },
            {
                "general.name": "Qwen3 0.6B",
                "general.author": "Qwen",
                "general.license": "apache-2.0",
                "general.source.url": f"https://huggingface.co/Qwen/Qwen3-0.6B/tree/{REVISION}",
                "general.source.repo_url": "https://huggingface.co/Qwen/Qwen3-0.6B",
            },
            ["general.base_model.count"],
        ),
        (
            {
                "kind": "local",
                "repo_id": "Qwen/Qwen3-0.6B",
                "revision": None,
                "license": "apache-2.0",
            },
            {
                "general.name": "My Tune",
                "general.license": "apache-2.0",
                "general.base_model.0.name": "Qwen3 0.6B",
                "general.base_model.0.organization": "Qwen",
                "general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen3-0.6B",
            },
            ["general.source.url", "general.source.repo_url"],
        ),
        (
            {"kind": "local", "repo_id": "local/my-tune", "revision": None, "license": None},
            {"general.name": "My Tune"},
            ["general.license", "general.base_model.count", "general.source.repo_url"],
        ),
        (
            {
                "kind": "dummy",
                "repo_id": "Qwen/Qwen3-0.6B",
                "revision": None,
                "license": "apache-2.0",
            },
            {"general.name": "Qwen3 0.6B (random weights)", "general.license": "apache-2.0"},
            ["general.source.url", "general.source.repo_url"],
        ),
    ],
)
def test_the_file_says_where_its_weights_come_from_and_nothing_of_this_machine(
    origin: dict[str, object], expected: dict[str, str], absent: list[str], tmp_path: Path
) -> None:
    import json

    source = checkpoint(tmp_path / "my-tune", SHAPES["qwen3"])
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(
        json.dumps({**config, "_name_or_path": f"{tmp_path}/run/last"})
    )
    path = build(source, tmp_path / "out.gguf", "Q8_0", origin=origin)
    found = keys(path)
    assert {key: found.get(key) for key in expected} == expected
    assert not set(absent) & set(found)
    assert str(tmp_path).encode() not in path.read_bytes()
    assert (
        build(source, tmp_path / "again.gguf", "Q8_0", origin=origin).read_bytes()
        == path.read_bytes()
    )
