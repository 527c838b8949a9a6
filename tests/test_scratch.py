"""Temporaries of ours: gone whatever happens, and nothing else with them; several files get their
names together or not at all."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from packager.files import write_atomically
from packager.scratch import (
    MARK,
    place,
    remove_abandoned,
    scratch_file,
    scratch_folder,
    temporary_folder,
)
from tests.conftest import REPOSITORY

START = "import os, signal, time\nfrom pathlib import Path\nfrom packager import scratch, files\n"
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"


def killed(script: str) -> None:
    assert (
        subprocess.run([sys.executable, "-c", START + script], check=False).returncode
        == -signal.SIGKILL
    )


def test_scratch_is_gone_when_its_block_ends_and_with_it_what_a_killed_process_left(
    tmp_path: Path,
) -> None:
    folder_left = (
        f"with scratch.scratch_folder(Path({str(tmp_path)!r})) as folder:\n    (folder / "
        f"'half').touch()\n    {KILL}"
    )
    file_left = (
        f"with scratch.scratch_file(Path({str(tmp_path)!r})) as (path, number):\n    "
        f"os.write(number, b'half')\n    {KILL}"
    )
    for script in (folder_left, file_left):
        killed(script)
        assert len(list(tmp_path.iterdir())) == 1
    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert os.listdir(tmp_path) == []


def test_scratch_of_somebody_who_lives_and_what_others_made_is_left_alone(tmp_path: Path) -> None:
    """Names that look like ours, and folders of our name without our mark."""
    names = [
        ".qwen-pack-notes",
        ".qwen-pack-abcdefgh",
        ".qwen-pack-tmp-short",
        "work",
        ".qwen-pack-tmp-0123456789abcdeX",
    ]
    for name in [*names, ".qwen-pack-tmp-0123456789abcdef"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("precious")
    (tmp_path / ".qwen-pack-tmp-00000000000000aa").symlink_to(
        tmp_path / "work", target_is_directory=True
    )
    (tmp_path / ".qwen-pack-tmp-0123456789abcdef" / MARK).symlink_to("mine")
    before = sorted(os.listdir(tmp_path))
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first != second and first.is_dir()
        write_atomically(tmp_path / "other", b"x")
        assert first.is_dir()
    (tmp_path / "other").unlink()
    assert sorted(os.listdir(tmp_path)) == before
    assert all((tmp_path / name / "mine").read_text() == "precious" for name in names)


def test_a_kill_leaves_nothing_in_the_place_for_temporaries_after_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = f"import tempfile\ntempfile.tempdir = {str(tmp_path)!r}\n"
    killed(
        f"{script}with scratch.temporary_folder() as folder:\n    (folder / 'x').touch()\n    {KILL}"
    )
    assert len(list(tmp_path.iterdir())) == 1
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_what_another_person_left_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of our name with a mark and a list of names to take back, as anybody can make one
    where everybody writes."""
    (tmp_path / "mine").write_text("precious")
    killed(
        f"made = scratch.scratch_folder(Path({str(tmp_path)!r}))\nholder = made.__enter__()\n"
        f"(holder / 'a').write_text('x')\n{KILL}"
    )
    left = sorted(path.name for path in tmp_path.iterdir())
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    monkeypatch.setattr("os.geteuid", lambda: user)
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_no_module_makes_temporaries_that_a_kill_would_leave() -> None:
    """Two make them inside of the folder of a stage, which goes with them. The third runs before
    anything is installed, and leaves a library of some kilobytes in the system's own folder."""
    pattern = re.compile(r"\b(TemporaryDirectory|NamedTemporaryFile|mkdtemp|mkstemp)\(")
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("packager", "targets", "tui")
        for path in (REPOSITORY / folder).rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert found == {
        "packager/engine_check/compiler.py",
        "targets/onnxruntime/convert.py",
        "targets/openvino/convert.py",
    }


def test_a_removal_that_was_cut_short_is_finished_by_the_next_one(tmp_path: Path) -> None:
    killed(f"with scratch.scratch_folder(Path({str(tmp_path)!r})) as folder:\n    {KILL}")
    (left,) = tmp_path.iterdir()
    (left / MARK).write_bytes((left / MARK).read_bytes()[:10])
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == []


def test_several_files_get_their_names_together_or_not_at_all_wherever_the_process_is_killed(
    tmp_path: Path,
) -> None:
    """A kill before each of the system calls that give or take a name."""
    script = (
        "import itertools\ncalls, at = itertools.count(), {at}\n"
        "def counted(call):\n"
        "    def inner(*a, **k):\n"
        "        if next(calls) == at: " + KILL + "        return call(*a, **k)\n"
        "    return inner\n"
        "for name in ('link', 'unlink', 'rename'): setattr(os, name, counted(getattr(os, name)))\n"
        "folder = Path({folder!r})\n"
        "with scratch.scratch_folder(folder) as holder:\n"
        "    for name in 'abc': (holder / name).write_text(name)\n"
        "    scratch.place(holder, [(holder / name, folder / name) for name in 'abc'])\n"
        "print('done')\n"
    )
    seen = set()
    for at in range(40):
        folder = tmp_path / str(at)
        folder.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", START + script.format(at=at, folder=str(folder))],
            check=False,
            capture_output=True,
        )
        remove_abandoned(folder)
        names = tuple(sorted(os.listdir(folder)))
        assert names in ((), ("a", "b", "c")), (at, names)
        seen.add(names)
        if b"done" in run.stdout:
            break
    assert seen == {(), ("a", "b", "c")}
    assert at > 6


def test_a_name_that_is_taken_takes_back_those_that_were_given(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("somebody's")
    with scratch_folder(tmp_path) as holder:
        for name in "ab":
            (holder / name).write_text("ours")
        with pytest.raises(FileExistsError):
            place(holder, [(holder / name, tmp_path / name) for name in "ab"])
    assert os.listdir(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "somebody's"


@pytest.mark.parametrize("kind", [scratch_folder, scratch_file])
def test_an_interruption_at_any_moment_leaves_nothing(
    kind: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Where Python lets a signal be seen: when a function begins, and after a call into C."""
    done, moment = False, 0
    while not done:
        moment += 1
        left = moment

        def interrupt(frame: FrameType, event: str, argument: object) -> None:
            nonlocal left
            if event in ("call", "c_return"):
                left -= 1
                if not left:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        try:
            sys.setprofile(interrupt)
            with kind(tmp_path) as made:
                (made / "half").touch() if isinstance(made, Path) else os.write(made[1], b"half")
            sys.setprofile(None)
            done = True
        except KeyboardInterrupt:
            pass
        assert list(tmp_path.iterdir()) == [], moment
    assert moment > 50


def test_a_process_that_is_killed_at_any_moment_leaves_the_old_file_or_the_new_one_and_the_next_cleans_up(
    tmp_path: Path,
) -> None:
    seeded = random.Random(7)
    script = (
        f"n = 0\nwhile True:\n    files.write_atomically(Path({str(tmp_path / 'file')!r}), "
        "b'%06d' % n * 20000)\n    n += 1\n"
    )
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", START + script])
        time.sleep(0.3 + seeded.random() / 5)
        child.kill()
        child.wait()
        data = (tmp_path / "file").read_bytes() if (tmp_path / "file").exists() else b""
        assert data == data[:6] * 20000
    write_atomically(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]
