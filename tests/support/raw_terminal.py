"""The interface on a raw terminal: a process on a pseudo terminal, its keys, and the bytes and CPU
time they cost."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import time
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import psutil

_QUIET_S = 0.4
"""A terminal that is silent for so long has drawn what there was to draw."""


class RawTerminal:
    """`qwen-pack tui` in a window of columns x rows; a context manager that ends it. `python` is
    the interpreter of the installation that runs, this one by default."""

    def __init__(
        self,
        size: tuple[int, int] = (120, 36),
        folder: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        self.seen = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.environ.pop("NO_COLOR", None)
            if folder is not None:
                os.chdir(folder)
            os.execv(python, [python, "-P", "-m", "packager.cli", "tui"])
        columns, rows = size
        ioctl(self._terminal, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = psutil.Process(self.pid)

    def __enter__(self) -> RawTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self._terminal)

    def until(self, text: bytes, patience_s: float = 60) -> None:
        """Read until the text was written."""
        end = time.monotonic() + patience_s
        while text not in self.seen:
            assert time.monotonic() < end, f"never written: {text!r}; last: {self.seen[-300:]!r}"
            self.read(0.1)

    def read(self, quiet_s: float = _QUIET_S, most_s: float = 5.0) -> int:
        """Bytes until the terminal is silent for `quiet_s`, `most_s` at most."""
        count, end = 0, time.monotonic() + most_s
        while time.monotonic() < end and select.select([self._terminal], [], [], quiet_s)[0]:
            try:
                piece = os.read(self._terminal, 65536)
            except OSError:
                break
            count += len(piece)
            self.seen = (self.seen + piece)[-200_000:]
        return count

    def press(self, keys: str) -> tuple[int, float]:
        """Bytes written and milliseconds of CPU time spent on the keys."""
        self.read()
        before = self._cpu_s()
        os.write(self._terminal, keys.encode())
        return self.read(), 1000 * (self._cpu_s() - before)

    def idle(self, seconds: float) -> float:
        """Bytes per second while nothing is pressed."""
        count, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            count += self.read(quiet_s=0.2, most_s=0.2)
        return count / (time.monotonic() - began)

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
