"""The cache lives in a folder of its own: nothing is removed, or written over, that qwen-pack did
not make."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from packager.cli import main
from packager.paths import TAG, TAG_TEXT, cache_dir, made_cache_dir
from packager.pipeline.cache import BuildCache

KEY = "0123456789abcdef01234567"


def fill(cache: BuildCache, stage: str = "convert", key: str = KEY) -> None:
    with cache.work_folder() as work:
        (work / "data").write_text("data")
        cache.keep(stage, key, work, {})


def test_a_folder_of_the_users_keeps_everything_whatever_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their `work/` and `stages/` too, their hidden folders, and files of names that we use."""
    home = tmp_path / "home"
    texts = [
        "work/thesis/a.tex",
        "work/abcdefgh/b",
        "stages/one/c",
        f"stages/convert-{KEY}/d",
        "packages.json",
        "logs/convert.log",
    ]
    texts += [".qwen-pack-notes/e", "digests/f", "work/.qwen-pack-tmp-0123456789abcdef/g"]
    for name in texts:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    monkeypatch.setenv("QWEN_PACK_CACHE", str(home))
    assert cache_dir() == home / "qwen-pack"
    fill(BuildCache())
    made_cache_dir()
    assert main(["cache", "--clear"]) == 0
    assert [name for name in texts if (home / name).read_text() != name] == []
    assert BuildCache().stages() == []
    # What is no file marks nothing, and a pipe is not waited for.
    tag = home / "CACHEDIR.TAG"
    for other in (lambda: os.mkfifo(tag), tag.mkdir, lambda: tag.symlink_to(tag.name)):
        other()
        assert cache_dir() == home / "qwen-pack"
        tag.rmdir() if stat.S_ISDIR(tag.lstat().st_mode) else tag.unlink()


def test_a_new_or_empty_folder_becomes_the_cache_itself_and_is_marked_for_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "empty"):
        monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / name))
        if name == "empty":
            (tmp_path / name).mkdir()
        fill(BuildCache())
        assert (tmp_path / name / TAG).read_text() == TAG_TEXT
        (tmp_path / name / "thesis.tex").write_text("put there later")
        assert cache_dir() == tmp_path / name, "the mark counts"
        assert main(["cache", "--clear"]) == 0
        assert (tmp_path / name / "thesis.tex").exists()


def test_clearing_a_cache_takes_its_stages_alone(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache)
    (tmp_path / "stages" / "holiday photos").mkdir()
    (tmp_path / "stages" / "notes.txt").write_text("mine")
    (tmp_path / "work" / "mine").mkdir()
    assert [name for name, _, _ in cache.stages()] == [f"convert-{KEY}"]
    cache.clear()
    assert sorted(os.listdir(tmp_path / "stages")) == ["holiday photos", "notes.txt"]
    assert os.listdir(tmp_path / "work") == ["mine"]


def test_a_cache_of_an_earlier_version_is_known_by_its_stages_and_its_stages_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tmp_path / "old" / "stages" / f"convert-{KEY}"
    stage.mkdir(parents=True)
    (stage / "record.json").write_text(json.dumps({"seconds": 1}))
    (tmp_path / "old" / "work" / "k3j_x9ab").mkdir(parents=True)
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "old"))
    assert cache_dir() == tmp_path / "old"
    cache = BuildCache()
    assert cache.look_up("convert", KEY) is None
    assert "earlier version" in str(cache.flaw("convert", KEY))
    fill(cache)
    assert cache.look_up("convert", KEY) is not None
    assert os.listdir(tmp_path / "old" / "work") == []


def test_clearing_leaves_what_a_running_build_reads(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache)
    fill(cache, "fetch")
    with cache.holding():
        entry = cache.look_up("convert", KEY)
        assert entry is not None
        fill(cache, "quality")
        clear = (
            "from pathlib import Path; from packager.pipeline.cache import BuildCache; "
            f"BuildCache(Path({str(tmp_path)!r})).clear()"
        )
        subprocess.run([sys.executable, "-c", clear], check=True)
        assert (entry.folder / "data").read_text() == "data"
        assert sorted(name for name, _, _ in cache.stages()) == [f"convert-{KEY}", f"quality-{KEY}"]
    cache.clear()
    assert cache.stages() == []


def test_a_stage_that_is_being_removed_counts_as_absent_for_a_build(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache)
    descriptor = os.open(tmp_path / "stages" / f"convert-{KEY}", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with cache.holding():
        assert cache.look_up("convert", KEY) is None
    os.close(descriptor)
    with cache.holding():
        assert cache.look_up("convert", KEY) is not None
