"""What hangs is told from what works, waits for a disk or was stopped by somebody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from packager import liveness
from packager.liveness import Liveness

pytestmark = pytest.mark.slow

SPIN = (
    "import time\n"
    "while True:\n"
    "    until = time.monotonic() + 0.03\n"
    "    while time.monotonic() < until: pass\n"
    "    time.sleep(0.07)"
)
"""Computes, and leaves most of a processor to others."""
SLEEP = "import time; print(flush=True); time.sleep(600)"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "IDLE_S", 1.5)
    monkeypatch.setattr(liveness, "_SAMPLE_S", 0.25)


@contextmanager
def child(code: str) -> Iterator[Liveness]:
    """A Python of that code, past its own start where it says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        if code == SLEEP:
            assert process.stdout is not None
            process.stdout.readline()
        yield Liveness(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def asked(life: Liveness, seconds: float) -> str:
    """What it says within that time, as a stage asks: ten times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sign = life.hang()
        if sign:
            return sign
        time.sleep(0.1)
    return ""


def test_a_process_that_waits_for_what_never_comes_hangs() -> None:
    with child(SLEEP) as life:
        assert "computed, read and wrote nothing for " in asked(life, 30)


@pytest.mark.slow
def test_a_process_that_computes_lives_and_so_does_one_whose_child_computes() -> None:
    for code in (SPIN, GRANDCHILD):
        with child(code) as life:
            assert asked(life, 3) == ""


def test_a_process_that_computes_without_a_word_for_hours_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liveness, "SILENT_S", 1.0)
    with child(SPIN) as life:
        assert "computed for 0.0 hours without a word" in asked(life, 30)


def test_a_word_starts_the_time_anew() -> None:
    with child(SLEEP) as life:
        for _ in range(30):
            life.heard()
            assert life.hang() == ""
            time.sleep(0.1)


def test_a_process_that_somebody_stopped_and_one_that_is_gone_do_not_hang() -> None:
    with child(SLEEP) as life:
        os.kill(life.pid, signal.SIGSTOP)
        assert asked(life, 3) == ""
        os.kill(life.pid, signal.SIGCONT)
    assert asked(life, 3) == ""


def test_time_in_which_nobody_asked_counts_as_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(SLEEP) as life:
        time.sleep(2)
        life.hang()
        time.sleep(2)
        assert life.hang() == ""
        assert life.idle_s <= 1.0
