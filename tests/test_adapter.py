"""LoRA adapters merged while the tensors are read: what PEFT computes, in every form that it
saves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.checkpoint.adapter import CONFIG, WEIGHTS, Adapter
from packager.checkpoint.composed import compose
from packager.checkpoint.numbers import to_float32
from packager.errors import PackError
from packager.reference import Reference
from packager.sources import adapters as loras
from tests.support.adapters import QUERY, changed_weights, composed, low_rank
from tests.support.damage import edit_json
from tests.support.gguf_checkpoints import FIRST, build, values
from tests.support.make_checkpoint import Silent, write_tiny

IDS = [5, 300, 17, 900, 44, 44, 12, 7]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Model = Any


def logits(checkpoint: Checkpoint, ids: list[int] | None = None) -> np.ndarray[Any, Any]:
    return Reference.compute(checkpoint, [ids or IDS], Silent()).logits(0)


def saved_by_peft(
    base: Path, folder: Path, prepare: Callable[[Model], None] = lambda model: None, **config: Any
) -> np.ndarray[Any, Any]:
    """Save an adapter with random numbers; returns the logits of PEFT's own, unmerged model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    prepare(model)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ALL, "task_type": "CAUSAL_LM"} | config
    trained = get_peft_model(model, LoraConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) * 0.1
                parameter.copy_(parameter + noise if "magnitude" in name else noise)
        trained.save_pretrained(folder)
        return trained(input_ids=torch.tensor([IDS])).logits[0].numpy()


def grow(model: Model) -> None:
    model.resize_token_embeddings(1032, mean_resizing=False)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("qwen3", {}),
    "rsLoRA": ("qwen3", {"use_rslora": True}),
    "ranks and alphas by pattern": (
        "qwen3",
        {
            "rank_pattern": {"q_proj": 8, r"layers\.1\.mlp\.up_proj": 2},
            "alpha_pattern": {"o_proj": 3, r"^model\.layers\.0\.mlp\.down_proj": 20},
        },
    ),
    "DoRA": ("qwen3", {"use_dora": True}),
    "all biases": ("qwen2", {"bias": "all"}),
    "biases of the adapter itself": (
        "qwen2",
        {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    ),
    "fan_in_fan_out, which linear layers do not have": ("qwen2", {"fan_in_fan_out": True}),
    "every linear layer by one word": ("qwen3", {"target_modules": "all-linear"}),
    "an output matrix of its own": ("qwen3", {"modules_to_save": ["lm_head"]}),
    "a trained embedding": ("qwen3", {"modules_to_save": ["embed_tokens"]}),
    "LoRA on the embedding": ("qwen3", {"target_modules": ["q_proj", "embed_tokens"]}),
    "LoRA on the output matrix": ("qwen2", {"target_modules": ["q_proj", "lm_head"]}),
    "new tokens": ("qwen3", {"prepare": grow, "modules_to_save": ["embed_tokens", "lm_head"]}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_the_merged_model_says_what_peft_says(form: str, tmp_path: Path) -> None:
    kind, config = FORMS[form]
    base = write_tiny(tmp_path / "base", kind, dtype="F32", tied=kind == "qwen3")
    expected = saved_by_peft(base, tmp_path / "adapter", **config)
    merged = composed(tmp_path / "merged", base, Adapter.open(tmp_path / "adapter"))
    assert merged.shape.vocab == expected.shape[1] == merged.config["vocab_size"]
    assert np.abs(logits(Checkpoint.open(base)) - expected[:, :1024]).max() > 0.01
    np.testing.assert_allclose(logits(merged), expected, atol=2e-4 * np.abs(expected).max())
    assert not merged.as_published
    assert merged.config["tie_word_embeddings"] is merged.shape.tied


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "base")


def delta(folder: Path, module: str, scale: float) -> np.ndarray[Any, Any]:
    tensors = load_file(folder / WEIGHTS)
    up, down = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "BA")
    return scale * (up.astype(np.float64) @ down.astype(np.float64))


