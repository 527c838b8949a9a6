"""OpenVINO without torch: the same model as optimum-intel exports, the same tokenizer, and what the
reader alone would get wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from packager.errors import ExitCode, PackError
from packager.files import regular_files
from packager.reference.rope import frequencies
from packager.shape import tensors
from packager.shape.positions import positions_of
from targets.openvino import OpenVino
from targets.openvino.skeleton import FIRST_MARK, LAST_MARK, narrow
from targets.openvino.tokenizer import added_tokens
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import tiny_shape, write_tiny
from tests.support.shipping_packages import opens
from tests.support.tiers import thorough
from tests.test_openvino_engine import QWEN2, QWEN3, TEXTS, build, digests, finish

pytestmark = pytest.mark.engine

LINEAR = {"type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
CHECKPOINTS: dict[str, tuple[Any, dict[str, Any] | None, str]] = {
    "qwen2": (QWEN2, None, "int4_sym_g128"),
    "qwen3": (QWEN3, None, "int8_asym"),
    "yarn": (QWEN3, YARN, "bf16"),
}


def lifelike(folder: Path, shape: Any, rope: dict[str, Any] | None) -> Path:
    """A tiny checkpoint with norms and biases that are not all one or zero, and with scaled
    positions."""
    write_tiny(folder, shape=shape)
    weights = load_file(folder / "model.safetensors")
    random = np.random.default_rng(1)
    for name, values in weights.items():
        if values.ndim == 1:
            weights[name] = (1 + random.standard_normal(values.shape) / 5).astype(
                ml_dtypes.bfloat16
            )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if rope is not None:
        config = json.loads((folder / "config.json").read_text())
        config["rope_scaling"] = rope
        config["rope_parameters"] = {**rope, "rope_theta": config["rope_theta"]}
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of both architectures, one with YaRN; `NAME-both/light/artifact` of each."""
    home = tmp_path_factory.mktemp("light")
    for name, (shape, rope, _) in CHECKPOINTS.items():
        lifelike(home / name, shape, rope)
    wanted = [
        [str(home / name), recipe, made(home, name, "light")]
        for name, (_, _, recipe) in CHECKPOINTS.items()
    ]
    finish("tests.support.openvino_jobs:in_light_way", home / "log", wanted=wanted)
    return home


@pytest.fixture(scope="module")
def both(home: Path) -> Path:
    """The same folder with those of optimum-intel too, `NAME-both/optimum/artifact`."""
    wanted = [
        ["optimum", str(home / name), recipe, made(home, name, "optimum")]
        for name, (_, _, recipe) in CHECKPOINTS.items()
    ]
    finish("tests.support.openvino_jobs:in_ways", home / "log", wanted=wanted)
    return home


def made(home: Path, name: str, way: str) -> str:
    return str(home / f"{name}-both" / way / "artifact")


