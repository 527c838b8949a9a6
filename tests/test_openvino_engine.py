"""OpenVINO itself on tiny true-architecture checkpoints, in child processes as the pipeline runs
it."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from packager.errors import ExitCode, PackError
from packager.files import regular_files, sha256
from packager.process import JobResult, Note, Progress
from targets.openvino import OpenVino, data, sizes
from targets.openvino.stored import weights_of
from tests.support.child_jobs import finish
from tests.support.folder_damage import overwritten
from tests.support.gguf_checkpoints import SHAPES, checkpoint
from tests.support.make_checkpoint import write_tiny
from tests.support.openvino_engine import QWEN2, QWEN3, build
from tests.support.shipping_packages import opens
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

RECIPES = [recipe.weights for recipe in OpenVino().recipes()]
ALIKE = ("q8_0", "int4_sym_g64", "int4_asym_g128")
"""Those that differ from others by a number."""
BY_RECIPE = [thorough(name) if name in ALIKE else name for name in RECIPES]
Built = tuple[Path, JobResult, list[Progress | Note]]
PROMPTS = [list(range(10, 40)), list(range(300, 340))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("openvino")
    write_tiny(home / "qwen2", shape=QWEN2)
    write_tiny(home / "qwen3", shape=QWEN3)
    return home


@pytest.fixture(scope="module")
def artifacts(home: Path) -> Path:
    """Recipes of the Qwen2 checkpoint, in folders named after them."""
    return built(home, [name for name in RECIPES if name not in ALIKE])


@pytest.fixture(scope="module")
def alike(home: Path) -> Path:
    """And those that are like another."""
    return built(home, list(ALIKE))


def built(home: Path, recipes: list[str]) -> Path:
    finish(
        "tests.support.openvino_jobs:build_all",
        home / "log",
        checkpoint=str(home / "qwen2"),
        recipes=recipes,
        out=str(home / "all"),
    )
    return home / "all"


@pytest.fixture
def artifact(weights: str, request: pytest.FixtureRequest) -> Path:
    """That of one recipe."""
    every: Path = request.getfixturevalue("alike" if weights in ALIKE else "artifacts")
    return every / weights


@pytest.fixture(scope="module")
def untied(home: Path) -> Built:
    """The Qwen3 checkpoint, which is not tied, by the job as the pipeline calls it."""
    out = home / "untied" / "out"
    return out, *build(home / "qwen3", "int4_sym_g128", out, home / "log")


def test_what_every_recipe_writes_is_safe_to_open(
    artifacts: Path, untied: Built, tmp_path: Path
) -> None:
    for recipe in RECIPES:
        assert recipe in ALIKE or opens(artifacts / recipe, "openvino", tmp_path / recipe)
    assert opens(untied[0], "openvino", tmp_path / "untied")


@pytest.mark.thorough("test_what_every_recipe_writes_is_safe_to_open")
def test_what_recipes_write_that_are_like_another_is_safe_to_open(
    alike: Path, tmp_path: Path
) -> None:
    assert all(opens(alike / recipe, "openvino", tmp_path / recipe) for recipe in ALIKE)


ATTESTED = ("bf16", "int8_sym", "int4_asym_g64", "q4_0")
"""One of every kind; the last has its embedding as Q8_0."""


def test_what_a_recipe_writes_follows_from_its_checkpoint(
    home: Path, artifacts: Path, untied: Built, tmp_path: Path
) -> None:
    other = overwritten(artifacts / "q4_0", tmp_path / "other", "openvino")
    for source, folders in (
        ("qwen2", [*(artifacts / recipe for recipe in ATTESTED), other]),
        ("qwen3", [untied[0]]),
    ):
        rows = finish(
            "tests.support.attest_jobs:attest_all",
            home / "attest.log",
            engine="openvino",
            folders=[str(folder) for folder in folders],
            checkpoint=str(home / source),
            out=str(home / f"attest-{source}"),
        )[0].value["rows"]
        for folder, row in zip(folders, rows, strict=True):
            assert row["metadata"]["network"] == [], folder
            assert row["tensors"] > 20
            if folder == other:
                (different,) = row["different"]
                assert different["name"] == "model.layers.0.mlp.up_proj.weight"
                assert (row["follows"], different["type"]) == ("not", "q4_0")
                continue
            assert (row.get("follows"), row.get("different")) == ("exactly", []), (folder, row)
            if folder.name == "q4_0":
                assert row["recipe"] == "openvino:q4_0"
                assert row["ways"] == {"ggml": 15}


@pytest.mark.parametrize("weights", ["int8_sym", "q4_0"])
def test_every_layer_has_one_product_of_its_name_where_an_adapter_looks_for_it(
    artifacts: Path, weights: str
) -> None:
    graph = ElementTree.parse(artifacts / weights / "openvino_model.xml")
    products = [row.get("name", "") for row in graph.iter("layer") if row.get("type") == "MatMul"]
    for layer in range(QWEN2.layers):
        for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.down"):
            name = f"model.layers.{layer}.{part}_proj"
            assert len([title for title in products if name in title]) == 1, name


@pytest.mark.thorough("test_what_a_recipe_writes_follows_from_its_checkpoint")
def test_experts_in_one_constant_are_compared_with_those_of_the_checkpoint(tmp_path: Path) -> None:
    experts = SHAPES["qwen2_moe"].experts
    assert experts is not None
    # Narrower than the model: a matrix that is turned is another one.
    shape = replace(SHAPES["qwen2_moe"], experts=replace(experts, intermediate=128))
    source = checkpoint(tmp_path / "ck", shape)
    folder, other = tmp_path / "int8_sym", tmp_path / "other"
    build(source, "int8_sym", folder, tmp_path / "log")
    shutil.copytree(folder, other)
    up = next(
        row for row in weights_of(other / "openvino_model.xml") if ".0.mlp.experts.*.up" in row.name
    )
    assert (up.rows, up.columns, len(up.parts)) == (4 * 128, 256, 4)
    with (other / "openvino_model.bin").open("r+b") as file:
        # The last expert.
        file.seek(up.data.offset + 3 * 128 * 256)
        file.write(bytes(128 * 256))
    exactly, not_so = finish(
        "tests.support.attest_jobs:attest_all",
        tmp_path / "log",
        engine="openvino",
        folders=[str(folder), str(other)],
        checkpoint=str(source),
        out=str(tmp_path / "attest"),
    )[0].value["rows"]
    assert (exactly.get("follows"), exactly.get("different")) == ("exactly", []), exactly
    assert exactly["recipe"] == "openvino:int8_sym"
    (row,) = not_so["different"]
    name = "model.layers.0.mlp.experts.{}.up_proj.weight"
    assert row["name"] == f"{name.format(0)} to {name.format(3)}"
    assert row["near"] is False and 0.2 < row["bytes"] < 0.25


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in regular_files(folder)}


def constants(artifact: Path) -> Iterator[tuple[str, str]]:
    """Name and element type of every constant of the graph."""
    for layer in ElementTree.parse(artifact / "openvino_model.xml").iter("layer"):
        if layer.get("type") == "Const":
            yield layer.get("name", ""), layer.find("data").get("element_type", "")  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", BY_RECIPE)
def test_the_artifact_is_as_large_as_the_arithmetic_says(artifact: Path, weights: str) -> None:
    compression = OpenVino().recipe(weights).settings["compression"]
    # The constants of the graph itself, and equal norms that the file stores once, are not counted:
    # 4 kB at most here.
    assert (artifact / "openvino_model.bin").stat().st_size == pytest.approx(
        sizes.totals(QWEN2, compression).stored, abs=4096
    )
    graph = data.costs().graph_bytes(QWEN2, compression)
    # Ones are no weights to a graph of ggml's blocks: it has no norms here.
    within = 0.005 if weights not in ("q8_0", "q4_0") else 0.02
    assert (artifact / "openvino_model.xml").stat().st_size == pytest.approx(graph, rel=within)


def test_the_arithmetic_holds_without_a_tied_embedding(untied: Built) -> None:
    compression = OpenVino().recipe("int4_sym_g128").settings["compression"]
    out = untied[0]
    assert (out / "openvino_model.bin").stat().st_size == pytest.approx(
        sizes.totals(QWEN3, compression).stored, abs=4096
    )
    assert (out / "openvino_model.xml").stat().st_size == pytest.approx(
        data.costs().graph_bytes(QWEN3, compression), rel=0.005
    )


@pytest.mark.parametrize(
    "weights",
    [thorough(name) if name in ALIKE else name for name in RECIPES if name.startswith("int")],
)
def test_the_graph_holds_the_settings_of_the_recipe(artifact: Path, weights: str) -> None:
    settings = OpenVino().recipe(weights).settings["compression"]
    root = ElementTree.parse(artifact / "openvino_model.xml")
    said = {item.tag: item.get("value") for item in root.find(".//weight_compression")}  # type: ignore[union-attr]
    mode = f"int{settings['bits']}_{'sym' if settings['sym'] else 'asym'}"
    assert (said["mode"], said["group_size"], said["ratio"]) == (
        mode,
        str(settings["group_size"]),
        "1.0",
    )
    assert (said["awq"], said["gptq"], said["scale_estimation"], said["lora_correction"]) == (
        "False",
    ) * 4
    types = dict(constants(artifact))
    layer = {"int4_sym": "i4", "int4_asym": "u4", "int8_sym": "i8", "int8_asym": "u8"}[mode]
    assert types["model.layers.1.mlp.down_proj.weight"] == layer
    wide = settings["bits"] == 4 and not settings["all_layers"]
    assert types["model.embed_tokens.weight"] == ("u8" if wide else layer)


def test_unquantized_weights_keep_the_type_of_the_checkpoint(artifacts: Path) -> None:
    types = dict(constants(artifacts / "bf16"))
    assert {kind for name, kind in types.items() if name.endswith("_proj.weight")} == {"bf16"}


def test_the_artifact_holds_what_openvino_genai_reads_and_nothing_else(untied: Built) -> None:
    assert {path.name for path in regular_files(untied[0])} == {
        *(
            f"openvino_{part}.{end}"
            for part in ("model", "tokenizer", "detokenizer")
            for end in ("bin", "xml")
        ),
        *("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert untied[1].value["artifact_bytes"] == sum(
        path.stat().st_size for path in regular_files(untied[0])
    )


def test_the_conversion_tells_its_steps_and_its_bytes(untied: Built) -> None:
    _, result, messages = untied
    assert [message.text for message in messages if isinstance(message, Note)] == [
        "loading the engine",
        "building the graph",
        "compressing the weights",
        "writing the model",
        "converting the tokenizer",
    ]
    written = [message.done for message in messages if isinstance(message, Progress)]
    assert written == sorted(written) and written[-1] > 0
    assert result.peak_bytes > 100_000_000


def test_two_builds_in_different_places_hold_the_same_bytes_and_no_place(
    home: Path, untied: Built, tmp_path: Path
) -> None:
    moved = shutil.copytree(home / "qwen3", tmp_path / "elsewhere")
    build(moved, "int4_sym_g128", tmp_path / "again", home / "log")
    assert digests(tmp_path / "again") == digests(untied[0])
    for path in regular_files(tmp_path / "again"):
        assert not any(str(place).encode() in path.read_bytes() for place in (tmp_path, home)), (
            path.name
        )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kv", data.kv_bits())
@pytest.mark.parametrize("weights", ["int4_sym_g128", "int8_asym", "bf16"])
def test_every_token_is_delivered_and_the_same_prompt_gives_the_same_answer(
    home: Path, artifacts: Path, weights: str, kv: str
) -> None:
    questions = {
        "artifact": str(artifacts / weights),
        "kv": kv,
        "prompts": PROMPTS,
        "new_tokens": 12,
        "stop": False,
    }
    answers = finish("tests.support.openvino_jobs:answer", home / "log", **questions)[0].value
    assert answers["returned"] == answers["delivered"]
    assert [len(tokens) for tokens in answers["returned"]] == [12] * 4
    assert (
        answers["returned"][0]
        == answers["returned"][1]
        != answers["returned"][2]
        == answers["returned"][3]
    )


def test_the_token_that_ends_a_turn_stops_the_answer_and_is_no_part_of_it(
    home: Path, artifacts: Path, tmp_path: Path
) -> None:
    questions = {"kv": "u8", "prompts": PROMPTS[:1], "new_tokens": 12}
    running_on = finish(
        "tests.support.openvino_jobs:answer",
        home / "log",
        artifact=str(artifacts / "bf16"),
        stop=False,
        **questions,
    )[0].value
    free = running_on["returned"][0]
    end = free[5]
    ending = shutil.copytree(artifacts / "bf16", tmp_path / "ending")
    config = json.loads((ending / "generation_config.json").read_text())
    (ending / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [end]}))
    stopped = finish(
        "tests.support.openvino_jobs:answer",
        home / "log",
        artifact=str(ending),
        stop=True,
        **questions,
    )[0].value
    assert stopped["returned"][0] == stopped["delivered"][0] == free[: free.index(end)]


TEXTS = [
    "",
    "<|im_start|>user\nbala besu <think>\n\n</think> 42<|im_end|>\n",
    " leading and trailing  \t\n\n",
    "def f(x):\r\n    return x**2  # é ü ß",
    "你好，世界 🎉👩‍👩‍👧 \u0301 \u200b",
]


def test_texts_are_encoded_and_decoded_as_the_tokenizers_library_does(
    home: Path, artifacts: Path
) -> None:
    reference = Tokenizer.from_file(str(home / "qwen2" / "tokenizer.json"))
    expected = [reference.encode(text, add_special_tokens=False).ids for text in TEXTS]
    spoken = finish(
        "tests.support.openvino_jobs:speak",
        home / "log",
        artifact=str(artifacts / "bf16"),
        texts=TEXTS,
    )[0].value
    assert spoken["ids"] == expected
    assert spoken["texts"] == [reference.decode(ids, skip_special_tokens=False) for ids in expected]


def test_an_answer_longer_than_the_context_is_refused(home: Path, artifacts: Path) -> None:
    with pytest.raises(PackError) as refused:
        finish("tests.support.openvino_jobs:exceed", home / "log", artifact=str(artifacts / "bf16"))
    assert refused.value.exit_code is ExitCode.USAGE
    assert "60 tokens and an answer of 5 exceed the context of 64" in refused.value.message


def test_what_a_listener_raises_comes_out_and_the_session_lives_on(
    home: Path, artifacts: Path
) -> None:
    value = finish(
        "tests.support.openvino_jobs:listen_badly", home / "log", artifact=str(artifacts / "bf16")
    )[0].value
    assert value == {"error": "enough", "heard": 3, "after": 4}
