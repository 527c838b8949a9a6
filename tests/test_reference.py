"""The reference forward pass: what transformers computes in float32, for every generation that it
knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.reference import Reference
from packager.shape import Experts, Hybrid, Shape
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny

pytestmark = pytest.mark.slow

EXPERTS = Experts(count=4, active=2, intermediate=48, norm_topk=True)
UNNORMALISED = Experts(count=4, active=2, intermediate=48, shared_intermediate=80)
SHARED = Experts(count=4, active=2, intermediate=48, shared_intermediate=80, norm_topk=True)
HYBRID = Hybrid(
    interval=2, key_heads=2, value_heads=4, key_head_dim=16, value_head_dim=24, conv_kernel=4
)


def shape(
    model_type: str, *, bias: bool = False, norm: bool = False, intermediate: int = 96, **more: Any
) -> Shape:
    return Shape(model_type, 64, 4, 4, 2, 32, intermediate, 512, False, bias, norm, 1024, **more)


SHAPES = {
    "qwen2": tiny_shape("qwen2", heads=4, kv_heads=2, tied=False),
    "qwen2-tied": tiny_shape("qwen2", heads=4, kv_heads=1),
    "qwen3": tiny_shape("qwen3", heads=4, kv_heads=2),
    "qwen2_moe": shape("qwen2_moe", bias=True, experts=UNNORMALISED),
    "qwen3_moe": shape("qwen3_moe", norm=True, experts=EXPERTS),
    "qwen3_next": shape("qwen3_next", norm=True, experts=SHARED, hybrid=HYBRID),
    "qwen3_5_text": shape("qwen3_5_text", norm=True, hybrid=HYBRID),
    "qwen3_5_moe_text": shape(
        "qwen3_5_moe_text", norm=True, intermediate=0, experts=SHARED, hybrid=HYBRID
    ),
}


def speaking(folder: Path, model: Shape, dtype: str = "F32") -> Path:
    """A checkpoint whose logits are large and whose norms differ from one: a mistake anywhere
    shows."""
    write_tiny(folder, shape=model, dtype=dtype)
    random = np.random.default_rng(1)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, value in tensors.items():
        noise = random.normal(0, 0.2, value.shape).astype(value.dtype)
        tensors[name] = (
            value + noise if "norm" in name or value.ndim == 1 else value * value.dtype.type(6)
        )
    save_file(tensors, file, {"format": "pt"})
    return folder


def sequences(vocab: int, *lengths: int) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(2)
    return [random.integers(0, vocab, length) for length in lengths]


def of_transformers(folder: Path, sequence: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits (tokens, vocabulary) in float32."""
    transformers = pytest.importorskip(
        "transformers", reason="needs transformers, which comes with the openvino and onnx extras"
    )
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model(torch.tensor(sequence[None])).logits[0].numpy()


def reference(folder: Path, given: list[np.ndarray[Any, Any]]) -> Reference:
    return Reference.compute(Checkpoint.open(folder), given, Silent())


def assert_equal(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.engine
@pytest.mark.parametrize("name", list(SHAPES))
def test_the_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = speaking(tmp_path, SHAPES[name])
    given = sequences(SHAPES[name].vocab, 70, 9)
    found = reference(folder, given)
    for number, sequence in enumerate(given):
        theirs = of_transformers(folder, sequence)
        assert np.abs(theirs).max() > 1, "weights that say something"
        assert_equal(found.logits(number), theirs)


@pytest.mark.engine
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "yarn",
            "factor": 2.5,
            "original_max_position_embeddings": 64,
            "beta_fast": 24,
            "truncate": False,
        },
        {"rope_type": "linear", "factor": 2.0},
    ],
    ids=["yarn", "yarn-untruncated", "linear"],
)
def test_scaled_positions_are_those_of_transformers(
    scaling: dict[str, Any], tmp_path: Path
) -> None:
    folder = speaking(tmp_path, SHAPES["qwen3"])
    change_config(
        folder,
        rope_scaling={**scaling, "rope_theta": 10_000.0},
        rope_theta=10_000.0,
        rope_parameters=None,
    )
    [sequence] = given = sequences(1024, 100)
    plain = Reference.compute(
        Checkpoint.open(speaking(tmp_path / "plain", SHAPES["qwen3"])), given, Silent()
    )
    found = reference(folder, given)
    assert_equal(found.logits(0), of_transformers(folder, sequence))
    assert np.abs(found.logits(0) - plain.logits(0)).max() > 0.1


