"""Files that are complete or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager import files
from packager.files import (
    copy_hashed,
    folder_that_appears_whole,
    regular_files,
    replace_folder,
    sha256,
    tree_bytes,
    write_atomically,
)


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
    digests: list[str] = []

    def copied() -> Iterator[int]:
        digests.append((yield from copy_hashed(tmp_path / "a", tmp_path / "b")))

    heard.extend(copied())
    assert digests == [hashlib.sha256(data).hexdigest()] == [sha256(tmp_path / "b")]
    assert (len(heard), sum(heard)) == (3, len(data))
    assert (tmp_path / "b").stat().st_nlink == 1


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    with folder_that_appears_whole(tmp_path / "good") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "good").exists()
    with pytest.raises(ZeroDivisionError), folder_that_appears_whole(tmp_path / "bad") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["good"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_folder_takes_the_place_of_another(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    for name in ("new", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "final", tmp_path / "old")
    assert os.listdir(tmp_path / "final") == ["new"]


def test_a_folder_takes_a_place_that_is_free_or_empty(tmp_path: Path) -> None:
    for place in ("free", "empty"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").touch()
        if place == "empty":
            (tmp_path / place).mkdir()
        replace_folder(tmp_path / "new", tmp_path / place, tmp_path / "old")
        assert os.listdir(tmp_path / place) == ["file"]


def test_an_interruption_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new folder that is not there makes the second rename fail, at the moment at which Ctrl-C
    would strike."""
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "kept").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "new", tmp_path / "final", tmp_path / "old")
    assert os.listdir(tmp_path / "final") == ["kept"]


def test_sizes_and_lists_pass_over_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"12345")
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert regular_files(tmp_path) == [tmp_path / "a", tmp_path / "sub" / "b"]
    assert tree_bytes(tmp_path / "sub") == 5
    assert tree_bytes(tmp_path / "nowhere") == 0
