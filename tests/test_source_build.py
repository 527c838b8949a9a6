"""Whole builds from a server: what is asked of it, and what the manifest says of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager import catalog
from packager.checkpoint import Checkpoint
from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.conftest import REPOSITORY
from tests.support import hub_server, modelscope_server
from tests.support.hub_server import Hub, repository
from tests.support.modelscope_server import ModelScope

REPO = "Qwen/Qwen3-0.6B"
WEIGHTS = "model.safetensors"
TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The tiny checkpoint as a server has it, under the name of a variant, whose row of the
    catalogue is given its shape."""
    known, shape = catalog.find(REPO), Checkpoint.open(TINY).shape
    monkeypatch.setattr(catalog, "find", lambda name: replace(known, shape=shape))
    monkeypatch.setenv("NO_PROXY", "*")
    return repository(TINY)


def build(out: Path, *flags: str) -> dict[str, Any]:
    """The manifest of a package of 8 bits for a laptop."""
    recipe = ("--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--context", "256")
    asked = ["build", "--model", REPO, *recipe, *flags, "--out", str(out)]
    assert main(asked) == ExitCode.DONE
    assert not verify(out)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.mark.engine
def test_a_build_from_modelscope_goes_on_after_a_cut_and_is_pinned_in_the_manifest(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "modelscope"
    monkeypatch.setenv("MODELSCOPE_CACHE", str(cache))
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    # What its own client has fetched before.
    before = cache / "models" / "Qwen--Qwen3-0.6B" / "snapshots" / "master"
    before.mkdir(parents=True)
    (before / "tokenizer.json").write_bytes(published["tokenizer.json"])
    with modelscope_server.serve(ModelScope(REPO, published)) as site:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", site.endpoint)
        site.cut_after[WEIGHTS] = [1000]
        manifest = build(
            tmp_path / "package", "--weights", "modelscope", "--revision", modelscope_server.COMMIT
        )
        assert (site.bodies(WEIGHTS), site.bodies("tokenizer.json")) == (2, 0)
    source = manifest["source"]
    assert (source["kind"], source["location"]) == ("modelscope", REPO)
    assert source["endpoint"] == site.endpoint
    assert manifest["variant"]["revision"] == modelscope_server.COMMIT
    listed = digests(published)
    assert all(row["sha256"] == listed[row["path"]] for row in source["files"])
    assert WEIGHTS in {row["path"] for row in source["files"]}


@pytest.mark.engine
def test_a_mirror_of_the_hub_is_named_in_the_manifest(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
    }.items():
        monkeypatch.setenv(name, value)
    with hub_server.serve(Hub(REPO, published)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        source = build(tmp_path / "package", "--weights", "hub")["source"]
    assert (source["kind"], source["location"]) == ("hub", REPO)
    assert source["endpoint"] == hub.endpoint