@pytest.mark.engine
def test_a_sliding_window_is_that_of_transformers(tmp_path: Path) -> None:
    folder = speaking(tmp_path, SHAPES["qwen2"])
    change_config(folder, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    [sequence] = given = sequences(1024, 40)
    assert_equal(reference(folder, given).logits(0), of_transformers(folder, sequence))


def test_what_stands_behind_a_token_does_not_touch_it_and_neither_do_other_sequences(
    tmp_path: Path,
) -> None:
    for name in ("qwen3", "qwen3_next"):
        folder = speaking(tmp_path / name, SHAPES[name])
        first, second = sequences(SHAPES[name].vocab, 300, 20)
        together = reference(folder, [first, second])
        assert_equal(reference(folder, [first[:270]]).logits(0), together.logits(0, end=270))
        assert_equal(reference(folder, [second]).logits(0), together.logits(1))


def test_many_sequences_are_taken_in_groups_and_come_out_as_if_alone(tmp_path: Path) -> None:
    folder = speaking(tmp_path, SHAPES["qwen3"])
    given = sequences(1024, 900, 1100, 500, 2100, 3)
    found = reference(folder, given)
    for number in (0, 2, 3, 4):
        assert_equal(
            found.logits(number, end=40), reference(folder, [given[number][:40]]).logits(0)
        )


def test_blocks_are_the_log_probabilities_of_every_token_in_order(tmp_path: Path) -> None:
    folder = speaking(tmp_path, SHAPES["qwen2-tied"])
    given = sequences(1024, 50, 7)
    found = reference(folder, given)
    blocks = list(found.blocks(tokens=20))
    assert [(block.sequence, block.start, len(block.log_probabilities)) for block in blocks] == [
        (0, 0, 20),
        (0, 20, 20),
        (0, 40, 10),
        (1, 0, 7),
    ]
    for block in blocks:
        logits = found.logits(
            block.sequence, block.start, block.start + len(block.log_probabilities)
        ).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        assert np.abs(block.log_probabilities - expected).max() < 1e-5
        assert block.log_probabilities.dtype == np.float32


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_weights_are_taken_as_the_numbers_they_stand_for(
    dtype: str, tmp_path: Path
) -> None:
    write_tiny(tmp_path / "half", shape=SHAPES["qwen3"], dtype=dtype)
    shutil.copytree(tmp_path / "half", tmp_path / "full")
    stored = Checkpoint.open(tmp_path / "half")
    full = {name: stored.array(name).astype(np.float32) for name in stored.tensors}
    save_file(full, tmp_path / "full" / "model.safetensors", {"format": "pt"})
    given = sequences(1024, 30)
    assert np.array_equal(
        reference(tmp_path / "half", given).logits(0), reference(tmp_path / "full", given).logits(0)
    )


def test_a_kept_reference_says_the_same_and_belongs_to_its_key_and_sequences_alone(
    tmp_path: Path,
) -> None:
    folder = write_tiny(tmp_path / "ck")
    checkpoint = Checkpoint.open(folder)
    given = sequences(1024, 12, 5)
    found = Reference.compute(checkpoint, given, Silent())
    path = tmp_path / "kept" / "reference.safetensors"
    assert Reference.load(path, checkpoint, given, key="a") is None
    found.save(path, key="a")
    again = Reference.load(path, checkpoint, given, key="a")
    assert again is not None and np.array_equal(again.logits(1), found.logits(1))
    assert Reference.load(path, checkpoint, given, key="b") is None
    assert Reference.load(path, checkpoint, [given[0], given[1][:4]], key="a") is None
    assert Reference.load(path, checkpoint, [np.concatenate(given)], key="a") is None


def test_a_damaged_kept_reference_is_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "ck")
    path = tmp_path / "reference.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(PackError) as failure:
        Reference.load(path, Checkpoint.open(folder), sequences(1024, 3), key="a")
    assert str(path) in failure.value.message and failure.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("bad", [[], [1024], [-1], [[1, 2]], [0.5]])
def test_what_is_no_sequence_of_token_ids_is_refused(bad: list[Any], tmp_path: Path) -> None:
    with pytest.raises(PackError) as failure:
        Reference.compute(Checkpoint.open(write_tiny(tmp_path)), [bad], Silent())
    assert failure.value.exit_code == ExitCode.USAGE


def test_no_sequences_have_no_blocks(tmp_path: Path) -> None:
    assert list(reference(write_tiny(tmp_path), []).blocks()) == []


def test_an_unknown_rope_type_is_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    change_config(folder, rope_scaling={"rope_type": "spiral", "factor": 2.0})
    with pytest.raises(
        PackError,
        match=r"config\.json: rope_scaling\.rope_type is 'spiral', which is not computed here",
    ):
        reference(folder, sequences(1024, 3))


def change_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
