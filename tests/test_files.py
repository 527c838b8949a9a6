"""Files that are complete or absent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from packager.files import copy_hashed, folder_that_appears_whole, regular_files, sha256, tree_bytes, write_atomically


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_copy_has_the_digest_of_its_source_and_is_no_link(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    heard: list[int] = []
    digest = copy_hashed(tmp_path / "a", tmp_path / "b", heard.append)
    assert digest == hashlib.sha256(data).hexdigest() == sha256(tmp_path / "b")
    assert sum(heard) == len(data)
    assert (tmp_path / "b").stat().st_nlink == 1


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    with folder_that_appears_whole(tmp_path / "good") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "good").exists()
    with pytest.raises(ZeroDivisionError), folder_that_appears_whole(tmp_path / "bad") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["good"]


def test_sizes_and_lists_pass_over_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"12345")
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert regular_files(tmp_path) == [tmp_path / "a", tmp_path / "sub" / "b"]
    assert tree_bytes(tmp_path / "sub") == 5
    assert tree_bytes(tmp_path / "nowhere") == 0
