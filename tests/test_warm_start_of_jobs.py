"""Jobs that the suite forks are what `python -m packager.process` would be."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager import process
from packager.errors import ExitCode, PackError
from packager.process import Note, run_job
from tests.conftest import REPOSITORY
from tests.support.building import words_of
from tests.support.sweeps import through

if not hasattr(os, "pidfd_open"):
    pytest.skip("needs a descriptor that tells of a process's end", allow_module_level=True)

from tests.support import warm_start
from tests.support.warm_start import WarmChild, kind_of


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every child that was started, forked or not."""
    started: list[Any] = []
    start = process._start

    def counted(*arguments: Any) -> Any:
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(process, "_start", counted)
    yield started


def job(name: str, log: Path, env: dict[str, str] | None = None, **arguments: Any) -> Any:
    return run_job(f"tests.support.jobs:{name}", arguments, log, env)


def test_a_forked_job_reports_fails_and_dies_as_one_that_was_started(
    tmp_path: Path, children: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    messages, result = through(job("echo", tmp_path / "log", word="hello"))
    assert messages[0] == Note("heard hello") and result.value["word"] == "hello"
    assert result.value["pid"] == children[0].pid and result.peak_bytes > 0
    assert "an engine prints this" in (tmp_path / "log").read_text()
    for name, arguments, said, code in (
        ("refuse", {}, "is damaged", ExitCode.INPUT),
        ("stumble", {}, "RuntimeError: the engine fell over", ExitCode.BUG),
        ("leave", {}, "exit code 7: last words", ExitCode.BUG),
        ("vanish", {"number": int(signal.SIGSEGV)}, "SIGSEGV", None),
        ("vanish", {"number": int(signal.SIGKILL)}, "memory ran out", ExitCode.RESOURCE),
    ):
        with pytest.raises(PackError, match=said) as caught:
            through(job(name, tmp_path / "log", **arguments))
        assert code in (None, caught.value.exit_code)
    assert "Traceback" not in "".join(capfd.readouterr())
    assert all(isinstance(child, WarmChild) for child in children) and len(children) == 6


def test_closing_the_generator_ends_a_forked_job_and_what_it_started(
    tmp_path: Path, children: list[Any]
) -> None:
    pids = tmp_path / "pids"
    work = job("sleep_with_a_child", tmp_path / "log", pids=str(pids))
    assert next(work) == Note("sleeping")
    own, below = (int(pid) for pid in pids.read_text().split())
    assert os.getsid(own) == own == children[0].pid
    work.close()
    assert gone(own) and gone(below)


def test_a_forked_job_dies_with_whoever_asked_for_it(tmp_path: Path, children: list[Any]) -> None:
    pids = tmp_path / "pids"
    work = job("sleep_with_a_child", tmp_path / "log", pids=str(pids))
    next(work)
    own, below = (int(pid) for pid in pids.read_text().split())
    # What the kernel does when the asking process is killed.
    children[0]._connection.close()
    assert gone(own)
    os.kill(below, signal.SIGKILL)
    children[0].returncode = -9
    work.close()


def test_what_a_library_reads_when_it_is_loaded_makes_a_child_that_starts_from_nothing(
    tmp_path: Path, children: list[Any]
) -> None:
    through(job("echo", tmp_path / "log", {"OPENBLAS_NUM_THREADS": "2"}, word="x"))
    through(job("echo", tmp_path / "log", {"QWEN_PACK_CACHE": str(tmp_path)}, word="x"))
    assert [isinstance(child, WarmChild) for child in children] == [False, True]


def test_the_jobs_that_a_forked_job_starts_are_forked_too_and_say_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    value = through(job("start_another", tmp_path / "log", below=str(tmp_path / "inner")))[1].value
    assert value["forked"] and value["cwd"] == str(tmp_path) and value["inner"] != value["pid"]


def test_the_jobs_of_a_program_that_a_test_starts_are_forked_as_its_own_are(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without what counts children here.
    monkeypatch.setattr(process, "_start", request.getfixturevalue("warm_start").start)
    ours = [sys.executable, *words_of("tests.support.echoed")]
    for words, kind in (
        (ours, "WarmChild"),
        (["bash", "-c", f"cd /; {shlex.join(ours)}; true"], "WarmChild"),
        ([sys.executable, "-m", "tests.support.echoed"], "Popen"),
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == (f"{kind}\n", 0), done.stderr


@pytest.mark.parametrize(
    "words",
    [["fit", "--target", "nowhere"], ["targets", "--json"], ["verify", "."], ["--no-such-option"]],
    ids=" ".join,
)
def test_a_command_that_is_forked_prints_and_ends_as_one_that_is_started(
    words: list[str], tmp_path: Path, warm_start: Any
) -> None:
    given = {**os.environ, "QWEN_PACK_CACHE": str(tmp_path / "cache")}
    forked = warm_start.run("packager.cli", words, given, tmp_path)
    line = [sys.executable, "-m", "packager.cli", *words]
    started = subprocess.run(
        line, capture_output=True, text=True, env=given, cwd=tmp_path, check=False
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        (started.returncode, started.stdout, started.stderr)
    )
    assert warm_start.run("packager.cli", words, {**given, "LANG": "zz"}, tmp_path) is None


def test_a_server_has_loaded_nothing_that_reads_the_variables_which_may_differ(
    tmp_path: Path,
) -> None:
    for name in ("tests.support.jobs:libraries", "packager.chat.speech:libraries"):
        assert kind_of({"job": name, "arguments": {}}) in warm_start.ALONE
    loaded = through(job("libraries", tmp_path / "log"))[1].value
    assert loaded["threads"] == 1 and "numpy" in loaded["modules"]
    for word in ("gomp", "iomp", "ggml", "torch", "openvino", "onnxruntime", "dnnl"):
        assert not any(word in path for path in loaded["files"]), word
    assert "huggingface_hub" not in loaded["modules"]


def test_the_files_and_tests_whose_jobs_start_from_nothing_are_there() -> None:
    for name in warm_start.COLD:
        file, _, test = name.partition("::")
        assert f"\ndef {test}" in (REPOSITORY / "tests" / file).read_text("utf-8"), name


def gone(pid: int) -> bool:
    """Whether a process is dead, given a moment to die."""
    for _ in range(600):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
