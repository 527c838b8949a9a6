"""The same inputs give the same package: in another folder, with another umask, language, time zone
and number of threads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from packager.package import manifest
from packager.package.content import content, content_sha256
from packager.package.verify import verify
from packager.papers import PROVENANCE, SBOM
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import body, write_package

ONE = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
OTHER = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "PYTHONHASHSEED": "77",
    "OMP_NUM_THREADS": "1",
}


def build(
    checkpoint: Path, out: Path, cache: Path, environment: dict[str, str], mask: int, cores: int
) -> subprocess.Popen[str]:
    """A build in a process of its own, on that many cores."""
    surroundings = {
        key: value
        for key, value in os.environ.items()
        if key not in ("SOURCE_DATE_EPOCH", "LANG", "LC_ALL")
    }
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    start = (
        f"import os, sys; os.umask({mask}); os.sched_setaffinity(0, {allowed}); from "
        "packager.cli import main; sys.exit(main())"
    )
    flags = (
        "--target",
        "laptop-cpu",
        "--context",
        "256",
        "--recipe",
        "gguf:Q4_K_M",
        "--weights",
        str(checkpoint),
        "--out",
        str(out),
    )
    return subprocess.Popen(
        [sys.executable, "-c", start, "build", *flags],
        env={**surroundings, **environment, "QWEN_PACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        cwd=out.parent,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.engine
@pytest.mark.thorough("test_two_builds_in_different_places_hold_the_same_bytes_and_no_place")
def test_two_builds_of_one_checkpoint_are_one_package(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "over there" / "deeper"
    one_source = write_tiny(here / "tiny")
    there.mkdir(parents=True)
    other_source = Path(shutil.copytree(one_source, there / "tiny"))
    builds = [
        build(one_source, here / "package", here / "cache", ONE, 0o022, 2),
        build(other_source, there / "other name", there / "cache", OTHER, 0o077, 1),
    ]
    for running in builds:
        assert running.communicate()[1] is not None and running.returncode == 0
    one, other = (
        json.loads((place / "manifest.json").read_text())
        for place in (here / "package", there / "other name")
    )
    assert {"model/model.gguf", "chat_template.jinja", "LICENSE"} <= digests(one).keys()
    assert digests(one) == digests(other)
    for paper in (SBOM, PROVENANCE):
        assert (here / "package" / paper).read_bytes() == (
            there / "other name" / paper
        ).read_bytes()
    for paper in ("sbom.cdx.json", "provenance.intoto.json"):
        assert (here / "package" / paper).read_bytes() == (
            there / "other name" / paper
        ).read_bytes()
    assert one["content_sha256"] == other["content_sha256"] == content_sha256(other)
    assert one["measured"]["measured_at"] and one["measured"] != other["measured"]
    assert one["predicted"] == other["predicted"] and one["why"] == other["why"]
    assert [row["path"] for row in one["files"]] == [row["path"] for row in other["files"]]
    assert verify(there / "other name") == []


def digests(data: dict[str, Any]) -> dict[str, str]:
    return {row["path"]: row["sha256"] for row in data["files"] if content(row["path"])}


def test_what_was_measured_does_not_change_the_digest_of_the_content_and_what_was_put_in_does(
    tmp_path: Path,
) -> None:
    data = body(write_package(tmp_path / "p"))
    before = content_sha256(data)
    data["measured"], data["created"] = {"decode_tps": 7.0}, "2026-11-21T00:00:00+00:00"
    data["files"][2]["sha256"] = "0" * 64
    assert data["files"][2]["path"] == "README.md"
    assert content_sha256(data) == before
    data["files"].reverse()
    assert content_sha256(data) == before
    for change in (
        {"version": "2"},
        {"workload": {"context": 256}},
        {"files": data["files"][:-1]},
        {"target": "laptop-8gb"},
    ):
        assert content_sha256({**data, **change}) != before, change
    manifest.write(tmp_path / "p", {**data, "content_sha256": before})
