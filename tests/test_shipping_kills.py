"""Shipping that is killed: nothing stands under a final name that is not whole, and the same
command works the next time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.verify import verify
from packager.pipeline.cache import BuildCache
from packager.shipping import keys
from packager.shipping.signature import Trust, check
from tests.support.make_package import body, write_package

AGREED = ["--allow-dummy", "--accept-license", "unstated"]
COUNTED = """
import itertools, json, os, signal, sys
def counted(call):
    def inner(*a, **k):
        if next(calls) == at: os.kill(os.getpid(), signal.SIGKILL)
        return call(*a, **k)
    return inner
for name in ("link", "unlink", "rename", "rmdir", "mkdir", "fsync"): setattr(os, name, counted(getattr(os, name)))
from packager.cli import main
for line in sys.stdin:
    calls, (at, words) = itertools.count(1), json.loads(line)
    child = os.fork() if at else 0
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    else:
        code = main(words)
        if at: os._exit(code)
    print("\\n" + json.dumps([int(code), next(calls)]), flush=True)
"""
"""Commands, a line each, that are killed before the nth of the system calls by which files get and
lose their names, or for 0 not at all: how each ended, and how many such calls it made. The first one
is not killed, so that what the others are forked from has imported what they need."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = write_package(tmp_path / "tiny")
    (folder / "model" / "model.bin").write_bytes(random.Random(1).randbytes(400_000))
    data = body(folder)
    data["files"][0] = {**data["files"][0], "size": 400_000}
    manifest.write(folder, data)
    return folder


