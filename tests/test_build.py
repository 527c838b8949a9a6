"""`qwen-pack build` from end to end: a real engine on tiny checkpoints of the true architecture."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from packager.package.verify import verify
from tests.conftest import REPOSITORY
from tests.support.building import FLAGS, command, environment, tiny_openvino
from tests.support.warm_start import BRIEF

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(once: Any) -> Path:
    return Path(once("tiny-openvino", tiny_openvino) / "tiny")


@pytest.fixture(scope="module")
def built(once: Any) -> tuple[Path, Path]:
    """A package that was built once, and the cache it left: to look at."""
    folder = once("tiny-openvino", tiny_openvino)
    return folder / "package", folder / "cache"


def test_no_sentence_of_the_papers_is_drawn_into_the_list_above_it(
    built: tuple[Path, Path],
) -> None:
    """Markdown takes a line that follows a row of a list for more of that row."""
    for name in ("README.md", "MODEL_CARD.md"):
        lines = (built[0] / name).read_text(encoding="utf-8").splitlines()
        lists = [pair for pair in pairwise(lines) if pair[0].startswith("* ")]
        assert lists or name != "README.md"
        assert [below for _, below in lists if below and not below.startswith(("* ", "  "))] == []


def test_a_package_holds_the_model_its_papers_and_a_whole_manifest(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package = built[0]
    manifest = json.loads((package / "manifest.json").read_text())
    assert verify(package) == []
    assert manifest["schema"] == "qwen-pack/manifest/1"
    assert manifest["target"] == "laptop-cpu"
    assert manifest["variant"]["repo_id"] == "local/tiny"
    assert manifest["source"]["kind"] == "local"
    assert {row["path"] for row in manifest["source"]["files"]} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert manifest["recipe"]["id"] == "openvino:int8_asym"
    assert manifest["runtime"]["name"] == "openvino"
    assert manifest["tools"]["openvino"] == manifest["runtime"]["version"]
    paths = {row["path"] for row in manifest["files"]}
    assert {
        "model/openvino_model.xml",
        "model/openvino_model.bin",
        "model/openvino_tokenizer.xml",
    } <= paths
    assert {"README.md", "LICENSE", "NOTICE", "chat_template.jinja"} <= paths
    assert {
        "MODEL_CARD.md",
        "sbom.cdx.json",
        "provenance.intoto.json",
        "benchmark.intoto.json",
    } <= paths
    assert len(manifest["chat_template_sha256"]) == 64
    assert "hardly better than chance" in manifest["quality"]["skipped"], "the weights are random"
    assert manifest["quality"]["parity"]["findings"] == [] and manifest["quality"]["passed"] is True
    for key in (
        "load_s",
        "ttft_ms",
        "prefill_tps",
        "decode_tps",
        "token_ms_median",
        "token_ms_p95",
        "peak_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    for key in (
        "ttft_ms_p99",
        "token_ms_p99",
        "prefill_128_tps",
        "decode_empty_tps",
        "decode_full_tps",
        "steady_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    assert manifest["measured"]["repeats"] == 5
    # A forked job decodes fewer tokens there.
    decoded = 256 - manifest["measured"]["full_context_tokens"]
    assert decoded in (48, BRIEF["packager.measure.benchmark"]["_FULL_TOKENS"])
    search = manifest["measured"]["thread_search"]
    assert (
        manifest["measured"]["threads"]
        == search["threads"]
        in [row["threads"] for row in search["candidates"]]
    )
    for key, error in manifest["errors_percent"].items():
        assert error is not None, key
    assert manifest["measured"]["deterministic"] is True
    assert manifest["predicted"]["footprint"]["total"] > 0
    assert all(
        {"rule", "limit", "measured", "passed", "enforced"} <= row.keys()
        for row in manifest["verdicts"]
    )


def test_nothing_in_a_package_names_a_folder_of_the_machine_that_built_it(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    for path in package.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for folder in (str(cache), str(checkpoint.parent), str(package)):
                assert folder.encode() not in data, f"{path.name} names {folder}"


@pytest.mark.thorough(
    "test_a_rebuild_of_the_package_gives_its_files_again",
    "test_two_builds_in_different_places_hold_the_same_bytes_and_no_place",
)
def test_a_build_elsewhere_with_another_mask_zone_language_and_on_one_core_gives_the_same_digests(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "over there" / "tiny")
    core = sorted(os.sched_getaffinity(0))[:1]
    start = (
        f"import os, sys; os.umask(0o077); os.sched_setaffinity(0, {core}); from packager.cli "
        "import main; sys.exit(main())"
    )
    names = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "77"}
    surroundings = {
        key: value
        for key, value in environment(tmp_path / "cache").items()
        if key != "SOURCE_DATE_EPOCH"
    }
    line = [
        sys.executable,
        "-c",
        start,
        "build",
        *FLAGS,
        "--weights",
        str(source),
        "--out",
        str(tmp_path / "other"),
    ]
    run = subprocess.run(
        line, capture_output=True, text=True, env={**surroundings, **names}, check=False
    )
    assert run.returncode == 0, run.stderr
    one, other = (
        json.loads((place / "manifest.json").read_text())
        for place in (built[0], tmp_path / "other")
    )
    model = [
        [row for row in data["files"] if row["path"].startswith("model/")] for data in (one, other)
    ]
    assert len(model[0]) > 5 and model[0] == model[1]
    assert one["content_sha256"] == other["content_sha256"]


def test_a_rebuild_of_the_package_gives_its_files_again(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "another name")
    run = command(
        "verify", str(built[0]), "--rebuild", "--weights", str(source), cache=tmp_path / "cache"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "a rebuild gives the same" in run.stdout
    assert (
        not list((tmp_path / "cache").glob("work/*"))
        and not (tmp_path / "cache" / "stages").exists()
    )


def test_the_documentation_names_every_field_of_the_manifest(built: tuple[Path, Path]) -> None:
    page, measurement = (
        (REPOSITORY / "docs" / "manifest.md")
        .read_text()
        .split("## Commands")[0]
        .split("## A measurement")
    )

    def named(text: str) -> set[str]:
        rows = (row.split("|")[1] for row in text.splitlines() if row.startswith("| `"))
        return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)(?:\[\])?`", row)}

    manifest = json.loads((built[0] / "manifest.json").read_text())
    # What `behave` adds later, and what other builds have.
    elsewhere = {"behaviour", "adapter", "warm", "speculation"}
    assert named(page) - elsewhere == manifest.keys()
    told = set(re.findall(r"`([a-z0-9_]+)(?:\[\])?`", measurement))
    assert manifest["measured"].keys() - {"seconds", "peak_bytes"} <= told
