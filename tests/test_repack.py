"""What a checkpoint stores in groups of 4 bits becomes the same groups in OpenVINO: the logits are
those of the dequantized checkpoint within float error, and what no graph can hold is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint, codes
from packager.errors import ExitCode, PackError
from packager.plan.additions import Additions, applied, parse
from packager.process import run_job
from packager.reference import Reference
from packager.runtime import Report
from targets import registry
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.quantized_checkpoints import awq, compressed, gptq, write
from tests.test_shipping_archive import finish

IDS = [5, 300, 17, 900, 44, 44, 12, 7]
SHAPE = tiny_shape("qwen3", hidden=128, intermediate=256)
RECIPE = "bf16"
"""What is not stored in 4 bits stays as it is, so that nothing else can be lost."""


def by_gptq(group: int = 32, bits: int = 4, **more: Any) -> tuple[Any, dict[str, Any]]:
    told = {"quant_method": "gptq", "bits": bits, "group_size": group}
    return gptq(bits, group, **more), told


def by_awq(group: int) -> tuple[Any, dict[str, Any]]:
    return awq(group), {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}


def by_compressed(group: int, symmetric: bool) -> tuple[Any, dict[str, Any]]:
    weights = {"weights": {"num_bits": 4, "group_size": group}}
    told = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return compressed(4, group, symmetric), told | {"config_groups": {"group_0": weights}}


TAKEN = {
    "GPTQ, symmetric": by_gptq(32),
    "GPTQ, asymmetric": by_gptq(128, symmetric=False),
    "AWQ": by_awq(64),
    "compressed-tensors": by_compressed(32, False),
}
REFUSED = {
    "act-order": (by_gptq(32, act=True), "another order"),
    "odd groups": (by_gptq(16), "16 groups for 256 columns"),
    "a group for a row": (by_gptq(-1), "1 groups for 256 columns"),
    "3 bits": (by_gptq(32, bits=3), "stored in 3 bits"),
}


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


@pytest.mark.engine
def test_repacked_groups_give_the_logits_of_the_dequantized_checkpoint(
    plain: Path, tmp_path: Path
) -> None:
    folders = [
        stored(plain, tmp_path / str(number), way) for number, way in enumerate(TAKEN.values())
    ]
    arguments = {"checkpoints": [str(path) for path in folders], "out": str(tmp_path / "out")}
    found = finish(run_job("tests.test_repack:logits_of_all", arguments, tmp_path / "log")).value
    for folder, row in zip(folders, found["rows"], strict=True):
        opened = Checkpoint.open(folder)
        wanted = Reference.compute(opened, [IDS], Silent()).logits(0)
        np.testing.assert_allclose(row["logits"], wanted, atol=1e-4 * np.abs(wanted).max())
        # Numbers and zero points of every matrix that is stored in 4 bits.
        assert row["u4"] == 2 * sum(info.made is not None for info in opened.tensors.values())


@pytest.mark.parametrize("case", TAKEN)
def test_codes_are_the_dequantized_numbers(case: str, plain: Path, tmp_path: Path) -> None:
    opened = Checkpoint.open(stored(plain, tmp_path / "stored", TAKEN[case]))
    rows = [info for info in opened.tensors.values() if info.made is not None]
    assert rows
    for info in rows:
        assert info.made is not None
        assert codes.why_not(info.made) is None
        found = codes.of(info.made)
        size = info.shape[1] // found.scales.shape[1]
        zeros, scales = (np.repeat(part, size, 1) for part in (found.zeros, found.scales))
        values = (found.numbers.astype(np.float32) - zeros) * scales.astype(np.float32)
        np.testing.assert_array_equal(values, info.made.rows(0, info.shape[0]))


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_graph_holds_as_it_is_is_refused_with_the_reason(
    case: str, plain: Path, tmp_path: Path
) -> None:
    from targets.openvino.repacked import refuse_without

    way, why = REFUSED[case]
    opened = Checkpoint.open(stored(plain, tmp_path / "stored", way))
    with pytest.raises(PackError, match=why) as caught:
        refuse_without(opened)
    assert caught.value.exit_code is ExitCode.USAGE
    assert "Leave --repack out" in caught.value.hint


def test_a_checkpoint_that_is_not_quantized_has_nothing_to_take_over(plain: Path) -> None:
    from targets.openvino.repacked import refuse_without

    with pytest.raises(PackError, match="stores nothing in groups of 4 bits"):
        refuse_without(Checkpoint.open(plain))


def test_the_recipe_says_that_groups_were_taken_over(tmp_path: Path) -> None:
    additions = parse(None, None, (), repack=True)
    (runtime,) = applied(registry.runtimes(), additions)
    recipe = runtime.recipe("int4_asym_g128")
    assert recipe.id == "openvino:int4_asym_g128/repack"
    assert recipe.settings["repack"] is True
    assert "as the checkpoint stores them" in recipe.summary
    assert runtime.obstacle(SHAPE, recipe) is None
    assert "ggml's blocks" in str(runtime.obstacle(SHAPE, runtime.recipe("q4_0")))
    assert "alone" in str(runtime.obstacle(tiny_shape("qwen"), recipe))
    with pytest.raises(PackError, match=r"--repack cannot be added to gguf:Q4_0"):
        applied(registry.runtimes(), Additions(repack=True), "gguf:Q4_0")
    with pytest.raises(PackError, match="nothing is added to"):
        parse(None, None, ("attn_v=Q8_0",), repack=True)
