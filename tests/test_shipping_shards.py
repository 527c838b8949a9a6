"""Files below a size in both ways: shards that the engine reads, and pieces that are joined again;
neither loses anything on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.package.verify import verify
from packager.shipping.export import export
from packager.shipping.folder import join
from packager.shipping.unpack import unpack
from targets.llama_cpp.session import Session
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.patches import write
from tests.support.shipping_packages import AGREED, finish, tree

pytestmark = pytest.mark.engine

SHARD, PIECE = 700_000, 100_000


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose model is in shards."""
    folder = tmp_path_factory.mktemp("shards")
    build(
        checkpoint(folder / "ck", SHAPES["qwen3"]),
        folder / "made" / "model.gguf",
        "Q8_0",
        max_file_bytes=SHARD,
    )
    shards = {
        f"model/{path.name}": path.read_bytes() for path in sorted((folder / "made").iterdir())
    }
    assert len(shards) >= 3
    return write(folder / "package", {**shards, "README.md": b"# in shards\n"})


def answer(package: Path) -> list[int]:
    """What llama.cpp makes of the shards in a package."""
    session = Session(str(package / "model"), {"context": 64, "kv": "f16", "threads": 1})
    try:
        return session.generate([5, 300, 17], 6, lambda _: None, stop=False)
    finally:
        session.close()


@pytest.mark.parametrize("name", ["tar.zst", "zip", "dir"])
def test_llama_cpp_reads_shards_out_of_an_export_that_was_cut_into_pieces(
    package: Path, tmp_path: Path, name: str
) -> None:
    first = finish(export(package, name, tmp_path / "out", limit=PIECE, **AGREED)).path
    written = [
        path
        for path in (first.rglob("*") if first.is_dir() else tmp_path.glob("out.*"))
        if path.is_file()
    ]
    assert len(written) > 10 and max(path.stat().st_size for path in written) <= PIECE
    back = finish(
        join(first, tmp_path / "back") if name == "dir" else unpack(first, tmp_path / "back")
    ).path
    assert tree(back) == tree(package) and verify(back) == []
    assert answer(back) == answer(package)


def test_a_folder_with_shards_is_read_where_it_was_exported_to(
    package: Path, tmp_path: Path
) -> None:
    out = finish(export(package, "dir", tmp_path / "out", limit=SHARD, **AGREED)).path
    assert not list(out.rglob("*.001"))
    assert answer(out) == answer(package)
