"""An importance matrix collected here: the squares that go into every matrix, per expert where
there are several; from text to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.plan.additions import Additions, parse
from packager.runtime import Report
from targets.gguf.imatrix import read_imatrix
from targets.llama_cpp import LlamaCpp, ggml_tensor
from targets.llama_cpp.build import build as build_job
from targets.llama_cpp.calibration import collect
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.make_checkpoint import Notes

pytestmark = pytest.mark.engine

WORDS = "the quick brown fox jumps over a lazy dog while seven wizards pack boxes with liquor jugs "


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text(WORDS * 40)
    return path


@pytest.fixture(scope="module", params=["qwen2", "qwen3_moe"])
def collected(
    request: pytest.FixtureRequest, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """Name of the shape, the checkpoint, and its importance matrix."""
    folder = tmp_path_factory.mktemp(request.param)
    source = checkpoint(folder / "ck", SHAPES[request.param], dtype="F32")
    model = build(source, folder / "m.gguf", "F16")
    collect(model, text, folder / "imatrix.gguf", Notes(), threads=1)
    return request.param, source, folder / "imatrix.gguf"


def squares_of_transformers(folder: Path, text: Path, chunks: int) -> dict[str, Any]:
    """Mean square of what goes into some matrices, by transformers in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"][: chunks * 512]
    seen: dict[str, list[Any]] = {}

    def watch(name: str) -> Any:
        return lambda _module, given: seen.setdefault(name, []).append(
            given[0].detach().reshape(-1, given[0].shape[-1])
        )

    layer = model.model.layers[1]
    layer.self_attn.q_proj.register_forward_pre_hook(watch("blk.1.attn_q.weight"))
    layer.self_attn.o_proj.register_forward_pre_hook(watch("blk.1.attn_output.weight"))
    if hasattr(layer.mlp, "down_proj"):
        layer.mlp.down_proj.register_forward_pre_hook(watch("blk.1.ffn_down.weight"))
    with torch.no_grad():
        for at in range(0, len(ids), 512):
            model(torch.tensor([ids[at : at + 512]]))
    return {name: torch.cat(rows).pow(2).mean(0).numpy() for name, rows in seen.items()}


def test_the_means_are_those_of_what_transformers_computes(
    collected: tuple[str, Path, Path], text: Path
) -> None:
    name, source, file = collected
    if name != "qwen2":
        pytest.skip("the dense model shows it, and costs less")
    found = read_imatrix(file)
    assert found.chunks and found.chunks >= 2
    for name, theirs in squares_of_transformers(source, text, found.chunks).items():
        assert np.allclose(found.weights[name][0], theirs, rtol=0.05, atol=0.01 * theirs.max()), (
            name
        )


def test_every_matrix_of_every_layer_has_an_entry(collected: tuple[str, Path, Path]) -> None:
    name, _, file = collected
    found = read_imatrix(file)
    per_layer = 7 if name == "qwen2" else 8
    assert len(found.weights) == per_layer * SHAPES[name].layers
    assert (found.chunk_tokens, found.dataset) == (512, "calibration.txt")
    assert all((weights > 0).any() for weights in found.weights.values())


def test_each_expert_counts_its_own_tokens(collected: tuple[str, Path, Path]) -> None:
    name, _, file = collected
    if name != "qwen3_moe":
        pytest.skip("a dense model has no experts")
    import gguf

    counts = {
        tensor.name: tensor.data.reshape(-1)
        for tensor in gguf.GGUFReader(file).tensors
        if tensor.name.endswith(".counts")
    }
    chunks = read_imatrix(file).chunks or 0
    # Two of four experts for every token.
    assert counts["blk.0.ffn_up_exps.weight.counts"].shape == (4,)
    assert counts["blk.0.ffn_up_exps.weight.counts"].sum() == 2 * chunks * 512
    assert counts["blk.0.attn_q.weight.counts"].tolist() == [chunks * 512]


def test_the_layout_of_a_tensor_is_compared_with_one_that_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ggml_tensor.checked_layout().product > 0

    class Moved(ggml_tensor.Tensor):
        _fields_ = (("more", ggml_tensor.ctypes.c_int64),)

    def moved(address: int | None) -> ggml_tensor.Tensor:
        return Moved.from_address((address or 0) + 8)

    ggml_tensor.checked_layout.cache_clear()
    monkeypatch.setattr(ggml_tensor, "at", moved)
    with pytest.raises(PackError, match="lays its tensors out"):
        ggml_tensor.checked_layout()
    ggml_tensor.checked_layout.cache_clear()


def job(
    source: Path, out: Path, additions: Additions, weights: str = "IQ3_XS", **inputs: str
) -> tuple[dict[str, Any], list[str]]:
    """The build job with a recipe that carries the additions, as a plan hands it over."""
    from dataclasses import asdict

    recipe = asdict(LlamaCpp().with_additions(additions).recipe(weights))
    recipe["inputs"] = {"checkpoint_key": "k", "origin": None, **inputs}
    report = Notes()
    listener: Report = report
    facts = build_job(listener, checkpoint=str(source), recipe=recipe, workload={}, out=str(out))
    return facts, report.notes


def test_a_text_is_enough_for_a_preset_that_needs_importances_and_is_read_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    added = parse(None, text, [])
    facts, notes = job(source, tmp_path / "one", added, calibration=str(text))
    assert facts["types"]["IQ3_XXS"] > 0
    assert facts["importance"]["file"] == "calibration.txt"
    assert facts["importance"]["chunks"] >= 2
    assert not any("collected before" in note for note in notes)
    again, notes = job(source, tmp_path / "two", added, "Q4_0", calibration=str(text))
    assert any("collected before" in note for note in notes)
    assert again["importance"] == facts["importance"]
    assert not list((tmp_path / "cache" / "stages").glob("*/*.gguf.part"))
    assert [path.name for path in (tmp_path / "cache" / "stages").glob("imatrix-*/*.gguf")] == [
        "imatrix.gguf"
    ]


@pytest.mark.parametrize(
    ("data", "words"), [(b"too short", "tokens"), (b"\xff\xfe not utf-8 " * 400, "UTF-8")]
)
def test_a_text_that_cannot_serve_is_refused_in_a_sentence(
    data: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    model = build(checkpoint(tmp_path / "ck", SHAPES["qwen2"]), tmp_path / "m.gguf", "Q8_0")
    with pytest.raises(PackError, match=words) as caught:
        collect(model, path, tmp_path / "i.gguf", Notes())
    assert caught.value.exit_code == ExitCode.INPUT
    assert not (tmp_path / "i.gguf").exists()


def test_a_file_that_changed_since_the_plan_is_refused(text: Path, tmp_path: Path) -> None:
    changed = tmp_path / "text.txt"
    changed.write_text("one")
    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    with pytest.raises(PackError, match="has changed"):
        job(source, tmp_path / "out", parse(None, text, []), calibration=str(changed))