@pytest.mark.engine
@pytest.mark.parametrize("way", ["light", thorough("optimum")])
def test_what_both_ways_write_is_safe_to_open(
    way: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    home: Path = request.getfixturevalue("home" if way == "light" else "both")
    assert opens(Path(made(home, "qwen3", way)), "openvino", tmp_path / way)


@pytest.mark.engine
@pytest.mark.thorough(
    "test_every_engine_says_what_the_reference_says",
    "test_every_engine_says_what_transformers_says_or_refuses_before_it_converts",
)
def test_both_ways_give_the_same_logits_over_two_thousand_tokens(both: Path) -> None:
    pairs = [[made(both, name, "light"), made(both, name, "optimum")] for name in CHECKPOINTS]
    # The last pair shows that the comparison sees the scaling of positions.
    pairs.append([made(both, "yarn", "light"), made(both, "qwen3", "light")])
    *same, other = finish(
        "tests.support.openvino_jobs:differences", both / "log", pairs=pairs, tokens=2000
    )[0].value["largest"]
    assert max(same) < 1e-4 and other > 1e-2


@pytest.mark.engine
@pytest.mark.thorough(
    "test_texts_are_encoded_and_decoded_as_the_tokenizers_library_does",
    "test_the_token_that_ends_a_turn_stops_the_answer_and_is_no_part_of_it",
    "test_the_artifact_holds_what_openvino_genai_reads_and_nothing_else",
)
@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_both_ways_give_the_same_tokenizer_template_and_ends(name: str, both: Path) -> None:
    light, optimum = (Path(made(both, name, way)) for way in ("light", "optimum"))
    for part in ("openvino_tokenizer.bin", "openvino_detokenizer.bin", "chat_template.jinja"):
        assert (light / part).read_bytes() == (optimum / part).read_bytes(), part
    ends = [
        json.loads((folder / "generation_config.json").read_text()) for folder in (light, optimum)
    ]
    assert (
        ends[0]["eos_token_id"] == ends[1]["eos_token_id"]
        and ends[0]["pad_token_id"] == ends[1]["pad_token_id"]
    )
    assert {path.name for path in regular_files(light)} == {
        path.name for path in regular_files(optimum)
    }


@pytest.mark.engine
@pytest.mark.parametrize(("weights", "most"), [thorough("q8_0", 0.03), ("q4_0", 0.5)])
def test_blocks_of_ggml_pass_with_the_loss_of_their_type_alone(
    home: Path, weights: str, most: float, tmp_path: Path
) -> None:
    build(home / "yarn", weights, tmp_path / "out", home / "log")
    pair = [str(tmp_path / "out"), made(home, "yarn", "light")]
    # Past the 512 tokens that YaRN stretches from.
    assert (
        0
        < finish("tests.support.openvino_jobs:differences", home / "log", pairs=[pair], tokens=600)[
            0
        ].value["largest"][0]
        < most
    )
    spoken = finish(
        "tests.support.openvino_jobs:speak",
        home / "log",
        artifact=str(tmp_path / "out"),
        texts=TEXTS,
    )[0].value
    reference = Tokenizer.from_file(str(home / "yarn" / "tokenizer.json"))
    assert spoken["ids"] == [reference.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.mark.engine
def test_two_builds_of_blocks_are_the_same_bytes_in_any_place(home: Path, tmp_path: Path) -> None:
    for number in ("1", "2"):
        source = shutil.copytree(home / "qwen2", tmp_path / number / "checkpoint")
        build(source, "q4_0", tmp_path / number / "out", home / "log")
    assert digests(tmp_path / "1" / "out") == digests(tmp_path / "2" / "out")


@pytest.mark.engine
def test_a_prompt_of_more_than_8192_tokens_is_not_cut(home: Path) -> None:
    text = "a b " * 10_000
    artifact = made(home, "qwen3", "light")
    spoken = finish(
        "tests.support.openvino_jobs:speak", home / "log", artifact=artifact, texts=[text]
    )[0].value
    assert (
        len(spoken["ids"][0])
        == len(Tokenizer.from_file(str(home / "qwen3" / "tokenizer.json")).encode(text).ids)
        > 8192
    )


@pytest.mark.engine
def test_no_torch_is_loaded_for_a_dense_model_compressed_or_not(home: Path, tmp_path: Path) -> None:
    compression = OpenVino().recipe("int4_sym_g128").settings["compression"]
    script = (
        "import sys; from pathlib import Path; from tests.support.make_checkpoint import Silent; "
        "from targets.openvino import light\n"
        f"for name, compression in (('plain', None), ('compressed', {compression!r})):\n"
        f"    (Path({str(tmp_path)!r}) / name).mkdir()\n"
        f"    light.export(Silent(), Path({str(home / 'qwen3')!r}), compression, "
        f"Path({str(tmp_path)!r}) / name / 'out')\n"
        "print(sorted({'torch', 'transformers', 'optimum', 'llama_cpp'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.engine
def test_a_weight_that_is_no_number_is_named_and_nothing_stays(home: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(home / "qwen3", tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    values = np.array(weights["model.layers.1.mlp.up_proj.weight"])
    values[3, 5] = np.inf
    weights["model.layers.1.mlp.up_proj.weight"] = values
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    for recipe in ("int8_asym", "q8_0"):
        with pytest.raises(
            PackError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight'.* holds NaN or infinity"
        ) as refused:
            build(broken, recipe, tmp_path / "place" / "out", home / "log")
        assert refused.value.exit_code is ExitCode.INPUT
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.engine
def test_a_damaged_artifact_is_bad_input_in_one_sentence(home: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made(home, "qwen3", "light"), tmp_path / "damaged")
    graph = (damaged / "openvino_model.xml").read_text()
    (damaged / "openvino_model.xml").write_text(graph[: len(graph) // 2])
    with pytest.raises(PackError) as refused:
        finish(
            "tests.support.openvino_jobs:speak", home / "log", artifact=str(damaged), texts=["a"]
        )
    assert refused.value.exit_code is ExitCode.INPUT
    assert (
        refused.value.message.startswith(f"OpenVINO cannot load {damaged}: ")
        and "\n" not in refused.value.message
    )


def test_yarn_stretches_the_slow_pairs_and_leaves_the_fast_ones() -> None:
    shape = tiny_shape("qwen3", head_dim=64, context=32768)
    plain, scaled, halved = (
        positions_of({"rope_theta": 1e6, "rope_scaling": rope}, shape, "config.json")
        for rope in (None, YARN, LINEAR)
    )
    assert plain.amplitude == 1.0 and scaled.amplitude == pytest.approx(0.1 * np.log(4) + 1)
    kept, stretched = frequencies(plain), frequencies(scaled)
    assert stretched[0] == kept[0] and stretched[-1] == pytest.approx(kept[-1] / 4)
    assert np.all(stretched <= kept) and np.all(np.diff(stretched) < 0)
    assert np.allclose(frequencies(halved), kept / 2)


def test_the_largest_dense_qwen_has_marks_to_spare_and_a_graph_of_kilobytes() -> None:
    # Source: config.json of Qwen/Qwen2.5-72B-Instruct.
    largest = tiny_shape(
        "qwen2",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        intermediate=29568,
        vocab=152064,
        tied=False,
    )
    specs = list(tensors(largest))
    assert len(specs) < LAST_MARK - FIRST_MARK
    assert sum(int(np.prod(narrow(spec))) for spec in specs) * 2 < 20_000_000


def test_added_tokens_of_both_files_are_known_and_the_named_ones_are_special() -> None:
    definition = {
        "added_tokens": [
            {"id": 7, "content": "<a>", "special": False},
            {"id": 5, "content": "<b>", "special": True},
        ]
    }
    config = {
        "added_tokens_decoder": {"9": {"content": "<c>", "special": False}},
        "eos_token": {"content": "<c>"},
        "pad_token": None,
    }
    found = added_tokens(definition, config)
    assert [(token["id"], token["special"]) for token in found] == [
        (5, True),
        (7, False),
        (9, True),
    ]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [("q4_k_m", "rounds the minimum"), ("Q4_1", "rounds the minimum"), ("q5_k_m", "does not read")],
)
def test_a_type_that_the_reader_changes_is_refused_with_the_reason(
    weights: str, reason: str
) -> None:
    with pytest.raises(PackError, match=reason) as refused:
        OpenVino().recipe(weights)
    assert refused.value.exit_code is ExitCode.USAGE and "q4_0" in refused.value.hint


def test_only_shapes_that_the_reader_knows_do_without_torch() -> None:
    runtime = OpenVino()
    dense, mixture = QWEN3, replace(QWEN3, model_type="qwen3_moe")
    recipe = runtime.recipe("int4_sym_g128")
    assert (
        runtime.tools(dense, recipe).extra == "openvino"
        and "torch" not in runtime.tools(dense, recipe).distributions
    )
    assert (
        runtime.tools(mixture, recipe).extra == "openvino-optimum"
        and "torch" in runtime.tools(mixture, recipe).distributions
    )
    assert runtime.obstacle(mixture, recipe) is None
    assert "qwen3_moe" in (runtime.obstacle(mixture, runtime.recipe("q4_0")) or "")
    assert "blocks of 32" in (
        runtime.obstacle(replace(dense, intermediate=100), runtime.recipe("q8_0")) or ""
    )
