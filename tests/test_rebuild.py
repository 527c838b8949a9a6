"""`verify --rebuild`: the artifact is built again from what the manifest says, and every file of
the model compared."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from packager import catalog, sources
from packager.checkpoint import Checkpoint
from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.papers import licence
from packager.plan.additions import Additions
from packager.process import run_job
from targets.llama_cpp import LlamaCpp
from tests.support.hub_server import COMMIT, Hub, repository, serve
from tests.support.make_checkpoint import tiny_shape, write_tiny
from tests.support.shipping_packages import finish, tree

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("rebuild") / "Tiny-0.1B")


@pytest.fixture(scope="module")
def built(checkpoint: Path) -> Path:
    return build(checkpoint, checkpoint.parent / "package", LlamaCpp())


def build(
    checkpoint: Path, folder: Path, runtime: LlamaCpp, kind: str = "local", **variant: str
) -> Path:
    """A package with what a build puts into one, but for the benchmark."""
    recipe = runtime.recipe("Q4_K_M")
    fields = json.loads(json.dumps({**asdict(recipe), "id": recipe.id}))
    named = {"repo_id": "local/Tiny-0.1B", "revision": None, "license": None, **variant}
    arguments = {
        "checkpoint": str(checkpoint),
        "recipe": {**fields, "inputs": {"origin": {"kind": kind, **named, "license_name": None}}},
        "workload": {"context": 256},
        "out": str(folder / "model"),
    }
    finish(run_job(runtime.build_job, arguments, folder.with_name("log")))
    (folder / "chat_template.jinja").write_text(
        json.loads((checkpoint / "tokenizer_config.json").read_text())["chat_template"]
    )
    licence.write(folder, checkpoint, named, recipe.id, dummy=kind == "dummy")
    (folder / "README.md").write_text("# figures\n")
    files = [entry(path, checkpoint) for path in sorted(checkpoint.iterdir())]
    source = {
        "kind": kind,
        "location": checkpoint.name if kind == "local" else named["repo_id"],
        "files": files,
    }
    describe(folder, fields, files, variant=named, source=source)
    return folder


def entry(path: Path, below: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "path": path.relative_to(below).as_posix(),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def describe(
    folder: Path, recipe: dict[str, Any], sources: list[dict[str, Any]], **more: Any
) -> None:
    files = [
        entry(path, folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != manifest.NAME
    ]
    data = {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "files": files,
        "runtime": {"name": "llama.cpp", "version": "1"},
        "recipe": recipe,
        "variant": {"repo_id": "local/Tiny-0.1B"},
        "source": {"kind": "local", "location": "Tiny-0.1B", "files": sources},
        "workload": {"context": 256},
        "tools": {"gguf": "0.0.1"},
    }
    manifest.write(folder, {**data, **more})


@pytest.fixture
def package(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "package"))


def changed(package: Path, **fields: Any) -> None:
    """Another manifest, sealed again."""
    data = json.loads((package / manifest.NAME).read_text())
    manifest.write(package, {**data, **fields})


def verify(
    package: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = main(["verify", str(package), "--rebuild", "--json", *flags])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err


def test_the_same_weights_give_the_same_files_from_a_folder_of_any_name(
    package: Path,
    checkpoint: Path,
    tmp_path: Path,
    own_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = tree(package)
    moved = shutil.copytree(checkpoint, tmp_path / "weights")
    code, answer, _ = verify(package, capsys, "--weights", str(moved))
    assert (code, answer["ok"], answer["rebuilt"]["findings"]) == (ExitCode.DONE, True, [])
    assert tree(package) == before
    assert not list(own_cache.rglob("*.gguf"))
    assert main(["verify", str(package), "--rebuild", "--weights", str(moved)]) == ExitCode.DONE
    assert "a rebuild gives the same" in capsys.readouterr().out


def test_a_model_that_does_not_come_out_of_its_source_is_found_and_the_tools_that_differ_are_named(
    package: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((package / "model/model.gguf").read_bytes())
    data[-40] ^= 1
    (package / "model/model.gguf").write_bytes(data)
    (package / "model/more.bin").write_bytes(b"")
    (package / "chat_template.jinja").write_text("short")
    (package / "NOTICE").unlink()
    described = json.loads((package / manifest.NAME).read_text())
    describe(package, described["recipe"], described["source"]["files"])
    code, answer, _ = verify(package, capsys, "--weights", str(checkpoint))
    assert (code, answer["ok"]) == (ExitCode.INPUT, False)
    found = {row["path"]: (row["kind"], row["message"]) for row in answer["findings"]}
    assert found["model/model.gguf"] == ("rebuilt", "is rebuilt with another sha256")
    assert found["model/more.bin"] == ("rebuilt", "is not produced by a rebuild")
    assert found["chat_template.jinja"][1].endswith(f"bytes instead of {len('short')}")
    assert found["NOTICE"] == ("rebuilt", "is produced by a rebuild and is not in the package")
    assert answer["rebuilt"]["tools"]["gguf"]["manifest"] == "0.0.1"
    assert (
        main(["verify", str(package), "--rebuild", "--weights", str(checkpoint)]) == ExitCode.INPUT
    )
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4
    assert (
        "not what a rebuild gives: 4 findings" in said.err and "built with gguf 0.0.1" in said.err
    )


def test_bytes_of_another_toolchain_are_no_damage_but_a_file_that_is_missing_is(
    package: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((package / "model/model.gguf").read_bytes())
    data[-40] ^= 1
    (package / "model/model.gguf").write_bytes(data)
    described = json.loads((package / manifest.NAME).read_text())
    fused = {
        "architecture": "another",
        "ggml compiler": "gcc 12.2.0",
        "ggml arithmetic": "products and sums fused (0)",
    }
    describe(package, described["recipe"], described["source"]["files"], tools=fused)
    code, answer, _ = verify(package, capsys, "--weights", str(checkpoint))
    assert (code, answer["ok"], [row["kind"] for row in answer["findings"]]) == (
        ExitCode.RESOURCE,
        False,
        ["toolchain"],
    )
    assert answer["rebuilt"]["toolchain"]["architecture"] == {
        "manifest": "another",
        "here": platform.machine(),
    }
    assert answer["rebuilt"]["tools"] == {}
    assert (
        main(["verify", str(package), "--rebuild", "--weights", str(checkpoint)])
        == ExitCode.RESOURCE
    )
    assert "built by another toolchain" in capsys.readouterr().err
    (package / "NOTICE").unlink()
    describe(package, described["recipe"], described["source"]["files"], tools=fused)
    code, answer, _ = verify(package, capsys, "--weights", str(checkpoint))
    assert (code, {row["kind"] for row in answer["findings"]}) == (
        ExitCode.INPUT,
        {"toolchain", "rebuilt"},
    )


def test_other_weights_are_named_and_not_built(
    package: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "Tiny-0.1B"))
    (other / "generation_config.json").unlink()
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    (other / "merges.txt").write_text("")
    code, answer, said = verify(package, capsys, "--weights", str(other))
    assert code == ExitCode.INPUT
    assert {(row["path"], row["kind"]) for row in answer["findings"]} >= {
        ("config.json", "source"),
        ("generation_config.json", "source"),
    }
    assert "Convert" not in said


def test_a_package_that_is_damaged_is_not_built_again(
    package: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "README.md").write_text("other")
    code, answer, said = verify(package, capsys, "--weights", str(checkpoint))
    assert code == ExitCode.INPUT
    assert [row["path"] for row in answer["findings"]] == ["README.md"] and answer[
        "rebuilt"
    ] is None
    assert "Get the weights" not in said


def test_what_cannot_be_built_again_here_is_said_in_a_sentence(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = verify(package, capsys)
    assert code == ExitCode.USAGE and "a folder called 'Tiny-0.1B'" in said and "--weights" in said
    code, _, said = verify(package, capsys, "--weights", str(tmp_path / "nowhere"))
    assert code == ExitCode.USAGE and "does not exist" in said
    changed(
        package,
        variant={"repo_id": "Qwen/Qwen3-0.6B", "revision": "c" * 40},
        source={"kind": "hub", "location": "Qwen/Qwen3-0.6B"},
    )
    code, _, said = verify(package, capsys)
    assert code == ExitCode.SOURCE and "Qwen/Qwen3-0.6B" in said
    changed(package, runtime={"name": "another", "version": "1"})
    code, _, said = verify(package, capsys, "--weights", str(tmp_path))
    assert code == ExitCode.USAGE and "the runtime 'another'" in said
    assert main(["verify", str(package), "--weights", str(tmp_path)]) == ExitCode.USAGE


def test_a_recipe_with_other_settings_in_this_version_is_a_finding(
    package: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = json.loads((package / manifest.NAME).read_text())["recipe"]
    changed(package, recipe={**recipe, "settings": {"file_type": "MOSTLY_Q2_K"}})
    code, answer, _ = verify(package, capsys, "--weights", str(checkpoint))
    assert code == ExitCode.INPUT
    assert [(row["kind"], row["message"]) for row in answer["findings"]] == [
        ("recipe", "has other settings in this version of qwen-pack")
    ]


def test_types_of_single_tensors_are_taken_from_the_manifest(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = LlamaCpp().with_additions(Additions(tensor_types={"attn_v": "Q8_0"}))
    package = build(checkpoint, tmp_path / "package", runtime)
    code, answer, said = verify(package, capsys, "--weights", str(checkpoint))
    assert (code, answer["rebuilt"]["findings"]) == (ExitCode.DONE, []), said


def test_a_file_that_the_build_was_given_is_asked_for_by_name(
    package: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.write_text("words")
    weights = ("--weights", str(checkpoint))
    code, _, said = verify(package, capsys, *weights, "--calibration", str(text))
    assert code == ExitCode.USAGE and "was given no --calibration" in said
    recipe = json.loads((package / manifest.NAME).read_text())["recipe"]
    facts = {"file": "words.txt", "sha256": "0" * 64, "chunk_tokens": 512}
    changed(
        package,
        recipe={
            **recipe,
            "id": f"{recipe['id']}/imatrix",
            "settings": {**recipe["settings"], "calibration": facts},
        },
    )
    code, _, said = verify(package, capsys, *weights)
    assert (
        code == ExitCode.USAGE
        and "'words.txt'" in said
        and "Name that file with --calibration" in said
    )
    code, answer, said = verify(package, capsys, *weights, "--calibration", str(text))
    assert (code, answer["findings"][0]["kind"]) == (ExitCode.INPUT, "recipe")


def test_weights_of_the_hub_are_fetched_again_at_the_recorded_commit(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repo_id = "Qwen/Qwen3-0.6B"
    package = build(
        checkpoint, tmp_path / "package", LlamaCpp(), kind="hub", repo_id=repo_id, revision=COMMIT
    )
    known = catalog.find(repo_id)
    # The tiny checkpoint is published under the name of a variant, whose row of the catalogue is
    # given its shape.
    monkeypatch.setattr(
        catalog, "find", lambda name: replace(known, shape=Checkpoint.open(checkpoint).shape)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serve(
        Hub(repo_id, repository(checkpoint), branches={"main": "d" * 40, "then": COMMIT})
    ) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        code, answer, said = verify(package, capsys)
        assert any(COMMIT in request.path for request in hub.requests)
    assert (code, answer.get("rebuilt", {}).get("findings")) == (ExitCode.DONE, []), said


def test_random_weights_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repo_id, shape = "Qwen/Qwen3-0.6B", tiny_shape()
    known = catalog.find(repo_id)
    monkeypatch.setattr(catalog, "find", lambda name: replace(known, shape=shape))
    job, arguments = sources.job(sources.parse("dummy", repo_id), shape)
    finish(run_job(job, {**arguments, "out": str(tmp_path / "random")}, tmp_path / "log"))
    package = build(
        tmp_path / "random", tmp_path / "package", LlamaCpp(), kind="dummy", repo_id=repo_id
    )
    code, answer, said = verify(package, capsys)
    assert (code, answer.get("rebuilt", {}).get("findings")) == (ExitCode.DONE, []), said
