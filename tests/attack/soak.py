"""`fit`, `verify` and `run` over and over in one process: no growth of memory, handles, files."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packager.process import resident_bytes

_WARM_UP = 10
"""Rounds in which caches fill that are meant to."""
MOST_GROWTH_BYTES = 16 << 20
"""The allocator's own swing; a leak of one manifest in a round is more over a hundred."""


@dataclass(frozen=True, slots=True)
class Soak:
    """What grew over the rounds after the warm-up."""

    rounds: int
    memory_bytes: int
    handles: int
    files: int
    children: int

    @property
    def grew(self) -> bool:
        """Whether anything did that must not."""
        return (
            self.memory_bytes > MOST_GROWTH_BYTES or self.handles + self.files + self.children > 0
        )


def soak(package: Path, rounds: int) -> Soak:
    """`rounds` times each command on a package that can be run here; the cache of the environment
    is used."""
    commands = (
        ["fit", "--target", "laptop-cpu", "--json"],
        ["verify", str(package), "--json"],
        ["run", str(package), "hello", "--max-tokens", "4"],
    )
    # One for all rounds: click remembers every stream that it has written to, and with it the text.
    said = io.StringIO()
    for _ in range(_WARM_UP):
        _round(commands, said)
    before = _state()
    for _ in range(rounds):
        _round(commands, said)
    after = _state()
    return Soak(rounds, *(now - then for now, then in zip(after, before, strict=True)))


def _round(commands: tuple[list[str], ...], said: io.StringIO) -> None:
    from packager.cli import main

    for arguments in commands:
        said.seek(0)
        said.truncate()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(arguments)
        if code:
            raise RuntimeError(f"{arguments[0]} ended with {code}: {said.getvalue()[-500:]}")


def _state() -> tuple[int, int, int, int]:
    """Bytes resident, handles open, files in the places where ours lie, children that were not
    waited for."""
    folders = (Path(tempfile.gettempdir()), Path(os.environ["QWEN_PACK_CACHE"]))
    files = sum(len(names) for folder in folders for _, _, names in os.walk(folder))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return resident_bytes(), len(os.listdir("/proc/self/fd")), files, len(children)