def test_several_adapters_add_up_by_their_scales(base: Path, tmp_path: Path) -> None:
    one = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    two = low_rank(tmp_path / "two", {QUERY: (64, 64), "model.layers.1.mlp.up_proj": (128, 64)})
    merged = composed(tmp_path / "m", base, Adapter.open(one, 0.5), Adapter.open(two, -2.0))
    stored = to_float32(Checkpoint.open(base).array(f"{QUERY}.weight"))
    expected = stored + delta(one, QUERY, 0.5 * 2) + delta(two, QUERY, -2 * 2)
    found = to_float32(merged.array(f"{QUERY}.weight"))
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-6)
    untouched = "model.layers.0.mlp.up_proj.weight"
    assert merged.raw(untouched) == Checkpoint.open(base).raw(untouched)


def test_a_number_is_the_same_whatever_is_read_beside_it(base: Path, tmp_path: Path) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    merged = composed(tmp_path / "m", base, Adapter.open(adapter))
    made = merged.tensors[f"{QUERY}.weight"].made
    assert made is not None
    whole = made.rows(0, 64)
    assert all((made.rows(row, row + 1) == whole[row]).all() for row in range(64))
    gguf = values(build(merged.folder, tmp_path / "m.gguf", "BF16"))["blk.0.attn_q.weight"]
    assert (gguf == to_float32(merged.array(f"{QUERY}.weight"))).all()


def test_names_of_the_first_generation(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base", shape=FIRST)
    module = "transformer.h.1.attn.c_attn"
    adapter = low_rank(tmp_path / "one", {module: (768, 256)})
    merged = composed(tmp_path / "m", base, Adapter.open(adapter))
    stored = to_float32(Checkpoint.open(base).array(f"{module}.weight"))
    expected = stored + delta(adapter, module, 2)
    np.testing.assert_allclose(
        to_float32(merged.array(f"{module}.weight")), expected, rtol=2**-8, atol=1e-6
    )


def test_names_as_they_stand_in_a_model_that_was_not_saved_by_peft(
    base: Path, tmp_path: Path
) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    tensors = load_file(adapter / WEIGHTS)
    renamed = {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): value
        for name, value in tensors.items()
    }
    save_file(renamed, adapter / WEIGHTS)
    assert set(Adapter.open(adapter).low_rank) == {QUERY}
    composed(tmp_path / "m", base, Adapter.open(adapter))


def test_the_tokenizer_and_the_template_of_the_adapter_stand_before_those_of_the_base(
    base: Path, tmp_path: Path
) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, adapter / name)
    edit_json(adapter / "tokenizer_config.json", chat_template=None, marked=True)
    kept = composed(tmp_path / "kept", base, Adapter.open(adapter))
    assert kept.tokenizer_config["marked"]
    assert kept.chat_template == Checkpoint.open(base).chat_template
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}")
    own = composed(tmp_path / "own", base, Adapter.open(adapter))
    assert own.chat_template == "{{ messages[0].content }}"
    other = shutil.copytree(adapter, tmp_path / "two")
    (other / "chat_template.jinja").write_text("another")
    with pytest.raises(PackError, match="bring another chat_template"):
        compose(tmp_path / "x", base, [Adapter.open(adapter), Adapter.open(other)])


def test_a_whole_tensor_has_no_scale_and_is_brought_by_one_adapter_alone(
    base: Path, tmp_path: Path
) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    changed_weights(
        lambda tensors: tensors.update(
            {"base_model.model.model.norm.weight": np.ones(64, np.float32)}
        )
    )(adapter)
    with pytest.raises(PackError, match="has no scale"):
        Adapter.open(adapter, 0.5)
    other = shutil.copytree(adapter, tmp_path / "two")
    with pytest.raises(PackError, match="Two adapters both store"):
        composed(tmp_path / "m", base, Adapter.open(adapter), Adapter.open(other))


def test_the_base_that_an_adapter_names_is_taken_where_nothing_else_names_one(
    tmp_path: Path,
) -> None:
    adapter = low_rank(
        tmp_path / "one", {QUERY: (64, 64)}, base_model_name_or_path="Qwen/QWEN3-0.6B"
    )
    source = loras.parse([f"{adapter}:0.5"])
    assert source[0].scale == 0.5
    assert loras.base_named(source) == "Qwen/QWEN3-0.6B"
    edit_json(adapter / CONFIG, base_model_name_or_path="me/mine")
    with pytest.raises(PackError, match="'me/mine'"):
        loras.base_named(source)
