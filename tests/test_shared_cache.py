"""A build cache that several machines share: what is taken from it is compared, one machine works
on a stage, and it stays as small as it is told."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.events import StageFinished, StageNote
from packager.paths import cache_dir
from packager.pipeline import shared_cache
from packager.pipeline.cache import BuildCache
from packager.pipeline.shared_cache import Store
from packager.pipeline.stage_record import LARGEST_RECORD
from packager.sweep import inline
from packager.sweep.building import Work, cache_with
from packager.sweep.folder import Folder, Run
from packager.sweep.matrix import matrix
from tests.support.sweeps import dying, through, tiny_plan

KEY = "0" * 24


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "shared"), make=True)


def given(store: Store, tmp_path: Path, files: dict[str, bytes], key: str = KEY) -> None:
    """A stage with these files, as a machine gives it away."""
    cache = BuildCache(tmp_path / f"local-{key}")
    with cache.work_folder() as folder:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        entry = cache.keep("convert", key, folder, {"artifact_bytes": 3})
    list(store.push("convert", key, entry.folder, entry.facts, entry.files))


def taken(store: Store, folder: Path, key: str = KEY) -> Any:
    folder.mkdir(exist_ok=True)
    return through(store.pull("convert", key, folder))[1]


def objects(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "shared" / "objects").rglob("*") if path.is_file()]


def test_a_stage_comes_back_as_it_was_given_and_files_that_two_share_lie_there_once(
    store: Store, tmp_path: Path
) -> None:
    given(store, tmp_path, {"out/a": b"abc", "out/b": b"same"})
    given(store, tmp_path, {"out/c": b"same"}, "1" * 24)
    facts, files = taken(store, tmp_path / "back")
    assert facts == {"artifact_bytes": 3}
    assert {row.path for row in files} == {"out/a", "out/b"}
    assert (tmp_path / "back" / "out" / "a").read_bytes() == b"abc"
    assert len(objects(tmp_path)) == 2
    assert taken(store, tmp_path / "none", "2" * 24) is None


def test_what_is_not_as_it_was_written_is_not_taken_and_removed(
    store: Store, tmp_path: Path
) -> None:
    def flipped(path: Path) -> None:
        path.write_bytes(b"axc")

    def cut(path: Path) -> None:
        path.write_bytes(b"ab")

    def linked(path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"abc")
        path.unlink()
        path.symlink_to(tmp_path / "secret")

    for number, damage in enumerate((flipped, cut, linked, Path.unlink)):
        given(store, tmp_path, {"out/a": b"abc"}, str(number) * 24)
        (path,) = objects(tmp_path)
        damage(path)
        assert taken(store, tmp_path / f"back-{number}", str(number) * 24) is None, damage
        assert objects(tmp_path) == [] and not store.names("convert", str(number) * 24)


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "out/../../x", "con", "a\\b"])
def test_a_record_that_leads_outside_is_no_record(path: str, store: Store, tmp_path: Path) -> None:
    from packager.pipeline.stage_record import sealed

    row = {"path": path, "size": 1, "sha256": "0" * 64}
    record = tmp_path / "shared" / "records" / f"convert-{KEY}.json"
    record.write_text(json.dumps(sealed({}, [row])))
    assert taken(store, tmp_path / "back") is None and not record.exists()


def test_a_record_without_end_is_not_read_to_its_end_and_removed(
    store: Store, tmp_path: Path
) -> None:
    record = tmp_path / "shared" / "records" / f"convert-{KEY}.json"
    with record.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert store.read("convert", KEY) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST_RECORD
    finally:
        tracemalloc.stop()
    assert not record.exists()


def test_only_one_claims_a_stage_and_a_dead_claim_is_passed_by(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.claimed("convert", KEY) as first, store.claimed("convert", KEY) as second:
        assert first.won() and not second.won()
        with store.claimed("convert", "1" * 24) as other:
            assert other.won()
    with store.claimed("convert", KEY) as third:
        assert third.won()
        # A process that was killed gives nothing back and renews nothing.
        monkeypatch.setattr(shared_cache, "LEASE_S", 0.2)
        with store.claimed("convert", KEY) as heir, store.claimed("convert", KEY) as rival:
            assert not heir.won() and not rival.won()
            time.sleep(0.3)
            assert [heir.won(), rival.won()] == [True, False]


def test_a_claim_that_is_renewed_is_never_passed_by(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(shared_cache, "time", clock)
    monkeypatch.setattr(shared_cache, "_RENEW_S", 0.05)
    with store.claimed("convert", KEY) as first, store.claimed("convert", KEY) as second:
        assert first.won()
        with first.renewed():
            for _ in range(4):
                before = store.claims(f"convert-{KEY}")
                assert not second.won()
                while store.claims(f"convert-{KEY}") == before:
                    time.sleep(0.01)
                now[0] += 0.9 * shared_cache.LEASE_S
        # Whoever renews no more is.
        assert not second.won()
        now[0] += 1.1 * shared_cache.LEASE_S
        assert second.won()


def test_of_many_that_want_a_stage_at_once_one_has_it(store: Store) -> None:
    for number in range(20):
        won: list[bool] = []
        together = threading.Barrier(8)

        def want(name: str, won: list[bool], together: threading.Barrier) -> None:
            claim = shared_cache.Claim(store, name)
            together.wait()
            won.append(claim.won())

        wanted = (f"convert-{number:024d}", won, together)
        threads = [threading.Thread(target=want, args=wanted) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won.count(True) == 1


def test_the_oldest_go_first_and_what_another_stage_needs_stays(
    store: Store, tmp_path: Path
) -> None:
    given(store, tmp_path, {"out/a": b"x" * 100, "out/shared": b"s" * 50})
    given(store, tmp_path, {"out/b": b"y" * 100, "out/shared": b"s" * 50}, "1" * 24)
    old = tmp_path / "shared" / "records" / f"convert-{KEY}.json"
    os.utime(old, (1, 1))
    assert [one.name for one in store.kept()] == [f"convert-{KEY}", f"convert-{'1' * 24}"]
    assert store.evict(most_bytes=10_000) == 0
    assert store.evict(most_bytes=200) == 100
    assert taken(store, tmp_path / "back", "1" * 24) is not None
    assert store.evict(most_seconds=3600) == 0
    assert store.evict(most_bytes=0) == 150 and objects(tmp_path) == []


def test_the_command_shows_a_shared_cache_and_makes_none(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given(store, tmp_path, {"out/a": b"abc"})
    place = str(tmp_path / "shared")
    assert main(["cache", "--shared", place, "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert [row["bytes"] for row in answer["stages"]] == [3] and answer["freed_bytes"] is None
    assert main(["cache", "--shared", place, "--max-age", "0"]) == ExitCode.DONE
    assert "3 B freed" in capsys.readouterr().err
    assert main(["cache", "--shared", str(tmp_path / "typo")]) == ExitCode.USAGE
    assert not (tmp_path / "typo").exists()
    assert main(["cache", "--max-size", "1G"]) == ExitCode.USAGE


def test_a_place_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="not a place for a shared cache") as caught:
        Store("nonsense://x", make=True)
    assert caught.value.exit_code == ExitCode.USAGE
    (tmp_path / "file").write_text("")
    with pytest.raises(PackError, match="does not answer") as caught:
        Store(str(tmp_path / "file" / "below"), make=True)
    assert caught.value.exit_code == ExitCode.SOURCE


def swept(tmp_path: Path, name: str) -> tuple[list[Any], Run]:
    """A sweep of a machine of its own beside the shared cache."""
    plan = tiny_plan(tmp_path, 1)
    house = dying()
    shutil.rmtree(cache_dir(), ignore_errors=True)
    folder = Folder.made(tmp_path / name, plan)
    shared = cache_with(str(tmp_path / "shared"))
    return through(inline.run(Work(plan, matrix(plan, house), folder, house, shared)))


@pytest.mark.slow
def test_another_machine_takes_a_conversion_over_and_measures_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "log"))
    (first,) = swept(tmp_path, "one")[1].rows.values()
    assert set(first.seconds) >= {"convert", "measure", "quality"}
    events, run = swept(tmp_path, "two")
    (second,) = run.rows.values()
    assert {"convert", "quality"} <= set(second.cached) and "measure" in second.seconds
    assert second.content_sha256 == first.content_sha256
    # A flipped byte in the shared cache is found, told, and made again.
    largest = max(objects(tmp_path), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    events, run = swept(tmp_path, "three")
    (third,) = run.rows.values()
    notes = [event.text for event in events if isinstance(event, StageNote)]
    assert any("shared cache kept is damaged" in text for text in notes)
    assert "convert" in third.seconds and third.content_sha256 == first.content_sha256
    assert sum(isinstance(event, StageFinished) for event in events) == 5
