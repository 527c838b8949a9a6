"""The build cache: finished stages only, under the hash of their inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packager.digests import key_of
from packager.pipeline.cache import BuildCache


def fill(cache: BuildCache, stage: str, key: str, text: str) -> None:
    with cache.work_folder() as work:
        (work / "data").write_text(text)
        cache.keep(stage, key, work, {"text": text})


def test_a_key_depends_on_every_input_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1, "b": [2]}) != key_of({"a": 1, "b": [3]})
    assert len(key_of(None)) == 24


def test_a_finished_stage_is_found_again_with_its_facts(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    assert cache.look_up("convert", "k") is None
    fill(cache, "convert", "k", "hello")
    entry = BuildCache(tmp_path).look_up("convert", "k")
    assert entry is not None
    assert entry.facts == {"text": "hello"}
    assert (entry.folder / "data").read_text() == "hello"


def test_an_unfinished_stage_leaves_nothing(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.work_folder() as work:
        (work / "data").write_text("half")
        raise KeyboardInterrupt
    assert cache.stages() == []
    assert os.listdir(tmp_path / "work") == []


def test_a_stage_with_a_damaged_record_counts_as_absent_and_is_replaced(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache, "fetch", "k", "old")
    (tmp_path / "stages" / "fetch-k" / "record.json").write_text("{")
    assert cache.look_up("fetch", "k") is None
    fill(cache, "fetch", "k", "new")
    entry = cache.look_up("fetch", "k")
    assert entry is not None
    assert entry.facts == {"text": "new"}


def test_of_two_builds_that_finish_the_same_stage_the_first_ones_output_stays_untouched(
    tmp_path: Path,
) -> None:
    cache = BuildCache(tmp_path)
    fill(cache, "fetch", "k", "first")
    entry = cache.look_up("fetch", "k")
    assert entry is not None
    with (entry.folder / "data").open() as reader:
        fill(cache, "fetch", "k", "second")
        assert (entry.folder / "data").stat().st_ino == os.fstat(reader.fileno()).st_ino
    assert (entry.folder / "data").read_text() == "first"


@pytest.mark.parametrize("record", ["{", "[]", "7"])
def test_a_record_that_is_no_object_counts_as_absent(record: str, tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache, "fetch", "k", "old")
    (tmp_path / "stages" / "fetch-k" / "record.json").write_text(record)
    assert cache.look_up("fetch", "k") is None


def test_clearing_leaves_the_work_of_a_running_build_alone(tmp_path: Path) -> None:
    with BuildCache(tmp_path).work_folder() as work:
        (work / "data").write_text("half")
        BuildCache(tmp_path).clear()
        assert (work / "data").read_text() == "half"


def test_clearing_removes_every_stage_and_says_how_much(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache, "fetch", "a", "12345")
    fill(cache, "fetch", "b", "1234567890")
    assert [name for name, _, _ in cache.stages()] == ["fetch-a", "fetch-b"]
    assert cache.clear() >= 15
    assert cache.stages() == []
