"""What the build cache holds is compared before it is used: damage of any kind is thrown away and
made again, with a note."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.events import Event, StageFinished, StageNote
from packager.files import regular_files, sha256
from packager.package.manifest import FileEntry
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.job import Job
from packager.pipeline.packaging import _copied
from packager.pipeline.run import _complete, _stage
from packager.pipeline.shared_cache import Store
from packager.pipeline.stage_record import RECORD, sealed
from packager.pipeline.stages import look_up
from packager.quality.verdict import judged, lacking, refuse_incomplete
from packager.sources.reread import Evidence
from tests.support.quality_facts import facts_with

pytestmark = pytest.mark.slow

BIN = Path("out") / "model.bin"


def flip(stage: Path) -> None:
    """One bit, with the time and the size that the file had."""
    path, before = stage / BIN, (stage / BIN).stat()
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def zeros(stage: Path) -> None:
    """What a power cut leaves of a file that was not flushed."""
    path, before = stage / BIN, (stage / BIN).stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link(stage: Path) -> None:
    shutil.copy(stage / BIN, stage.parent.parent / "elsewhere")
    (stage / BIN).unlink()
    (stage / BIN).symlink_to(stage.parent.parent / "elsewhere")


def link_of_the_stage(stage: Path) -> None:
    stage.rename(stage.parent.parent / "elsewhere")
    stage.symlink_to(stage.parent.parent / "elsewhere", target_is_directory=True)


def pipe(stage: Path) -> None:
    (stage / BIN).unlink()
    os.mkfifo(stage / BIN)


def change_record(stage: Path, **changes: Any) -> None:
    (stage / RECORD).write_text(json.dumps({**json.loads((stage / RECORD).read_text()), **changes}))


def outside(stage: Path) -> None:
    rows = json.loads((stage / RECORD).read_text())["files"]
    (stage / RECORD).write_text(
        json.dumps(sealed({}, [*rows, {**rows[0], "path": "../../elsewhere"}]))
    )


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": flip,
    "zeros": zeros,
    "cut": lambda stage: os.truncate(stage / BIN, 1000),
    "emptied": lambda stage: os.truncate(stage / BIN, 0),
    "removed": lambda stage: (stage / BIN).unlink(),
    "a link": link,
    "a link in place of the stage": link_of_the_stage,
    "a pipe": pipe,
    "a file added": lambda stage: (stage / "out" / "extra.so").write_bytes(b"code"),
    "a link added": lambda stage: (stage / "out" / "extra").symlink_to("/etc/passwd"),
    "the folder emptied": lambda stage: shutil.rmtree(stage / "out"),
    "other facts": lambda stage: change_record(stage, facts={"artifact_bytes": 1}),
    "a record without files": lambda stage: change_record(stage, files=[]),
    "a record of an earlier version": lambda stage: (stage / RECORD).write_text(
        '{"artifact_bytes": 102400}'
    ),
    "a record that leads outside": outside,
    "a record that is cut": lambda stage: os.truncate(stage / RECORD, 40),
    "a record that is a link": lambda stage: (
        (stage / RECORD).rename(stage.parent.parent / "r"),
        (stage / RECORD).symlink_to(stage.parent.parent / "r"),
    ),
}


def ended(work: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value


def test_a_kept_artifact_that_was_damaged_is_thrown_away_with_a_note_and_made_again(
    tmp_path: Path,
) -> None:
    wrong = []
    for number, (name, damage) in enumerate(DAMAGE.items()):
        cache, count = BuildCache(tmp_path / str(number)), tmp_path / f"count-{number}"
        job = Job(
            "convert",
            "tests.support.jobs:write_files",
            {"count": str(count)},
            "0123456789abcdef01234567",
        )
        _, entry = ended(_stage(cache, job))
        if number == 0:
            events, again = ended(_stage(cache, job))
            assert again == entry and events[-1].cached, "sound: taken as it is"  # type: ignore[union-attr]
            assert count.read_text() == "x"
        damage(entry.folder)
        events, entry = ended(_stage(cache, job))
        notes = [event.text for event in events if isinstance(event, StageNote)]
        finished = [event for event in events if isinstance(event, StageFinished)]
        if (
            len(notes) != 1
            or "it is made again" not in notes[0]
            or finished[-1].cached
            or count.read_text() != "xx"
        ):
            wrong.append((name, notes, count.read_text()))
        if (entry.folder / BIN).read_bytes() != bytes(range(256)) * 400 or (
            entry.folder / BIN
        ).is_symlink():
            wrong.append((name, "still damaged"))
        if not ended(_stage(cache, job))[0][-1].cached:
            wrong.append((name, "does not heal"))
    assert wrong == []


def test_files_that_nobody_reads_are_not_hashed_and_those_that_are_small_always_are(
    tmp_path: Path,
) -> None:
    cache = BuildCache(tmp_path)
    job = Job(
        "fetch",
        "tests.support.jobs:write_files",
        {"count": str(tmp_path / "count")},
        "0123456789abcdef01234567",
    )
    _, entry = ended(_stage(cache, job))
    flip(entry.folder)
    assert ended(cache_compare(cache, entry, 1000))[1] is None
    assert "model.bin is not what was written" in ended(cache_compare(cache, entry, None))[1]


def cache_compare(
    cache: BuildCache, entry: Entry, largest: int | None
) -> Generator[Any, None, str | None]:
    return cache.compare(entry, largest)


def test_a_file_that_changes_while_it_is_packaged_stops_the_package(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"other")
    row = FileEntry("model/a", 5, "0" * 64)
    with pytest.raises(PackError, match="changed while it was packaged") as caught:
        list(_copied(tmp_path / "a", tmp_path / "b", row))
    assert caught.value.exit_code is ExitCode.INPUT


def test_a_kept_fetch_that_leads_to_another_folder_is_made_again(tmp_path: Path) -> None:
    """A shared cache could lead a build to any folder of this machine."""
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    source = Job(
        "fetch", "tests.support.jobs:echo", {"folder": str(tmp_path / "mine"), "repo_id": "x"}, "0a"
    )
    dummy, hub = (
        Job("fetch", "tests.support.jobs:echo", {"repo_id": "x"}, "0b"),
        Job("fetch", "tests.support.jobs:echo", {"revision": "c" * 40}, "0c"),
    )
    cache = BuildCache(tmp_path / "cache")
    for job, folder in (
        (source, tmp_path / "other"),
        (dummy, tmp_path / "other"),
        (dummy, "../../../other"),
        (hub, tmp_path / "other"),
    ):
        with cache.work_folder() as work:
            cache.keep(
                "fetch",
                job.key or "",
                work,
                {"folder": str(folder), "files": [], "revision": "c" * 40},
            )
        assert look_up(cache, job) is None, folder
        assert cache.look_up("fetch", job.key or "") is None
    with cache.work_folder() as work:
        cache.keep("fetch", "0a", work, {"folder": str(tmp_path / "mine"), "files": [{"path": 7}]})
    assert look_up(cache, source) is None
    with cache.work_folder() as work:
        cache.keep("fetch", "0a", work, {"folder": str(tmp_path / "mine"), "files": []})
    assert look_up(cache, source) is not None


def test_a_comparison_that_is_empty_or_lacks_a_part_proves_nothing(tmp_path: Path) -> None:
    whole = {**facts_with(), "parts": [{"name": "all"}]}
    assert lacking(whole, True) is None and lacking({**whole, "figures": None}, False) is None
    less: list[dict[str, Any]] = [
        {},
        {**whole, "figures": None},
        {**whole, "figures": {}},
        {**whole, "parity": None},
        {**whole, "parts": []},
    ]
    less += [
        {key: value for key, value in whole.items() if key != name}
        for name in ("parity", "figures", "compare_seconds")
    ]
    less += [{**whole, "parity": {}}, {**whole, "parity": {**whole["parity"], "tokens": 0}}]
    for facts in less:
        assert lacking(facts, True) is not None, facts
        with pytest.raises(PackError, match="nothing is proved") as caught:
            refuse_incomplete(facts, True)
        assert caught.value.exit_code is ExitCode.BUDGET
        cache = BuildCache(tmp_path / "cache")
        with cache.work_folder() as work:
            cache.keep("quality", "0a", work, facts)
        events, found = ended(
            _complete(cache, Job("quality", "x:y", {}, "0a", needs_out=False), True)
        )
        assert found is None and cache.look_up("quality", "0a") is None
        assert any(isinstance(event, StageNote) for event in events)
    assert judged({}, None, "the weights are random", False).passed is None


def test_what_was_recorded_of_a_checkpoint_is_compared_while_it_is_converted(
    tmp_path: Path,
) -> None:
    """The bytes have changed, and neither size nor time."""
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "model.safetensors"
    path.write_bytes(b"x" * 70_000)
    digest = "c1a1f2ee4f2a1b0e" * 4
    evidence = Evidence(tmp_path / "weights", (("model.safetensors", 70_000, digest),))
    job = Job(
        "convert",
        "tests.support.jobs:write_files",
        {"count": str(tmp_path / "n")},
        "0123456789abcdef01234567",
        evidence=evidence,
    )
    cache = BuildCache(tmp_path / "cache")
    with pytest.raises(PackError, match="not what it was when its digest was taken") as caught:
        ended(_stage(cache, job))
    assert caught.value.exit_code is ExitCode.INPUT
    assert cache.look_up("convert", job.key or "") is None


def poisoned(folder: Path) -> tuple[FileEntry, ...]:
    """A library for the engine beside what a stage left, in a record that holds: who can write into
    a cache can do both."""
    config = {"model": {"decoder": {"session_options": {"custom_ops_library": "evil.so"}}}}
    (folder / "out" / "genai_config.json").write_text(json.dumps(config))
    rows = tuple(
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path))
        for path in regular_files(folder / "out")
    )
    (folder / RECORD).write_text(json.dumps(sealed({}, [asdict(row) for row in rows])))
    return rows


def test_an_artifact_that_no_engine_may_open_is_made_again_although_its_record_holds(
    tmp_path: Path,
) -> None:
    count, key = tmp_path / "count", "0123456789abcdef01234567"
    job = Job(
        "convert",
        "tests.support.jobs:write_files",
        {"count": str(count)},
        key,
        opened_by="onnxruntime",
    )
    store = Store(str(tmp_path / "shared"), make=True)
    places = {
        "the cache": BuildCache(tmp_path / "local"),
        "the shared cache": BuildCache(tmp_path / "of-another-machine", shared=store),
    }
    _, entry = ended(_stage(places["the cache"], job))
    sound = entry.files
    rows = poisoned(entry.folder)
    list(store.push("convert", key, entry.folder, {}, rows))
    for number, (place, cache) in enumerate(places.items(), 2):
        events, entry = ended(_stage(cache, job))
        (note,) = (event.text for event in events if isinstance(event, StageNote))
        assert (
            "is not safe to open" in note and place in note.lower() and "custom_ops_library" in note
        )
        assert count.read_text() == "x" * number
        assert entry.files == sound
        assert not (entry.folder / "out" / "genai_config.json").exists()
    # What was made again stands in the shared cache now: the next machine takes it over.
    events, _ = ended(_stage(BuildCache(tmp_path / "third", shared=store), job))
    finished = [event for event in events if isinstance(event, StageFinished)]
    assert finished[-1].cached and not any(isinstance(event, StageNote) for event in events)
    assert count.read_text() == "xxx"


def test_what_is_made_of_a_checkpoint_is_looked_at_before_an_engine_opens_it(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path / "shared"), make=True)
    cache = BuildCache(tmp_path / "local", shared=store)
    key = "0123456789abcdef01234567"
    job = Job("convert", "tests.support.jobs:write_an_unsafe_file", {}, key, opened_by="openvino")
    for _ in range(2):
        with pytest.raises(PackError, match=r"not safe to open: its file .*extensions") as caught:
            ended(_stage(cache, job))
        assert caught.value.exit_code == ExitCode.INPUT
        assert cache.stages() == [] and not store.names("convert", key)
        assert list((tmp_path / "local" / "work").iterdir()) == []
