"""Folders that optimum-intel and the model builder of onnxruntime-genai wrote: told apart, refused
in a sentence, or taken as they are."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from packager.errors import ExitCode, PackError
from packager.plan.adopted import Adopted
from packager.plan.adoption import adoptable, recognise
from packager.process import resolve, run_job
from packager.sources.hub_file import fetched
from targets import registry
from targets.onnxruntime.adopted import AdoptedOnnx
from targets.onnxruntime.adopted import recipe_of as onnx_recipe
from targets.onnxruntime.stored import Blocks, StoredWeights, weights_of
from targets.openvino.adopted import AdoptedOpenVino
from targets.openvino.adopted import recipe_of as openvino_recipe
from tests.conftest import REPOSITORY
from tests.support.building import command
from tests.support.exporters import exported
from tests.support.folder_damage import NOT_COMPARED, ONNX, OPENVINO, overwritten
from tests.support.hub_server import COMMIT, Hub, serve
from tests.support.make_checkpoint import Silent
from tests.support.shipping_packages import finish
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

MODEL = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture(scope="module")
def openvino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as optimum-intel exports it, in 4 bits."""
    folder = tmp_path_factory.mktemp("exported") / "tiny-int4-ov"
    exported(
        folder.with_name("log"),
        *("optimum.commands.optimum_cli", "export", "openvino", "--model", str(MODEL)),
        *("--task", "text-generation-with-past", "--weight-format", "int4"),
        *("--group-size", "64", "--ratio", "1.0", "--sym", str(folder)),
    )
    return folder


@pytest.fixture(scope="module")
def light_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by our own converter, which is quicker, with the tokenizer beside it."""
    folder = tmp_path_factory.mktemp("light") / "tiny-int4-ov"
    runtime = registry.runtime("openvino")
    arguments: dict[str, Any] = {
        "checkpoint": str(MODEL),
        "recipe": asdict(runtime.recipe("int4_sym_g128")),
        "workload": {"context": 512},
        "out": str(folder),
    }
    finish(run_job(runtime.build_job, arguments, folder.with_name("log")))
    shutil.copy(MODEL / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as the model builder makes it with its own defaults, in 4 bits."""
    home = tmp_path_factory.mktemp("builder")
    exported(
        home / "log",
        *("onnxruntime_genai.models.builder", "-i", str(MODEL), "-o", str(home / "tiny-onnx")),
        *("-p", "int4", "-e", "cpu", "-c", str(home / "cache")),
    )
    return home / "tiny-onnx"


def told(place: Path) -> Adopted:
    model = adoptable(str(place), registry.runtimes())
    assert model is not None
    return model


def described(place: Path, out: Path) -> dict[str, Any]:
    model = told(place)
    files = [str(path) for path in model.files]
    return dict(resolve(model.describe)(Silent(), files=files, out=str(out)))


@pytest.mark.thorough("test_a_folder_of_the_model_builder_is_named_by_how_its_matrices_are_stored")
def test_a_folder_of_optimum_intel_is_named_by_how_its_matrices_are_stored(
    openvino_folder: Path, tmp_path: Path
) -> None:
    model = told(openvino_folder)
    assert (model.kind, model.recipe.id) == ("openvino", "openvino:int4_sym_g64")
    assert model.types == {"int4_sym_g64": 28, "int8_asym": 1}
    assert (model.says["mode"], model.says["group_size"]) == ("int4_sym", "64")
    assert model.recipe.grade == "4-bit"
    facts = described(openvino_folder, tmp_path / "out")
    assert facts["ends"] == ["<|im_end|>", "<|endoftext|>"]
    # What no engine reads is left where it lies.
    assert "openvino_config.json" not in {path.name for path in model.files}
    known = recognise(model, against=str(MODEL))
    assert known.variant.repo_id == "local/tiny-int4-ov"
    assert "tiny-int4-ov was converted already" in known.sentence()


def test_a_folder_of_the_model_builder_is_named_by_how_its_matrices_are_stored(
    onnx_folder: Path, tmp_path: Path
) -> None:
    model = told(onnx_folder)
    assert (model.kind, model.recipe.id) == ("onnx", "onnx:int4_sym_b32")
    assert model.types == {"int4_sym_b32": 21}
    assert model.recipe.provider == "cpu"
    assert described(onnx_folder, tmp_path / "out")["template"] is True
    assert recognise(model, against=str(MODEL)).variant.repo_id == "local/tiny-onnx"
    assert model.shape.intermediate == 512


