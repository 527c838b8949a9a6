"""What gets its name is on the disk: a power cut keeps names, and loses bytes that were not
flushed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.files import folder_that_appears_whole, write_atomically, write_secret
from packager.pipeline.cache import BuildCache
from packager.pipeline.packaging import replacing
from packager.scratch import is_ours
from packager.shipping import keys, patch
from packager.shipping.delta import write_patch
from packager.shipping.export import export
from packager.shipping.signature import Signer
from packager.shipping.unpack import unpack
from tests.support.make_package import write_package
from tests.support.shipping_packages import AGREED, finish, write

OPENVINO = {"runtime": {"name": "openvino", "version": "1"}}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX alone")
"""Of the files, Windows flushes as many; they have other numbers there."""


class Flushes:
    """Watches what is flushed, and whether all below a name was when it got it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flushed: set[tuple[int, int]] = set()
        self.named: list[str] = []
        self.lost: list[str] = []
        fsync = os.fsync

        def flush(descriptor: int) -> None:
            status = os.fstat(descriptor)
            self._flushed.add((status.st_ino, status.st_mtime_ns))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", flush)
        for call in ("rename", "replace", "link"):
            monkeypatch.setattr(os, call, self._looking(getattr(os, call)))
        # Names that are exchanged are renamed instead, which can be watched.
        monkeypatch.setattr("packager.files._exchanged", lambda *_: False)

    def _looking(self, call: Callable[..., None]) -> Callable[..., None]:
        def inner(source: Any, final: Any, **more: Any) -> None:
            if not any(map(is_ours, Path(final).parts)):
                self._look(Path(source), Path(final))
            call(source, final, **more)

        return inner

    def _look(self, source: Path, final: Path) -> None:
        self.named.append(final.name)
        for path in (source, *source.rglob("*")):
            status = path.stat()
            if (status.st_ino, status.st_mtime_ns) not in self._flushed:
                self.lost.append(f"{final.name}: {path.relative_to(source)}")


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    return Flushes(monkeypatch)


def test_a_stage_of_a_build_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, flushes: Flushes
) -> None:
    cache = BuildCache(tmp_path)
    with cache.work_folder() as work:
        (work / "out" / "inner").mkdir(parents=True)
        (work / "out" / "model.bin").write_bytes(b"weights")
        (work / "out" / "inner" / "model.xml").write_bytes(b"net")
        cache.keep("convert", "0a", work, {"bytes": 7})
    assert flushes.named[-1] == "convert-0a" and flushes.lost == []


def test_a_package_is_on_the_disk_before_it_has_its_name(tmp_path: Path, flushes: Flushes) -> None:
    for _ in ("the first", "one in its place"):
        with replacing(tmp_path / "p") as folder:
            write_package(folder)
    assert flushes.named == ["p", "p"] and flushes.lost == []


@pytest.mark.engine
def test_what_leaves_and_what_comes_in_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, flushes: Flushes
) -> None:
    package = write_package(tmp_path / "tiny")
    newer = write(tmp_path / "newer", {"model/model.bin": b"weights" * 101}, OPENVINO)
    signer = Signer(keys.new(tmp_path / "key").private)
    for name in ("dir", "zip", "tar.zst", "oci"):
        finish(export(package, name, tmp_path / f"as.{name}", signer=signer, **AGREED))
    finish(unpack(tmp_path / "as.zip", tmp_path / "back"))
    finish(write_patch(package, newer, tmp_path / "patch", **AGREED))
    finish(patch.apply(tmp_path / "patch", package, tmp_path / "patched"))
    write_atomically(tmp_path / "file", b"x")
    write_secret(tmp_path / "secret", b"x")
    with folder_that_appears_whole(tmp_path / "whole") as folder:
        (folder / "part").write_bytes(b"x")
    assert flushes.lost == []
    made = {"key", "key.pub", "as.dir", "as.zip", "as.zip.sig", "as.tar.zst", "as.oci", "back"}
    assert {*made, "patch", "patched", "file", "secret", "whole"} <= set(flushes.named)
