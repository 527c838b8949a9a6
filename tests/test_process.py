"""A stage in a child process: what it says, what it takes, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from packager import process
from packager.errors import ExitCode, PackError
from packager.process import (
    JobResult,
    Note,
    Progress,
    Resident,
    Text,
    peak_resident_bytes,
    run_job,
)

MB = 10**6


def finish(work: Generator[Any, None, JobResult]) -> tuple[list[Any], JobResult]:
    messages = []
    while True:
        try:
            messages.append(next(work))
        except StopIteration as stop:
            return messages, stop.value


def start(job: str, log: Path, **arguments: Any) -> Generator[Any, None, JobResult]:
    return run_job(f"tests.support.jobs:{job}", arguments, log)


def gone(pid: int) -> bool:
    """Whether a process is dead, given a moment to die; a zombie that waits for its parent is."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_job_reports_and_returns_its_value(tmp_path: Path) -> None:
    messages, result = finish(start("echo", tmp_path / "log", word="hello"))
    assert messages == [
        Note("heard hello"),
        Text("piece "),
        Progress(1, 2, "words"),
        Progress(2, 2, "words"),
    ]
    assert result.value["word"] == "hello"
    assert result.value["pid"] != os.getpid()


def test_what_an_engine_prints_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(start("echo", tmp_path / "log", word="hello"))
    assert "an engine prints this" in (tmp_path / "log").read_text()
    assert capfd.readouterr() == ("", "")


def test_the_error_of_a_job_is_raised_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        finish(start("refuse", tmp_path / "log"))
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "model.safetensors is damaged.",
        "Get it again.",
        ExitCode.INPUT,
    )


def test_an_unknown_exception_of_a_job_is_a_bug_with_its_last_line_and_the_log(
    tmp_path: Path,
) -> None:
    with pytest.raises(PackError) as caught:
        finish(start("stumble", tmp_path / "log"))
    assert "RuntimeError: the engine fell over" in caught.value.message
    assert str(tmp_path / "log") in caught.value.hint
    assert caught.value.exit_code == ExitCode.BUG
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_child_that_is_killed_is_said_to_have_run_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="memory ran out") as caught:
        finish(start("vanish", tmp_path / "log", number=int(signal.SIGKILL)))
    assert caught.value.exit_code == ExitCode.RESOURCE


def test_a_child_that_crashes_names_its_signal(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="SIGSEGV"):
        finish(start("vanish", tmp_path / "log", number=int(signal.SIGSEGV)))


def test_a_child_that_leaves_without_a_word_names_its_exit_code_and_last_line(
    tmp_path: Path,
) -> None:
    with pytest.raises(PackError, match="exit code 7: last words of the engine"):
        finish(start("leave", tmp_path / "log"))


def test_the_peak_is_the_childs_own_and_not_its_parents(tmp_path: Path) -> None:
    ballast = bytearray(400 * MB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    # Not what is resident now: a machine that runs short may have put some of it aside.
    assert peak_resident_bytes() > 400 * MB
    _, small = finish(start("echo", tmp_path / "log", word="x"))
    _, large = finish(start("take_memory", tmp_path / "log", count=200 * MB))
    assert 0 < small.peak_bytes < 200 * MB
    assert 200 * MB <= large.peak_bytes < 400 * MB
    del ballast


def test_closing_the_generator_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    work = start("sleep_with_a_child", tmp_path / "log", pids=str(pids))
    assert next(work) == Note("sleeping")
    work.close()
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_watched_child_that_says_nothing_still_gives_a_sign_of_life_with_its_memory(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    work = run_job(
        "tests.support.jobs:sleep_with_a_child", {"pids": str(pids)}, tmp_path / "log", watch=True
    )
    signs = [message for message in (next(work) for _ in range(4)) if isinstance(message, Resident)]
    work.close()
    assert len(signs) >= 3
    assert all(sign.bytes > MB for sign in signs)


@pytest.mark.slow
def test_a_child_that_ignores_termination_is_killed(tmp_path: Path) -> None:
    work = start("ignore_termination", tmp_path / "log")
    assert next(work) == Note("deaf")
    work.close()


def test_a_child_whose_fork_holds_the_pipe_open_does_not_keep_the_build_waiting(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(PackError, match="exit code 7"):
        finish(start("leave_a_fork_behind", tmp_path / "log", pids=str(pids)))
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_python_files_in_the_folder_the_user_stands_in_are_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    _, result = finish(start("import_by_name", tmp_path / "log", name="colorsys"))
    assert Path(result.value["file"]).parent != tmp_path


def test_a_second_interruption_while_the_child_is_ending_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = process._signal_group

    def tell(pid: int, number: signal.Signals) -> None:
        """It comes once the child was asked to end, which it does not hear."""
        told(pid, number)
        if number == signal.SIGTERM:
            signal.setitimer(signal.ITIMER_REAL, 0.2)

    monkeypatch.setattr(process, "_signal_group", tell)
    pids = tmp_path / "pids"
    work = start("sleep_with_a_child", tmp_path / "log", pids=str(pids), deaf=True)
    assert next(work) == Note("sleeping")
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work.close()
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.skipif(
    sys.platform != "linux", reason="asks Linux to tie a child's life to its parent's"
)
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "from packager.process import run_job; from pathlib import Path\n"
        f"list(run_job('tests.support.jobs:sleep_with_a_child', {{'pids': {str(pids)!r}}}, "
        f"Path({str(tmp_path / 'log')!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    while not pids.exists() or " " not in pids.read_text():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    job, grandchild = (int(pid) for pid in pids.read_text().split())
    assert gone(job)
    os.kill(grandchild, signal.SIGKILL)