def test_a_folder_of_the_hub_is_taken_from_its_cache(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"cpu/int4/{path.name}": path.read_bytes() for path in onnx_folder.iterdir()}
    with serve(Hub("me/tiny-onnx", rows)) as hub:
        for name, value in (
            ("HF_HUB_OFFLINE", "0"),
            ("HF_ENDPOINT", hub.endpoint),
            ("HF_HOME", str(tmp_path / "hub")),
            ("HF_HUB_DISABLE_XET", "1"),
        ):
            monkeypatch.setenv(name, value)
        origin = fetched("me/tiny-onnx", "cpu/int4/")
    model = told(origin.path)
    # In the cache every file is a link to where its bytes lie.
    assert all(path.is_symlink() for path in model.files)
    known = recognise(model, against=str(MODEL), origin=origin)
    assert known.as_dict()["origin"] == {
        "repo_id": "me/tiny-onnx",
        "revision": COMMIT,
        "license": "apache-2.0",
    }
    assert described(origin.path, tmp_path / "out")["template"] is True


@pytest.mark.thorough("test_a_folder_of_the_model_builder_is_named_by_how_its_matrices_are_stored")
def test_matrices_that_no_recipe_stores_so_are_a_mixture_of_its_own(
    openvino_folder: Path, onnx_folder: Path
) -> None:
    runtime: Any = told(openvino_folder).runtime
    own = runtime.own
    first = next(row for row in own.graph.matrices if row.kind == "i4")
    wide = replace(first, kind="u8", per_scale=256, by_row=True, zero_points=True)
    rows = tuple(wide if row is first else row for row in own.graph.matrices)
    mixed = replace(own, graph=replace(own.graph, matrices=rows), known=None)
    recipe = openvino_recipe(mixed)
    assert recipe.id == "openvino:mixed"
    assert "27 int4_sym_g64, 2 int8_asym" in recipe.summary
    adapter = AdoptedOpenVino(mixed)
    assert adapter.footprint(mixed.shape, recipe, 256).weights == 2 * mixed.weights
    assert adapter.recipe("mixed", "f16").kv_bits == 16
    runtime = told(onnx_folder).runtime
    own = runtime.own
    head = replace(own.graph.products[-1], bits=8, kind="int8")
    other = replace(own, graph=replace(own.graph, products=(*own.graph.products[:-1], head)))
    recipe = onnx_recipe(replace(other, known=None))
    assert (recipe.id, recipe.kv) == ("onnx:mixed", "f32")
    assert AdoptedOnnx(replace(other, known=None)).how_to_run(recipe, {"context": 256})


