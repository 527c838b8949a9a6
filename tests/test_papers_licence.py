"""The licence of a package: the checkpoint's own text, else that of its licence, else its
address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.catalog import licences as licences_module
from packager.catalog import load
from packager.catalog.licences import known, spdx
from packager.package.content import content
from packager.papers import licence
from tests.conftest import REPOSITORY


def licences(tmp_path: Path, brought: dict[str, bytes], **variant: Any) -> dict[str, bytes]:
    """What stands in a package's folder for a checkpoint that brought those files."""
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "folder"
    checkpoint.mkdir()
    folder.mkdir()
    for name, data in brought.items():
        (checkpoint / name).write_bytes(data)
    row = {"repo_id": "Qwen/Qwen3-0.6B", "license": "apache-2.0", **variant}
    names = licence.write(folder, checkpoint, row, "gguf:Q4_K_M", dummy=False)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(names) == sorted(written)
    assert all(content(name) for name in names)
    return written


def test_a_licence_that_the_checkpoint_brings_goes_along_as_it_is(tmp_path: Path) -> None:
    brought = {"LICENSE.md": b"my text\r\n", "Notice": b"my notice", "config.json": b"{}"}
    assert licences(tmp_path, brought) == {"LICENSE.md": b"my text\r\n", "Notice": b"my notice"}


def test_the_text_of_apache_stands_in_where_the_checkpoint_brings_none(tmp_path: Path) -> None:
    written = licences(tmp_path, {})
    assert written["LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
    assert b"converted to gguf:Q4_K_M by qwen-pack" in written["NOTICE"]


def test_a_licence_whose_text_is_not_at_hand_is_named_with_its_address(tmp_path: Path) -> None:
    written = licences(tmp_path, {}, repo_id="Qwen/Qwen2.5-3B", license="qwen-research")
    text = written["LICENSE"].decode()
    assert (
        "Qwen RESEARCH LICENSE AGREEMENT (LicenseRef-Qwen-Research)" in text
        and "huggingface.co/Qwen/Qwen2.5-3B" in text
    )
    assert (
        b"Qwen is licensed under the Qwen RESEARCH LICENSE AGREEMENT, Copyright (c) Alibaba Cloud"
        in written["NOTICE"]
    )


def test_weights_that_nobody_states_a_licence_for_say_that(tmp_path: Path) -> None:
    text = licences(tmp_path, {}, repo_id="local/mine", license=None)["LICENSE"].decode()
    assert "No known source states a licence" in text and "http" not in text


def test_the_licence_is_what_the_repository_declares_at_that_commit_else_what_the_catalogue_lists() -> (
    None
):
    assert licences_module.stated(None, "hub", {"license": "qwen-research"}) == "qwen-research"
    assert (
        licences_module.stated("apache-2.0", "hub", {"license": "qwen-research"}) == "qwen-research"
    )
    for odd in (None, "", "other", "Other", "a\nb", "[x](y)", "x" * 101, ["mit"]):
        assert licences_module.stated("apache-2.0", "hub", {"license": odd}) == "apache-2.0"
    for kind in ("local", "dummy"):
        assert licences_module.stated(None, kind, {"license": "cc0-1.0"}) is None


def test_every_licence_of_the_catalogue_has_a_text_or_a_notice_and_an_spdx_id() -> None:
    used = {variant.license for variant in load() if variant.license}
    assert used
    for name in used:
        variant = {"repo_id": "Qwen/x", "license": name}
        assert known()[name]["spdx"] == spdx(name)
        assert "Apache License" in licence.text(variant) or known()[name]["name"] in licence.text(
            variant
        )
        assert name == "apache-2.0" or known()[name]["name"] in licence.notice(
            variant, "r", dummy=False
        )
