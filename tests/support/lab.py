"""Real ways to another machine, on this one: OpenSSH's own sshd on loopback, folders of a test's
own, and devices that are played by a folder."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from packager.errors import PackError
from packager.lab.agent import Agent
from packager.lab.transport import Local
from packager.pipeline.cache import BuildCache
from targets.llama_cpp.agent import build

_Step = TypeVar("_Step")
_Result = TypeVar("_Result")
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True, slots=True)
class Host:
    """A running sshd: its port, and the file of the keys that its clients trust."""

    port: int
    known_hosts: Path
    clients: Path

    @property
    def address(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"


@contextlib.contextmanager
def ssh_host(
    folder: Path, variables: Mapping[str, str] | None = None, *, kept_open: bool = False
) -> Iterator[Host]:
    """An sshd of this user with a host key and one client key, and a folder to put first in PATH
    whose `ssh` reads a configuration of its own instead of the user's. What is run there has these
    variables, and those of the suite by which threads wait asleep. `kept_open`: all commands go
    through the first one's connection, as a user's configuration may say; a greeting of its own for
    each of a hundred takes longer than what they do."""
    ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if _SSHD is None or ssh is None or keygen is None:
        pytest.skip("needs OpenSSH's server and client (Debian: openssh-server)")
    for name in ("host", "client"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    shutil.copy(folder / "client.pub", folder / "allowed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    waiting = {name: os.environ[name] for name in ("GOMP_SPINCOUNT",) if name in os.environ}
    # A shell that is the second one does not read the file of whoever runs the tests for it.
    given = {"SHLVL": "1", **waiting, **(variables or {})}
    there = [f"{name}={value}" for name, value in given.items()]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'allowed'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        # The keys that hold against a quantum computer take most of what a connection takes.
        f"KexAlgorithms curve25519-sha256\nSetEnv {' '.join(there)}\n"
    )
    key = (folder / "host.pub").read_text().split()[:2]
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    # The path of a socket has a hundred characters.
    sockets = Path(tempfile.mkdtemp(prefix="qp-ssh-"))
    keeping = f"ControlMaster auto\nControlPath {sockets}/%C\nControlPersist 60\n"
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder / 'client'}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {known}\nGlobalKnownHostsFile none\n{keeping if kept_open else ''}"
    )
    clients = folder / "bin"
    clients.mkdir()
    wrapper = clients / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {folder / "ssh_config"} "$@"\n')
    wrapper.chmod(0o755)
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen(
            [_SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log
        )
    try:
        _wait_for(port, server, folder / "sshd.log")
        yield Host(port, known, clients)
    finally:
        if kept_open:
            ending = [str(wrapper), "-q", "-O", "exit", "-p", str(port), "127.0.0.1"]
            subprocess.run(
                ending, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        server.kill()
        server.wait()
        shutil.rmtree(sockets)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text().strip()[-300:]}")


@dataclass(frozen=True, slots=True)
class Played:
    """A device that is played by a folder: the script that reads a machine finds its files there,
    and `said` as what its commands print. Nothing else can be run on it."""

    tree: Path
    said: dict[str, str]
    kind: str = "local"
    folder: str = "/nowhere"
    prefix: tuple[str, ...] = ()
    phone: bool = False

    def argv(self, command: str) -> list[str]:
        code = (
            "import os, re, sys, pathlib\n"
            "word = re.search(r'qwen-pack-[0-9a-f]{16}', sys.argv[1])[0]\n"
            "top = pathlib.Path(sys.argv[2])\n"
            "out = sys.stdout.buffer\n"
            "for path in sorted(p for p in top.rglob('*') if p.is_file()):\n"
            "    name = path.relative_to(top).as_posix().replace('said/', '').replace('_', ' ') \\\n"
            "        if path.relative_to(top).parts[0] == 'said' else path.relative_to(top).as_posix()\n"
            "    out.write(f'\\n{word} {name}\\n'.encode() + path.read_bytes())\n"
        )
        said = self.tree / "said"
        said.mkdir(exist_ok=True)
        for name, text in self.said.items():
            (said / name.replace(" ", "_")).write_text(text)
        return [sys.executable, "-c", code, command, str(self.tree)]

    def failure(self, code: int, said: str) -> PackError | None:
        return None


def here(folder: Path) -> Local:
    """This machine, with files in a folder of the test."""
    return Local(shlex.quote(str(folder)))


def one_agent(folders: pytest.TempPathFactory) -> Agent:
    """The agent of this machine, compiled once for all modules and workers of a run."""
    base = folders.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return agent_of_this_machine(shared / "one-agent")


def agent_of_this_machine(cache: Path) -> Agent:
    """The agent that is linked to the installed llama.cpp; skips where it cannot be built."""
    pytest.importorskip("llama_cpp")
    if not sys.platform.startswith("linux"):
        pytest.skip("the agent reads Linux's /proc")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    return finished(build.for_this_machine(BuildCache(cache)), [])


def finished(work: Generator[_Step, None, _Result], steps: list[_Step]) -> _Result:
    """Run it to its end: what it returns. What it yields is added to `steps`."""
    while True:
        try:
            steps.append(next(work))
        except StopIteration as stop:
            result: _Result = stop.value
            return result