@pytest.mark.thorough("test_a_folder_of_the_model_builder_is_named_by_how_its_matrices_are_stored")
def test_a_checkpoint_with_a_conversion_beside_it_stays_a_checkpoint(
    openvino_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(openvino_folder, tmp_path / "both")
    shutil.copy(MODEL / "model.safetensors", folder)
    assert adoptable(str(folder), registry.runtimes()) is None
    assert told(folder / "openvino_model.xml").name == "both"


@pytest.mark.parametrize("made", ["light", thorough("openvino"), "onnx"])
def test_a_folder_that_is_not_what_it_says_is_refused_in_one_sentence(
    made: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{made}_folder")
    described(folder, tmp_path / "whole")
    for number, (words, change) in enumerate(ONNX if made == "onnx" else OPENVINO):
        wrong = shutil.copytree(folder, tmp_path / f"{number}" / "wrong")
        change(wrong)
        with pytest.raises(PackError, match=words) as caught:
            described(wrong, tmp_path / f"{number}" / "out")
        assert caught.value.exit_code == ExitCode.INPUT, words
        shutil.rmtree(tmp_path / f"{number}")


@pytest.mark.parametrize("engine", [thorough("openvino"), "onnxruntime"])
def test_a_folder_follows_from_its_checkpoint_or_the_tensor_that_does_not_is_named(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(f"{engine.removesuffix('runtime')}_folder")
    folders = [folder, overwritten(folder, tmp_path / "other", engine)]
    refused = NOT_COMPARED[engine]
    for number, (_, change) in enumerate(refused):
        folders.append(shutil.copytree(folder, tmp_path / f"wrong{number}"))
        change(folders[-1])
    arguments = {
        "engine": engine,
        "folders": [str(place) for place in folders],
        "checkpoint": str(MODEL),
        "out": str(tmp_path / "out"),
    }
    job = "tests.support.attest_jobs:attest_all"
    work = run_job(job, arguments, tmp_path / "log", {"PYTHONPATH": str(REPOSITORY)})
    rows = finish(work).value["rows"]
    own, other, *wrong = rows
    assert (own["follows"], own["different"]) == ("exactly", [])
    assert own["metadata"]["network"] == []
    assert other["follows"] == "not"
    (row,) = other["different"]
    assert row["name"] == "model.layers.0.mlp.up_proj.weight"
    assert row["error"] > 1 > row["usual"] and 0.5 < row["bytes"] <= 1
    for (words, _), answer in zip(refused, wrong, strict=True):
        assert re.search(words, answer.get("refused", str(answer))), words
        assert answer["exit_code"] == ExitCode.INPUT


def test_signed_numbers_are_signed_before_their_zero_point_is_taken_off() -> None:
    blocks = Blocks(4, 2, np.ones(1), np.array([7], np.uint8), 0, looked_up=True)
    row = StoredWeights(("x",), 1, 2, np.array([0x78], np.uint8), "int4 signed", blocks)
    assert row.values(0, 1).tolist() == [[-15, 0]]


def test_floats_within_a_graph_that_are_fewer_than_their_shape_says_are_refused(
    tmp_path: Path,
) -> None:
    row = onnx.TensorProto(name="up", dims=[2, 2], data_type=onnx.TensorProto.FLOAT)
    row.raw_data = bytes(4)
    node = onnx.helper.make_node("MatMul", ["x", "up"], ["y"], "/model/layers.0/mlp/up_proj/MatMul")
    graph = onnx.helper.make_graph([node], "g", [], [], [row])
    (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(PackError, match=r"up.* has not as many numbers") as refused:
        weights_of(tmp_path / "model.onnx")
    assert refused.value.exit_code == ExitCode.INPUT


def test_the_command_attests_a_folder(onnx_folder: Path, tmp_path: Path) -> None:
    against = ("--against", str(MODEL))
    told = command("attest", str(onnx_folder), *against, "--json", cache=tmp_path / "cache")
    assert told.returncode == ExitCode.DONE, told.stderr
    data = json.loads(told.stdout)
    assert (data["schema"], data["recipe"]) == ("qwen-pack/attest/1", "onnx:int4_sym_b32")
    assert (data["follows"], data["ways"]) == ("exactly", {"default": 21})
    other = command(
        *("attest", str(onnx_folder), *against, "--recipe", "onnx:int8_sym_b32"),
        cache=tmp_path / "cache",
    )
    assert other.returncode == ExitCode.BUDGET, other.stderr
    assert "was made from tiny-qwen3, but not as onnx:int8_sym_b32" in other.stdout
    assert "int4_sym_b32" in other.stdout
    refused = command(
        *("attest", str(onnx_folder), *against, "--tensor-type", "x=Q8_0"), cache=tmp_path / "cache"
    )
    assert refused.returncode == ExitCode.USAGE
    assert "--tensor-type is for a GGUF" in refused.stderr


@pytest.mark.parametrize("engine", [thorough("openvino"), "onnx"])
def test_the_package_is_the_folder_and_says_so(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(f"{engine}_folder")
    package, cache = tmp_path / "package", tmp_path / "cache"
    run = command(
        *("build", "--weights", str(folder), "--target", "laptop-cpu", "--context", "256"),
        *("--against", str(MODEL), "--out", str(package)),
        cache=cache,
    )
    assert run.returncode == 0, run.stderr
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    source, rows = manifest["source"], {row["path"]: row for row in manifest["files"]}
    assert (source["kind"], source["location"]) == (engine, folder.name)
    for row in source["files"]:
        assert rows[f"model/{row['path']}"]["sha256"] == row["sha256"]
    assert {name for name in rows if name.startswith("model/")} == {
        f"model/{row['path']}" for row in source["files"]
    }
    assert source["adopted"]["against"]["location"] == "tiny-qwen3"
    assert 0 < manifest["quality"]["kl_mean"] < 0.15
    assert manifest["runtime"]["minimum"]
    assert "by somebody else" in (package / "NOTICE").read_text(encoding="utf-8")
    assert command("verify", str(package), cache=cache).returncode == ExitCode.DONE
    again = command("verify", str(package), "--rebuild", cache=cache)
    assert "cannot be built again" in again.stderr
    said = command("run", str(package), "What is 2 + 3?", cache=cache)
    assert said.returncode == ExitCode.DONE, said.stderr
