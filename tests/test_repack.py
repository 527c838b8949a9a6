"""What a checkpoint stores in groups of 4 bits becomes the same groups in every engine: the weights
are those of the dequantized checkpoint, and what a format does not hold is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.checkpoint import Checkpoint, codes
from packager.errors import ExitCode, PackError
from packager.pipeline.climb import _arguments
from packager.plan.additions import Additions, applied, for_folder, parse
from packager.process import run_job
from packager.reference import Reference
from packager.runtime import Report
from targets import registry
from targets.gguf.convert import convert
from targets.gguf.repacked import encode
from targets.llama_cpp import LlamaCpp
from targets.onnxruntime import OnnxRuntime, data, sizes
from targets.openvino import OpenVino
from tests.conftest import REPOSITORY
from tests.support.building import command
from tests.support.gguf_checkpoints import FIRST, values
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.quantized_checkpoints import write
from tests.support.shipping_packages import finish
from tests.support.stored_groups import EXACT, REFUSED, TAKEN, by_awq, by_compressed, by_gptq
from tests.support.tiers import thorough

IDS = [5, 300, 17, 900, 44, 44, 12, 7]
SHAPE = tiny_shape("qwen3", hidden=128, intermediate=256)
RECIPE = "bf16"
"""What is not stored in 4 bits stays as it is, so that nothing else can be lost."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("plain") / "base", shape=SHAPE)


def stored(plain: Path, folder: Path, way: tuple[Any, dict[str, Any]]) -> Path:
    write(plain, folder, *way, dtype="float32")
    return folder


