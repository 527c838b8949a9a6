"""A program as it prints into a terminal of a given width, without colours."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def printed(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], columns: int = 100
) -> tuple[int, str]:
    """The exit code, and what the program wrote to standard output where that is a terminal.

    Standard error goes to a pipe: narration by lines, as in a log.
    """
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**environment, "NO_COLOR": "1", "TERM": "xterm"},
        text=True,
    ) as child:
        os.close(writer)
        assert child.stderr is not None
        os.set_blocking(reader, True)
        out = b""
        # Linux ends the reading with an error when the last writer has closed.
        try:
            while piece := os.read(reader, 1 << 16):
                out += piece
        except OSError:
            pass
        narration = child.stderr.read()
    text = _CONTROL.sub("", out.decode()).replace("\r\n", "\n")
    return child.returncode, narration + text
