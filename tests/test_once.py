"""What several files of tests read alike is made once in a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.once import Once


def made(folder: Path, log: Path, dies: bool = False) -> None:
    (folder / "part").write_text("half")
    with log.open("a") as file:
        file.write("x")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "part").write_text("whole")


def asked(root: Path, log: Path, dies: bool = False) -> None:
    folder = Once(root)("one", lambda folder: made(folder, log, dies))
    assert (folder / "part").read_text() == "whole"


def test_it_is_made_by_the_first_of_many_who_ask_and_waited_for_by_the_others(
    tmp_path: Path,
) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    processes = [multiprocessing.Process(target=asked, args=(root, log)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "x"


def test_where_its_maker_failed_or_died_the_next_one_begins_from_nothing(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"

    def fails(folder: Path) -> None:
        (folder / "left behind").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Once(root)("one", fails)
    process = multiprocessing.Process(target=asked, args=(root, log, True))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and log.read_text() == "x"
    asked(root, log)
    assert log.read_text() == "xx" and not (root / "one" / "left behind").exists()


def test_workers_share_a_folder_within_that_of_the_run(
    once: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    base = tmp_path_factory.getbasetemp()
    folder = once("empty", lambda folder: None)
    run = base.parent if hasattr(request.config, "workerinput") else base
    assert folder.is_relative_to(run) and (run == base or base.name.startswith("popen-"))
