"""ONNX Runtime GenAI itself on tiny true-architecture checkpoints, in child processes as the
pipeline runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from packager.errors import ExitCode, PackError
from packager.files import regular_files
from targets.onnxruntime import adopted, data, sizes
from tests.support.child_jobs import finish
from tests.support.make_checkpoint import tiny_shape, write_tiny
from tests.support.onnx_engine import CONTEXT, CPU, GPU, QWEN2, QWEN3, RUNTIME, build_all
from tests.support.shipping_packages import opens
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

PROMPTS = [list(range(10, 40)), list(range(300, 340))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("onnx")
    write_tiny(home / "qwen2", shape=QWEN2)
    write_tiny(home / "qwen3", shape=QWEN3)
    return home


@pytest.fixture(scope="module")
def tied(home: Path) -> Path:
    """Every recipe of the Qwen2 checkpoint, whose embedding is tied, in folders named after the
    recipes."""
    return build_all(home, "qwen2", CPU + GPU, "tied")


@pytest.fixture(scope="module")
def untied(home: Path) -> Path:
    """The CPU recipes of the Qwen3 checkpoint, which is not tied."""
    return build_all(home, "qwen3", CPU, "untied")


@pytest.mark.parametrize(
    ("folder", "names"),
    [("tied", CPU + GPU), thorough("untied", CPU)],
    ids=["tied", "untied"],
)
def test_what_every_recipe_writes_is_safe_to_open(
    folder: str, names: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    built: Path = request.getfixturevalue(folder)
    assert all(opens(built / name, "onnxruntime", tmp_path / name) for name in names)


@pytest.mark.parametrize(
    ("folder", "checkpoint", "names"),
    [("tied", "qwen2", CPU + GPU), thorough("untied", "qwen3", CPU)],
    ids=["tied", "untied"],
)
def test_what_every_recipe_writes_follows_from_its_checkpoint(
    home: Path, folder: str, checkpoint: str, names: list[str], request: pytest.FixtureRequest
) -> None:
    folders = [request.getfixturevalue(folder) / name for name in names]
    rows = finish(
        "tests.support.attest_jobs:attest_all",
        home / "attest.log",
        engine="onnxruntime",
        folders=[str(built) for built in folders],
        checkpoint=str(home / checkpoint),
        out=str(home / f"attest-{checkpoint}"),
    )[0].value["rows"]
    for built, row in zip(folders, rows, strict=True):
        assert (row.get("follows"), row.get("different")) == ("exactly", []), (built, row)
        assert ("k_quant" in row["ways"]) is ("k_quant" in built.name), built


@pytest.mark.parametrize("name", CPU)
def test_what_a_recipe_writes_is_known_again_as_that_recipe(tied: Path, name: str) -> None:
    """Rounded and searched blocks look the same in a graph: of two such recipes it is the one that
    rounds."""
    known = adopted.read_folder(tied / name).known
    assert known is not None
    assert known.weights == name.replace("k_quant", "asym")


@pytest.mark.parametrize("name", CPU + GPU)
def test_the_weights_are_as_large_as_the_arithmetic_says_to_the_byte(tied: Path, name: str) -> None:
    recipe = RUNTIME.recipe(name)
    assert (tied / name / "model.onnx.data").stat().st_size == sizes.weight_bytes(
        QWEN2, data.settings_of(recipe)
    )
    whole = sum(path.stat().st_size for path in regular_files(tied / name))
    assert whole == pytest.approx(RUNTIME.artifact_bytes(QWEN2, recipe), abs=60_000)


@pytest.mark.thorough("test_the_weights_are_as_large_as_the_arithmetic_says_to_the_byte")
@pytest.mark.parametrize("name", CPU)
def test_the_arithmetic_holds_without_a_tied_embedding(untied: Path, name: str) -> None:
    assert (untied / name / "model.onnx.data").stat().st_size == sizes.weight_bytes(
        QWEN3, data.settings_of(RUNTIME.recipe(name))
    )


@pytest.mark.parametrize(("checkpoint", "folder"), [("qwen2", "tied"), thorough("qwen3", "untied")])
def test_every_recipe_answers_like_transformers_as_far_as_its_bits_allow(
    checkpoint: str, folder: str, home: Path, request: pytest.FixtureRequest
) -> None:
    # The spread of random weights makes 4 bits look worse than they are: 8 to 12 % error per
    # matrix, doubled by two layers.
    limits = {"fp32": 1e-5, "fp16": 0.01, "int8": 0.03, "int4": 0.4}
    # Graphs for a GPU run on the CPU as well, but for the norm of queries and keys in Qwen3's,
    # which only the GPU's kernels know.
    built: Path = request.getfixturevalue(folder)
    names = CPU + GPU if checkpoint == "qwen2" else CPU
    models = {str(home / checkpoint): {name: str(built / name) for name in names}}
    found, _ = finish(
        "tests.support.onnx_jobs:distances_to_transformers",
        home / "distance.log",
        models=models,
        prompt=PROMPTS[0],
    )
    assert found.value.keys() == models.keys()
    for distances in found.value.values():
        assert set(distances) == set(names)
        for name, distance in distances.items():
            limit = next(limit for precision, limit in limits.items() if precision in name)
            assert distance < limit, (checkpoint, name)
        assert (
            distances["int8_sym_b32"]
            < distances["int4_asym_b32_head8"]
            < distances["int4_asym_b32"]
        )


@pytest.mark.parametrize("name", GPU)
def test_a_package_for_a_gpu_names_its_provider(tied: Path, name: str) -> None:
    options = json.loads((tied / name / "genai_config.json").read_text())["model"]["decoder"][
        "session_options"
    ]["provider_options"]
    assert [list(entry) for entry in options] == [[RUNTIME.recipe(name).provider]]


def test_a_session_for_a_missing_provider_ends_in_a_sentence(tied: Path, home: Path) -> None:
    with pytest.raises(
        PackError, match="made for CUDA, which ONNX Runtime does not have on this machine"
    ) as caught:
        finish(
            "tests.support.onnx_jobs:answer",
            home / "gpu.log",
            artifact=str(tied / "cuda_fp16"),
            prompts=[],
            new_tokens=1,
            stop=True,
        )
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["fp32", "int4_asym_b32"])
def test_the_same_prompt_gives_the_same_tokens_one_by_one(
    tied: Path, home: Path, name: str
) -> None:
    found, _ = finish(
        "tests.support.onnx_jobs:answer",
        home / "answer.log",
        artifact=str(tied / name),
        prompts=PROMPTS,
        new_tokens=12,
        stop=False,
    )
    first, again, second, _ = found.value["returned"]
    assert first == again and first != second
    assert [len(answer) for answer in found.value["returned"]] == [12] * 4
    assert found.value["delivered"] == found.value["returned"]


def test_an_answer_stops_before_the_token_that_ends_a_turn_unless_told_to_go_on(
    tied: Path, home: Path
) -> None:
    artifact = home / "stopping"
    shutil.copytree(tied / "fp32", artifact)
    ask = {"artifact": str(artifact), "prompts": PROMPTS[:1], "new_tokens": 8}
    answer = finish("tests.support.onnx_jobs:answer", home / "stop.log", **ask, stop=False)[
        0
    ].value["returned"][0]
    config = json.loads((artifact / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = [answer[3]]
    (artifact / "genai_config.json").write_text(json.dumps(config))
    stopped = finish("tests.support.onnx_jobs:answer", home / "stop.log", **ask, stop=True)[
        0
    ].value["returned"][0]
    assert stopped == answer[: answer.index(answer[3])]
    assert (
        finish("tests.support.onnx_jobs:answer", home / "stop.log", **ask, stop=False)[0].value[
            "returned"
        ][0]
        == answer
    )


def test_prompt_and_answer_beyond_the_context_are_refused(tied: Path, home: Path) -> None:
    with pytest.raises(
        PackError, match="A prompt of 30 tokens and an answer of 35 exceed the context of 64"
    ) as caught:
        finish(
            "tests.support.onnx_jobs:overrun",
            home / "over.log",
            artifact=str(tied / "fp32"),
            prompt=PROMPTS[0],
            new_tokens=35,
        )
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are counted where /proc lists them"
)
def test_the_number_of_threads_is_the_one_asked_for(tied: Path, home: Path) -> None:
    found, _ = finish(
        "tests.support.onnx_jobs:threads_of",
        home / "threads.log",
        artifact=str(tied / "fp32"),
        threads=4,
    )
    # The calling thread is one of the four.
    assert found.value["more"] == 3


TEXTS = [
    "Hello world",
    "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\n",
    "  two  spaces\n\n\ttabs 123 4567 don't DON'T",
    "héllo wörld 你好 мир 🙂👍🏽",
    "a letter and its accent, e\u0301, are one character",
    " <|im_end|> x",
    "",
]


def test_texts_become_the_tokens_that_the_tokenizers_library_makes(tied: Path, home: Path) -> None:
    artifact = tied / "int4_sym_b32"
    reference = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    found, _ = finish(
        "tests.support.onnx_jobs:speak", home / "speak.log", artifact=str(artifact), texts=TEXTS
    )
    wanted = [reference.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert found.value["ids"] == wanted
    assert found.value["texts"] == [
        reference.decode(ids, skip_special_tokens=False) for ids in wanted
    ]


def test_a_checkpoint_that_suits_no_blocks_is_refused_before_the_builder_starts(home: Path) -> None:
    write_tiny(home / "odd", shape=tiny_shape("qwen2", hidden=96, heads=2, intermediate=128))
    recipe = asdict(RUNTIME.recipe("int4_asym_b32"))
    with pytest.raises(PackError, match="Rows of 96 weights make 3 blocks of 32") as caught:
        finish(
            RUNTIME.build_job,
            home / "odd.log",
            checkpoint=str(home / "odd"),
            recipe=recipe,
            workload={"context": 64},
            out=str(home / "x"),
        )
    assert caught.value.exit_code == ExitCode.INPUT
    assert not (home / "x").exists()


def test_a_damaged_artifact_ends_in_a_sentence(tied: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(tied / "int4_sym_b32", artifact)
    os.truncate(artifact / "model.onnx.data", 1000)
    with pytest.raises(PackError, match="ONNX Runtime cannot load") as caught:
        finish(
            "tests.support.onnx_jobs:speak", tmp_path / "log", artifact=str(artifact), texts=["x"]
        )
    assert caught.value.exit_code == ExitCode.INPUT
    assert "qwen-pack verify" in caught.value.hint


def test_a_listener_that_fails_ends_the_answer_with_its_own_error(
    tied: Path, tmp_path: Path
) -> None:
    with pytest.raises(PackError, match="the listener had enough"):
        finish(
            "tests.support.onnx_jobs:interrupted",
            tmp_path / "log",
            artifact=str(tied / "int4_sym_b32"),
            prompt=PROMPTS[0],
        )


GENUINE = {"Qwen2.5-72B-Instruct-AWQ": "Qwen2.5-Instruct", "Qwen3": "Qwen3"}


@pytest.mark.parametrize("name", GENUINE)
def test_the_genuine_vocabularies_give_the_tokens_of_the_tokenizers_library(
    shared: Path, tied: Path, tmp_path: Path, name: str
) -> None:
    genuine = shared / "qwen" / "tokenizer_json" / f"{name}.tokenizer.json"
    artifact = tmp_path / "artifact"
    shutil.copytree(tied / "int4_sym_b32", artifact)
    shutil.copyfile(genuine, artifact / "tokenizer.json")
    shutil.copyfile(
        shared / "qwen" / "tokenizer_configs" / f"{GENUINE[name]}.tokenizer_config.json",
        artifact / "tokenizer_config.json",
    )
    vectors = (
        (shared / "qwen" / "llama.cpp" / "ggml-vocab-qwen2.gguf.inp")
        .read_text()
        .split("\n__ggml_vocab_test__\n")
    )
    texts = [
        *vectors,
        *TEXTS,
        "<think>\nok\n</think>\n\n",
        "\u00a0x",
        "\u3000全角",
        "a\r\nb\r\n\r\nc",
    ]
    reference = Tokenizer.from_file(str(genuine))
    wanted = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    found, _ = finish(
        "tests.support.onnx_jobs:speak", tmp_path / "log", artifact=str(artifact), texts=texts
    )
    assert found.value["ids"] == wanted
    assert found.value["texts"] == [
        reference.decode(ids, skip_special_tokens=False) for ids in wanted
    ]


def test_the_program_in_the_packages_readme_runs(tied: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(tied / "int4_asym_b32")
    text = RUNTIME.how_to_run(RUNTIME.recipe("int4_asym_b32"), {"context": CONTEXT})
    program = text.partition("```python\n")[2].partition("```")[0]
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout
