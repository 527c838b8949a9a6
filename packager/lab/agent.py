"""The program that loads a model on a device, as a file here: how it is started there, and which of
several a device runs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from packager.errors import ExitCode, PackError
from packager.escapes import command, sh
from packager.events import Event
from packager.lab.link import ILLEGAL_INSTRUCTION, Dead, Link, waited_for
from packager.lab.push import Sent, push
from packager.lab.transport import Transport

_NAME = "qwen-pack-agent"
_TRIED = ("q4_0", "q8_0", "q4_K")
"""Types of weights whose kernels take the instructions by which variants differ."""
FILE = "file"
"""What an agent is for that was built elsewhere and given as a file."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One program: its file, digest, what it was built for, and words that start it there before
    its own name."""

    path: Path
    sha256: str
    built_for: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that has answered on the device; `argv` starts it again, as a child process here."""

    agent: Agent
    argv: tuple[str, ...]


Makers = Iterable[Generator[Event, None, Agent]]
"""Agents that may run on a device, the best first; each is made only when it is tried."""


def first_that_runs(
    transport: Transport, makers: Makers
) -> Generator[Event | tuple[int, int], None, Running]:
    """Push agents until one answers: what does not know an instruction of one may know those of the
    next.

    Yields the events of their making, and bytes done and in all of their pushing. Raises PackError
    where none runs.
    """
    last: PackError | None = None
    for maker in makers:
        agent = yield from maker
        argv = yield from _pushed(transport, agent)
        try:
            with contextlib.closing(Link(argv, deadline_s=60)) as link:
                # Answering takes no instruction of the kernels: they are run once as well.
                for kind in _TRIED:
                    link.ask(f"weights {kind} 100 256 64")
                    link.ask("product 2 1 0")
                return Running(agent, argv)
        except Dead as error:
            if error.signal != ILLEGAL_INSTRUCTION:
                raise
            last = error
    raise last or PackError(
        "There is no agent for the device.",
        "Build one for its instruction set elsewhere, and give it with --agent FILE.",
        ExitCode.RESOURCE,
    )


def _pushed(
    transport: Transport, agent: Agent
) -> Generator[tuple[int, int], None, tuple[str, ...]]:
    size = agent.path.stat().st_size
    folder = yield from push(transport, [Sent(agent.path, _NAME, size, agent.sha256)])
    words = command([*transport.prefix, *agent.words])
    return tuple(transport.argv(waited_for(f"{words} {sh(f'{folder}/{_NAME}')}")))
