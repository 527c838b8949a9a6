"""The interface on a raw terminal: a process on a pseudo terminal, its keys, and the bytes and CPU
time they cost."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import time
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import psutil

from tests.support.terminal_cells import TerminalCells

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
        self._cells = TerminalCells()
        self._terminal, window = pty.openpty()
        columns, rows = size
        # Before anything runs that could ask how large the window is.
        ioctl(window, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        here = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        here.pop("NO_COLOR", None)
        # No fork that goes on in Python: other threads of the tests may hold what it then waits
        # for.
        self._child = subprocess.Popen(
            [python, "-P", "-m", "packager.cli", "tui"],
            stdin=window,
            stdout=window,
            stderr=window,
            cwd=folder,
            env=here,
            start_new_session=True,
        )
        os.close(window)
        self._process = psutil.Process(self._child.pid)

    def __enter__(self) -> RawTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._terminal)

    def until(self, text: str, patience_s: float = 60) -> None:
        """Read until the text is on the screen; only cells that changed are written, so that it
        need not stand together in what comes."""
        end = time.monotonic() + patience_s
        while text not in self._cells.text:
            ended = self._child.poll()
            last = f"last: {self.seen[-300:]!r}"
            assert ended is None, f"ended with {ended} before it wrote {text!r}; {last}"
            assert time.monotonic() < end, f"never written: {text!r}; {last}"
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
            self._cells.feed(piece)
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
