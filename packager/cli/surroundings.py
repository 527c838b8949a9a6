"""What the shell hands over, made safe before a command runs: standard streams and signals."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO


class Interruption:
    """Whether somebody wanted to end the command, also where the exception of it was lost on its
    way."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal."""
        self.came = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def prepared() -> Iterator[Interruption]:
    """Streams that can be written to, and SIGTERM and SIGHUP as interruptions like Ctrl-C while the
    block runs."""
    _complete_streams()
    interruption = Interruption()
    with _interruptible(interruption):
        yield interruption


def silence(*streams: TextIO) -> None:
    """Let what is still to be written to these streams go nowhere, as their reader is gone."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _complete_streams() -> None:
    # A closed stream (`>&-`) leaves its number free, and the next file that is opened would get it:
    # a pipe to a child process, or the manifest, and then whatever is printed.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not text, or a terminal that knows no "é", is shown escaped; stderr
        # does so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _interruptible(interruption: Interruption) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that is ignored (`nohup`) stays ignored.
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = (getattr(signal, name, None) for name in names)
    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    mine = [
        number
        for number, handler in before.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    ]
    # Asked now: of a terminal that is gone nobody can tell any more that it was one.
    terminals = [
        stream for stream in (sys.stdout, sys.stderr) if stream is not None and stream.isatty()
    ]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            silence(*terminals)
        interruption(number, frame)

    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in mine:
            _set_back(number, before[number])


def _set_back(number: int, handler: Any) -> None:
    """An interruption that comes between these lines finds nothing left to end: the exit code is
    decided."""
    while True:
        try:
            signal.signal(number, handler)
        except KeyboardInterrupt:
            continue
        return