@pytest.fixture
def run() -> Iterator[Callable[..., tuple[int, int]]]:
    with subprocess.Popen(
        [sys.executable, "-c", COUNTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        told, answers = program.stdin, program.stdout

        def one(at: int, *words: str) -> tuple[int, int]:
            told.write(json.dumps([at, words]) + "\n")
            told.flush()
            code, calls = json.loads(next(line for line in answers if line.startswith("[")))
            return code, calls

        yield one


def moments(calls: int, count: int) -> list[int]:
    """Some of them, seeded, and always those of the end, where names are given."""
    return sorted({*random.Random(5).sample(range(1, calls), count), *range(calls - 8, calls, 2)})


@pytest.mark.engine
def test_a_killed_export_leaves_all_of_its_pieces_with_their_signature_or_nothing_and_the_next_run_works(
    package: Path, tmp_path: Path, run: Callable[..., tuple[int, int]]
) -> None:
    pair = keys.new(tmp_path / "key")
    wrong = []

    def command(place: Path) -> list[str]:
        cut = ["--max-file-size", "100000", "--sign", str(pair.private)]
        return [
            "export",
            str(package),
            "--format",
            "zip",
            "--out",
            str(place / "m.zip"),
            *cut,
            *AGREED,
        ]

    (tmp_path / "whole").mkdir()
    code, calls = run(0, *command(tmp_path / "whole"))
    assert code == 0
    names = sorted(os.listdir(tmp_path / "whole"))
    assert len(names) == 6 and "m.zip.sig" in names
    for at in moments(calls, 6):
        place = tmp_path / str(at)
        place.mkdir()
        assert run(at, *command(place))[0] == -signal.SIGKILL
        visible = sorted(
            name for name in os.listdir(place) if not name.startswith(".qwen-pack-tmp-")
        )
        again = main(command(place))
        done = sorted(os.listdir(place))
        if (
            again not in (ExitCode.DONE, ExitCode.USAGE)
            or (again == ExitCode.USAGE and visible != names)
            or done != names
        ):
            wrong.append((at, again, visible, done))
        assert main(["unpack", str(place / "m.zip.001"), "--out", str(place / "back")]) == 0
        assert check(place / "back", place / "m.zip.sig", Trust(pair.public)) == []
    assert wrong == []


def test_a_killed_unpack_leaves_no_folder_and_nothing_for_ever(
    package: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "m.zip"
    assert main(["export", str(package), "--format", "zip", "--out", str(archive), *AGREED]) == 0
    seeded, place = random.Random(3), tmp_path / "place"
    for _ in range(4):
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "packager.cli",
                "unpack",
                str(archive),
                "--out",
                str(place / "p"),
            ]
        )
        time.sleep(0.1 + 0.5 * seeded.random())
        child.kill()
        child.wait()
        if (place / "p").exists():
            assert verify(place / "p") == []
            break
    if not (place / "p").exists():
        assert main(["unpack", str(archive), "--out", str(place / "p")]) == 0
    assert main(["unpack", str(archive), "--out", str(place / "q")]) == 0
    assert sorted(os.listdir(place)) == ["p", "q"]


def test_a_command_whose_place_is_taken_still_removes_what_a_killed_one_left_beside_it(
    package: Path, tmp_path: Path
) -> None:
    """A kill may come when the result has its name and the temporary is still there."""
    place = tmp_path / "place"
    (place / "taken").mkdir(parents=True)
    out = ["--out", str(place / "taken")]
    for command in (
        ["export", str(package), "--format", "zip", *out, *AGREED],
        ["export", str(package), "--format", "oci", *out, *AGREED],
        ["unpack", str(tmp_path / "a.zip"), *out],
        ["unpack", str(package), *out],
        ["pull", "127.0.0.1:1/a/b:t", *out],
        ["patch", str(tmp_path / "a.patch"), str(package), *out],
        ["keys", "new", str(place / "taken")],
    ):
        (place / ".qwen-pack-tmp-0123456789abcdef").write_text("half")
        assert main(command) == ExitCode.USAGE, command
        assert os.listdir(place) == ["taken"], command


def test_a_place_below_a_file_or_in_a_loop_of_links_is_refused_with_a_sentence(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    for where in ("file/x", "loop/x", "nowhere/x", "pipe/x", "file/x/y", "/", "."):
        place = str(tmp_path / where)
        for command in (
            ["export", str(package), "--format", "zip", "--out", place, *AGREED],
            ["export", str(package), "--format", "dir", "--out", place, *AGREED],
            ["unpack", str(tmp_path / "a.zip"), "--out", place],
            ["pull", "127.0.0.1:1/a/b:t", "--out", place],
            ["patch", str(tmp_path / "a.patch"), str(package), "--out", place],
            ["keys", "new", place],
        ):
            assert main(command) in (ExitCode.USAGE, ExitCode.SOURCE), (where, command)
            assert "Traceback" not in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["file", "loop", "nowhere", "pipe", "tiny"]


def test_pieces_of_somebody_elses_archive_are_named_and_never_mixed(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.zip.007").write_text("of another archive")
    command = [
        "export",
        str(package),
        "--format",
        "zip",
        "--out",
        str(tmp_path / "m.zip"),
        "--max-file-size",
        "100000",
        *AGREED,
    ]
    assert main(command) == ExitCode.USAGE
    assert "m.zip.007 already exists" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("m.zip*")) == ["m.zip.007"]
    (tmp_path / "m.zip.007").unlink()
    assert main(command) == ExitCode.DONE
    unpack = ["unpack", str(tmp_path / "m.zip.001"), "--out", str(tmp_path / "back")]
    # A pipe is not waited for.
    second = tmp_path / "m.zip.002"
    for other in (lambda: os.mkfifo(second), second.mkdir, lambda: second.symlink_to("x")):
        second.rename(tmp_path / "kept")
        other()
        assert main(unpack) == ExitCode.INPUT
        assert "m.zip.002 is not a file" in capsys.readouterr().err
        second.rmdir() if second.is_dir() else second.unlink()
        (tmp_path / "kept").rename(second)
    assert main(unpack) == ExitCode.DONE


def terminate_itself() -> None:
    """SIGTERM to this process, where the command takes it: else the test ends, and not the
    suite."""
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    signal.raise_signal(signal.SIGTERM)


def test_an_interruption_that_python_made_another_error_of_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stages(self: BuildCache) -> list[tuple[str, int, float]]:
        try:
            terminate_itself()
        except KeyboardInterrupt as interruption:
            # As `type.__new__` says it of a member's __set_name__ in Python 3.11.
            raise RuntimeError("Error calling __set_name__") from interruption
        return []

    monkeypatch.setattr(BuildCache, "stages", stages)
    assert main(["cache"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "Error: Interrupted.\n"
    monkeypatch.setattr(BuildCache, "stages", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["cache"])


def test_an_interruption_that_was_lost_on_its_way_still_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python lets no exception out of a finalizer: the signal comes, and the command goes on to its
    end."""

    class Lost:
        def __del__(self) -> None:
            terminate_itself()

    def stages(self: BuildCache) -> list[tuple[str, int, float]]:
        Lost()
        return []

    monkeypatch.setattr(BuildCache, "stages", stages)
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: None)
    assert main(["cache"]) == ExitCode.INTERRUPTED
    assert "Interrupted after everything was done." in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["--version"]) == ExitCode.DONE


def test_an_interruption_within_a_text_that_python_evaluates_ends_with_an_exit_code() -> None:
    """Such an end Python remembers, whoever caught it, and kills itself by SIGINT: every dataclass
    is made of a text."""
    script = (
        "import sys\n"
        "from packager.cli import app, main\n"
        "def evaluate(**_): exec('raise KeyboardInterrupt')\n"
        "app.main = evaluate\n"
        "sys.exit(main(['cache']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.INTERRUPTED
    assert "Interrupted" in done.stderr
