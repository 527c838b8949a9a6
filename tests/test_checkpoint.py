"""A checkpoint: what opens, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from packager.checkpoint import Checkpoint
from packager.shape import Experts, Hybrid, Shape, tensors
from tests.support.damage import WEIGHTS, add_tensor, edit_json, hub_snapshot, refused
from tests.support.make_checkpoint import tiny_shape, write_tiny

_DELTA = Hybrid(
    interval=2, key_heads=2, value_heads=4, key_head_dim=16, value_head_dim=16, conv_kernel=4
)
_EXPERTS = Experts(count=4, active=2, intermediate=32, shared_intermediate=48, norm_topk=True)
HYBRIDS = {
    "qwen3_5": Shape("qwen3_5", 64, 2, 2, 1, 32, 96, 1024, True, False, True, 2048, hybrid=_DELTA),
    "qwen3_5_moe": Shape(
        "qwen3_5_moe",
        64,
        2,
        2,
        1,
        32,
        0,
        1024,
        False,
        False,
        True,
        2048,
        experts=_EXPERTS,
        hybrid=_DELTA,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny", tied=False)


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shards", [1, 3])
def test_shape_and_tensors_are_those_that_were_written(
    tmp_path: Path, model_type: str, tied: bool, shards: int
) -> None:
    shape = tiny_shape(model_type, tied=tied)
    checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", shape=shape, shards=shards))
    assert checkpoint.shape == shape
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
        spec.name: spec.shape for spec in tensors(shape)
    }
    assert len({tensor.file for tensor in checkpoint.tensors.values()}) >= shards
    assert checkpoint.weight_bytes == shape.parameters() * 2


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_arrays_are_what_the_safetensors_library_reads(tmp_path: Path, dtype: str) -> None:
    checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", dtype=dtype))
    with safe_open(tmp_path / "tiny" / WEIGHTS, framework="np") as library:
        for name in checkpoint.tensors:
            array = checkpoint.array(name)
            assert array.dtype == library.get_tensor(name).dtype
            assert array.shape == checkpoint.tensors[name].shape
            assert (
                array.tobytes()
                == library.get_tensor(name).tobytes()
                == checkpoint.raw(name).tobytes()
            )


def test_arrays_cannot_be_written_to(folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Checkpoint.open(folder).array("model.norm.weight")[0] = 2


def test_a_released_tensor_can_be_read_again(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    before = checkpoint.raw("lm_head.weight").tobytes()
    checkpoint.release("lm_head.weight")
    assert checkpoint.raw("lm_head.weight").tobytes() == before


def test_opening_reads_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmap.mmap", None)
    Checkpoint.open(folder)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "mtp.fc.weight"])
def test_a_redundant_tensor_is_dropped(tmp_path: Path, name: str) -> None:
    folder = write_tiny(tmp_path / "tiny", tied=True)
    add_tensor(folder / WEIGHTS, name, [16])
    checkpoint = Checkpoint.open(folder)
    assert name not in checkpoint.tensors
    assert checkpoint.dropped == (name,)


def test_a_vocabulary_in_two_files_is_enough(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_bytes())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])
    )
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.tokenizer_json is None
    assert (checkpoint.vocab_json, checkpoint.merges_txt) == (
        folder / "vocab.json",
        folder / "merges.txt",
    )


def test_python_in_the_folder_is_ignored(folder: Path) -> None:
    (folder / "modeling_qwen.py").write_text("raise SystemExit('it was run')")
    assert "modeling_qwen.py" not in Checkpoint.open(folder).files


def test_licences_are_found(folder: Path) -> None:
    (folder / "NOTICE.txt").write_text("notice")
    assert [path.name for path in Checkpoint.open(folder).licenses] == ["LICENSE", "NOTICE.txt"]


def test_the_chat_template_comes_from_the_file_that_takes_precedence(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template="from config")
    assert Checkpoint.open(folder).chat_template == "from config"
    edit_json(
        folder / "tokenizer_config.json",
        chat_template=[{"name": "rag", "template": "x"}, {"name": "default", "template": "named"}],
    )
    assert Checkpoint.open(folder).chat_template == "named"
    (folder / "chat_template.json").write_text('{"chat_template": "from json"}')
    assert Checkpoint.open(folder).chat_template == "from json"
    (folder / "chat_template.jinja").write_text("from jinja")
    assert Checkpoint.open(folder).chat_template == "from jinja"


def test_a_base_model_has_no_chat_template(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template=None)
    assert Checkpoint.open(folder).chat_template is None


def test_a_snapshot_of_the_hub_cache_is_read_through_its_links(tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path)
    assert Checkpoint.open(snapshot).shape == tiny_shape()


def test_what_transformers_saves_opens(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers to save with")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        write_tiny(tmp_path / "tiny"), dtype="float32"
    )
    model.save_pretrained(tmp_path / "saved")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "tiny").save_pretrained(
        tmp_path / "saved"
    )
    saved, ours = Checkpoint.open(tmp_path / "saved"), Checkpoint.open(tmp_path / "tiny")
    assert saved.shape == ours.shape
    assert saved.chat_template == ours.chat_template
    assert np.array_equal(
        saved.array("model.embed_tokens.weight"),
        ours.array("model.embed_tokens.weight").astype(np.float32),
    )


@pytest.mark.parametrize(
    "name", ["Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2-7B-Instruct", "Qwen3-32B"]
)
def test_genuine_configs_are_read(shared: Path, tmp_path: Path, name: str) -> None:
    folder = write_tiny(tmp_path / "tiny")
    genuine = json.loads((shared / "qwen" / "configs" / f"{name}.config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(genuine))
    # The weights are tiny, so the first tensor is what gives way: the config has passed by then.
    refused(
        folder, "model.embed_tokens.weight", str([genuine["vocab_size"], genuine["hidden_size"]])
    )


@pytest.mark.parametrize("model_type", ["qwen3_5", "qwen3_5_moe"])
def test_of_a_model_with_an_image_encoder_the_text_decoder_is_opened(
    model_type: str, tmp_path: Path
) -> None:
    folder = write_tiny(tmp_path, shape=HYBRIDS[model_type])
    text = Checkpoint.open(folder)
    assert text.shape == HYBRIDS[model_type] and text.dropped == ()
    assert set(json.loads((folder / "config.json").read_text())) >= {"text_config", "model_type"}
    beside = (
        "model.visual.blocks.0.attn.qkv.weight",
        "model.visual.merger.norm.bias",
        "mtp.fc.weight",
    )
    for name in beside:
        add_tensor(folder / WEIGHTS, name, [2, 3])
    whole = Checkpoint.open(folder)
    assert set(whole.dropped) == set(beside) and set(whole.tensors) == set(text.tensors)


@pytest.mark.parametrize("name", ["model.audio.conv.weight", "model.language_model.sight.weight"])
def test_only_the_encoder_that_is_known_by_name_is_left_out(name: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path, shape=HYBRIDS["qwen3_5"])
    add_tensor(folder / WEIGHTS, name, [2, 3])
    refused(folder, name)


def test_a_text_checkpoint_has_no_encoder_to_leave_out(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    add_tensor(folder / WEIGHTS, "model.visual.blocks.0.attn.qkv.weight", [2, 3])
    refused(folder, "model.visual.blocks.0.attn.qkv.weight")