def logits_of_all(report: Report, *, checkpoints: list[str], out: str) -> dict[str, Any]:
    """A job: each checkpoint built with its groups as they are, and its logits computed in
    float32."""
    import openvino

    from targets.openvino import light

    exact = {
        "KV_CACHE_PRECISION": "f32",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    count = len(IDS)
    given = {
        "input_ids": np.array([IDS]),
        "attention_mask": np.ones((1, count), np.int64),
        "position_ids": np.arange(count)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    rows = []
    for number, checkpoint in enumerate(checkpoints):
        home = Path(out) / str(number)
        home.mkdir(parents=True)
        light.export(report, Path(checkpoint), None, home / "out", 512, repack=True)
        core = openvino.Core()
        model = core.read_model(home / "out" / "openvino_model.xml")
        request = core.compile_model(model, "CPU", exact).create_infer_request()
        request.infer(given)
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        kinds = [node.get_element_type().get_type_name() for node in constants]
        logits = request.get_output_tensor(0).data[0]
        rows.append({"u4": kinds.count("u4"), "logits": logits.tolist()})
    return {"rows": rows}


def onnx_logits_of_all(report: Report, *, checkpoints: list[str], out: str) -> dict[str, Any]:
    """A job: each checkpoint built in 32 bits with its groups as they are, and its logits."""
    import onnx

    from targets.onnxruntime.convert import convert
    from targets.onnxruntime.session import OnnxRuntimeSession

    rows = []
    for number, checkpoint in enumerate(checkpoints):
        home = Path(out) / str(number)
        recipe = asdict(OnnxRuntime(repack=True).recipe("fp32"))
        arguments = {"checkpoint": checkpoint, "recipe": recipe, "out": str(home)}
        convert(report, workload={"context": 512}, **arguments)
        nodes = onnx.load(home / "model.onnx", load_external_data=False).graph.node
        session = OnnxRuntimeSession(str(home), {"context": 512, "kv": "f32", "threads": 1})
        logits = np.concatenate(list(session.logits(IDS))).tolist()
        session.close()
        blocks = [
            attribute.i
            for node in nodes
            if node.op_type == "MatMulNBits"
            for attribute in node.attribute
            if attribute.name == "block_size"
        ]
        rows.append({"blocks": blocks, "logits": logits, "bytes": artifact_bytes(home)})
    return {"rows": rows}


def artifact_bytes(folder: Path) -> int:
    return (folder / "model.onnx.data").stat().st_size


def llama_logits_of_all(report: Report, *, files: list[str]) -> dict[str, Any]:
    """A job: the logits of each GGUF."""
    from targets.llama_cpp.session import Session

    rows = []
    for file in files:
        session = Session(file, {"context": 512, "kv": "f16", "threads": 1})
        rows.append(np.concatenate(list(session.logits(IDS))).tolist())
        session.close()
    return {"rows": rows}


def wanted_logits(folder: Path) -> Any:
    return Reference.compute(Checkpoint.open(folder), [IDS], Silent()).logits(0)


@pytest.mark.engine
def test_openvino_gives_the_logits_of_the_dequantized_checkpoint(
    plain: Path, tmp_path: Path
) -> None:
    folders = [
        stored(plain, tmp_path / str(number), way) for number, way in enumerate(TAKEN.values())
    ]
    first = tmp_path / "first"
    write(write_tiny(tmp_path / "qwen", shape=FIRST), first, *by_gptq(32), dtype="float32")
    folders.append(first)
    arguments = {"checkpoints": [str(path) for path in folders], "out": str(tmp_path / "out")}
    built = finish(run_job("tests.test_repack:logits_of_all", arguments, tmp_path / "log")).value
    for folder, row in zip(folders, built["rows"], strict=True):
        wanted = wanted_logits(folder)
        np.testing.assert_allclose(row["logits"], wanted, atol=1e-4 * np.abs(wanted).max())
        # Numbers and zero points of every matrix that is stored in 4 bits; the first generation's
        # fused attention is three.
        taken = codes.taken_over(Checkpoint.open(folder), "OpenVINO")
        assert row["u4"] == 2 * len(taken)


@pytest.mark.engine
@pytest.mark.thorough("test_openvino_gives_the_logits_of_the_dequantized_checkpoint")
def test_onnx_runtime_gives_the_logits_of_the_dequantized_checkpoint(
    plain: Path, tmp_path: Path
) -> None:
    cases = ("GPTQ, asymmetric", "AWQ", "compressed-tensors, symmetric")
    folders = [stored(plain, tmp_path / str(at), TAKEN[name]) for at, name in enumerate(cases)]
    first = tmp_path / "first"
    write(write_tiny(tmp_path / "qwen", shape=FIRST), first, *by_gptq(32), dtype="float32")
    folders.append(first)
    arguments = {"checkpoints": [str(path) for path in folders], "out": str(tmp_path / "out")}
    job = "tests.test_repack:onnx_logits_of_all"
    built = finish(run_job(job, arguments, tmp_path / "log")).value["rows"]
    for folder, row, group in zip(folders, built, (128, 64, 32, 32), strict=True):
        wanted = wanted_logits(folder)
        np.testing.assert_allclose(row["logits"], wanted, atol=1e-4 * np.abs(wanted).max())
        # Queries, keys and values are one product; narrower rows are one group.
        assert len(row["blocks"]) == 5 * Checkpoint.open(folder).shape.layers
        assert max(row["blocks"]) == group
    sizes_known = OnnxRuntime(repack=True, group=32)
    settings = data.settings_of(sizes_known.recipe("fp32"))
    assert built[2]["bytes"] == sizes.weight_bytes(SHAPE, settings)


@pytest.mark.engine
def test_blocks_of_ggml_are_the_dequantized_numbers_to_the_bit(plain: Path, tmp_path: Path) -> None:
    folders, files = [], []
    for name, kind in EXACT.items():
        folder = stored(plain, tmp_path / name, TAKEN[name])
        file = tmp_path / f"{name}.gguf"
        facts = convert(folder, file, "Q8_0", overrides={"token_embd": "F32"}, repack=True)
        opened = Checkpoint.open(folder)
        count = sum(info.made is not None for info in opened.tensors.values())
        assert facts["repacked"] == facts["types"][kind] == count
        written = values(file)
        for official, short in (("self_attn.o_proj", "attn_output"), ("mlp.down_proj", "ffn_down")):
            for layer in range(opened.shape.layers):
                wanted = opened.array(f"model.layers.{layer}.{official}.weight")
                np.testing.assert_array_equal(written[f"blk.{layer}.{short}.weight"], wanted)
        folders.append(folder)
        files.append(file)
    job = "tests.test_repack:llama_logits_of_all"
    arguments = {"files": [str(file) for file in files]}
    rows = finish(run_job(job, arguments, tmp_path / "log")).value["rows"]
    for folder, logits in zip(folders, rows, strict=True):
        wanted = wanted_logits(folder)
        # The engine rounds activations to 8 bits; a wrong block would be another model.
        assert np.abs(logits - wanted).max() < 0.03 * np.abs(wanted).max()


TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3"
WHOLE = {
    "gguf:Q8_0": by_gptq(32),
    "openvino:bf16": by_awq(64),
    "onnx:fp32": by_gptq(32, symmetric=False),
}


@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["gguf:Q8_0", thorough("openvino:bf16"), thorough("onnx:fp32")])
def test_a_trained_model_keeps_its_groups_through_the_whole_build(
    recipe: str, tmp_path: Path
) -> None:
    way = WHOLE[recipe]
    folder, package = stored(TRAINED, tmp_path / "source", way), tmp_path / "package"
    words = ["build", "--target", "laptop-cpu", "--weights", str(folder), "--context", "256"]
    words += ["--recipe", recipe, "--repack", "--out", str(package)]
    done = command(*words, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["recipe"]["id"] == f"{recipe}/repack"
    assert manifest["build"]["repacked"] == 7 * 4
    assert manifest["source"]["quantized"].startswith(str(way[1]["quant_method"]).upper())
    quality = manifest["quality"]
    # The gate's reference is the dequantized checkpoint: what is left is how an engine rounds
    # activations, and the embedding in 8 bits of a GGUF.
    assert quality["kl_mean"] < 0.005 and quality["top1"] > 0.95, (recipe, quality)


def test_the_first_generations_fused_matrices_keep_their_groups_in_gguf(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    expected = write(write_tiny(tmp_path / "plain", shape=FIRST), folder, *by_gptq(128))
    convert(folder, tmp_path / "q.gguf", "Q8_0", repack=True)
    written = values(tmp_path / "q.gguf")
    fused = expected["transformer.h.1.attn.c_attn.weight"]
    np.testing.assert_allclose(written["blk.1.attn_qkv.weight"], fused, atol=1e-4)
    info = Checkpoint.open(folder).tensors["transformer.h.1.attn.c_attn.weight"]
    assert info.made is not None
    np.testing.assert_array_equal(
        written["blk.1.attn_qkv.weight"], info.made.rows(0, info.shape[0])
    )


def test_zero_points_that_q4_1_does_not_hold_are_refused_with_the_number(
    plain: Path, tmp_path: Path
) -> None:
    folder = stored(plain, tmp_path / "stored", TAKEN["AWQ"])
    with pytest.raises(
        PackError, match=r"zero point \d+ in row \d+.*does not fit into the 16 bits"
    ) as caught:
        convert(folder, tmp_path / "out.gguf", "Q8_0", repack=True)
    assert caught.value.exit_code is ExitCode.USAGE
    assert "by llama.cpp" in caught.value.message
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("case", TAKEN)
def test_codes_are_the_dequantized_numbers(case: str, plain: Path, tmp_path: Path) -> None:
    opened = Checkpoint.open(stored(plain, tmp_path / "stored", TAKEN[case]))
    parts = codes.taken_over(opened, "an engine")
    assert len(parts) == 7 * SHAPE.layers
    for name, part in parts.items():
        made = opened.tensors[name].made
        assert made is not None
        for first, count in ((0, None), (3, 9)):
            read = part.codes(first, count)
            zeros, scales = (np.repeat(half, read.group, 1) for half in (read.zeros, read.scales))
            numbers = (read.numbers.astype(np.float32) - zeros) * scales
            end = opened.tensors[name].shape[0] if count is None else first + count
            np.testing.assert_array_equal(numbers, made.rows(first, end))


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_engine_holds_as_it_is_is_refused_with_the_reason(
    case: str, plain: Path, tmp_path: Path
) -> None:
    way, why = REFUSED[case]
    opened = Checkpoint.open(stored(plain, tmp_path / "stored", way))
    with pytest.raises(PackError, match=why) as caught:
        codes.taken_over(opened, "OpenVINO", codes.beyond_16_bits)
    assert caught.value.exit_code is ExitCode.USAGE
    assert "by OpenVINO" in caught.value.message
    assert "Leave --repack out" in caught.value.hint


def test_a_checkpoint_that_is_not_quantized_has_nothing_to_take_over(plain: Path) -> None:
    with pytest.raises(PackError, match="stores nothing in groups of 4 bits"):
        codes.taken_over(Checkpoint.open(plain), "OpenVINO")


def test_scales_beyond_16_bits_are_held_by_onnx_runtime_in_32_bits_alone(
    plain: Path, tmp_path: Path
) -> None:
    quantize, told = by_compressed(32, True)

    def fine(name: str, weight: Any) -> Any:
        parts, stands_for = quantize(name, weight)
        scale = parts["weight_scale"].astype(np.float32) * np.float32(1.0001)
        return {**parts, "weight_scale": scale}, stands_for

    opened = Checkpoint.open(stored(plain, tmp_path / "stored", (fine, told)))
    assert codes.taken_over(opened, "ONNX Runtime")
    with pytest.raises(PackError, match="scales that 16 bits do not hold"):
        codes.taken_over(opened, "ONNX Runtime", codes.beyond_16_bits)


@given(
    rows=st.integers(1, 4),
    blocks=st.integers(1, 5),
    group=st.sampled_from(codes.GROUPS),
    seed=st.integers(0, 99),
)
def test_packed_numbers_are_read_back_by_an_independent_reader(
    rows: int, blocks: int, group: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 16, (rows, blocks * group), np.uint8)
    scales = (random.integers(1, 64, (rows, blocks)) / 1024).astype(np.float32)
    for kind, zeros in (
        ("Q4_0", np.full((rows, blocks), 8, np.uint8)),
        ("Q4_1", random.integers(0, 16, (rows, blocks), np.uint8)),
    ):
        whole = codes.Codes(numbers, zeros, scales)
        size = {"Q4_0": 18, "Q4_1": 20}[kind] * numbers.size // 32
        out = np.zeros(size, np.uint8)
        encode(kind, whole, out)
        read = gguf.quants.dequantize(out.reshape(rows, -1), gguf.GGMLQuantizationType[kind])
        difference = numbers - np.repeat(zeros, group, 1).astype(np.float32)
        np.testing.assert_array_equal(read, difference * np.repeat(scales, group, 1))


def test_the_recipe_says_that_groups_were_taken_over() -> None:
    additions = parse(None, None, (), repack=True)
    names = {"gguf": "Q8_0", "openvino": "int4_asym_g128", "onnx": "int4_sym_b32"}
    runtimes = applied(registry.runtimes(), additions)
    assert {runtime.prefix for runtime in runtimes} == set(names)
    for runtime in runtimes:
        name = names[runtime.prefix]
        recipe = runtime.recipe(name)
        assert recipe.id == f"{runtime.prefix}:{name}/repack"
        assert recipe.settings["repack"] is True
        assert "as the checkpoint stores them" in recipe.summary
        assert runtime.obstacle(SHAPE, recipe) is None
        assert runtime.obstacle(FIRST, recipe) is None
        # The engine is tried with a model of its own, which has no groups to take over.
        trials = _arguments(runtime, runtime.ladder(), "work")["trials"]
        assert not any(trial["built"]["settings"].get("repack") for trial in trials)
        whole = registry.runtime(runtime.name).recipe(name)
        assert runtime.artifact_bytes(SHAPE, recipe) > 0
        assert whole.id == recipe.id.removesuffix("/repack")
    openvino = OpenVino(repack=True)
    assert "ggml's blocks" in str(openvino.obstacle(SHAPE, openvino.recipe("q4_0")))
    with pytest.raises(PackError, match="nothing is added to"):
        parse(None, None, ("attn_v=Q8_0",), repack=True)


def test_the_size_is_that_of_the_groups_that_a_folder_says(plain: Path, tmp_path: Path) -> None:
    folder = stored(plain, tmp_path / "stored", by_awq(64))
    known = for_folder(Additions(repack=True), str(folder))
    assert known.group == 64
    assert for_folder(Additions(repack=True), str(plain)).group is None
    for make in (OpenVino, OnnxRuntime):
        coarse, fine = (make(repack=True, group=group) for group in (None, 32))
        name = {"openvino": "bf16", "onnxruntime": "fp32"}[make.name]
        small, large, plainly = (
            some.artifact_bytes(SHAPE, some.recipe(name)) for some in (coarse, fine, make())
        )
        assert small < large < plainly
        assert fine.recipe(name).settings["repack_group"] == 32
    # Blocks of ggml have their own size: what is left is that of Q4_0 between ends of Q8_0.
    llama, repacked = LlamaCpp(), LlamaCpp().with_repack(64)
    sizes_of = {name: llama.artifact_bytes(FIRST, llama.recipe(name)) for name in ("Q8_0", "Q4_0")}
    taken = repacked.artifact_bytes(FIRST, repacked.recipe("Q8_0"))
    assert sizes_of["Q4_0"] < taken < sizes_of["Q8_0"]
