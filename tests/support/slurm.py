"""SLURM for a test: munged, slurmctld and a slurmd per node as children of it, all on this machine and
below one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def slurm(folder: Path, nodes: int = 1) -> Iterator[Path]:
    """The configuration of a running SLURM with so many nodes, for SLURM_CONF. `folder` needs a short
    name: sockets lie in it."""
    programs = {
        name: shutil.which(name, path=_PATH) for name in ("munged", "slurmctld", "slurmd", "sinfo")
    }
    if not all(programs.values()):
        pytest.skip("needs SLURM (Debian: slurmctld, slurmd, slurm-client, munge)")
    conf = _written(folder, nodes)
    socket_path = folder / "munge.socket"
    lines = [
        [
            "munged",
            "--foreground",
            "--force",
            f"--socket={socket_path}",
            *(
                f"--{name}-file={folder / f'munge.{name}'}"
                for name in ("key", "pid", "log", "seed")
            ),
        ],
        ["slurmctld", "-D", "-f", str(conf)],
        *(["slurmd", "-D", "-f", str(conf), "-N", f"node{number}"] for number in range(nodes)),
    ]
    children = []
    try:
        for line in lines:
            with (folder / f"{line[0]}{len(children)}.out").open("wb") as out:
                words = [str(programs[line[0]]), *line[1:]]
                children.append(subprocess.Popen(words, stdout=out, stderr=out))
            if line[0] == "munged":
                _until(socket_path.exists, folder)
        asks = [str(programs["sinfo"]), "-h", "-N", "-o", "%t"]
        with_conf = {**os.environ, "SLURM_CONF": str(conf)}

        def idle() -> bool:
            said = subprocess.run(asks, env=with_conf, capture_output=True, text=True, check=False)
            return said.stdout.split() == ["idle"] * nodes

        _until(idle, folder)
        yield conf
    finally:
        for child in reversed(children):
            below = psutil.Process(child.pid).children(recursive=True)
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for orphan in below:
                with contextlib.suppress(psutil.Error):
                    orphan.kill()


def _written(folder: Path, nodes: int) -> Path:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    user, host = getpass.getuser(), socket.gethostname()
    memory = psutil.virtual_memory().total // 2 // nodes >> 20
    lines = "\n".join(
        f"NodeName=node{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs=1 "
        f"RealMemory={memory} State=UNKNOWN"
        for number in range(nodes)
    )
    conf = folder / "slurm.conf"
    for name in ("state", *(f"spool-node{number}" for number in range(nodes))):
        (folder / name).mkdir()
    conf.write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder / "munge.socket"}
CredType=cred/munge
StateSaveLocation={folder / "state"}
SlurmdSpoolDir={folder / "spool-%n"}
SlurmctldPidFile={folder / "slurmctld.pid"}
SlurmdPidFile={folder / "slurmd-%n.pid"}
SlurmctldPort={_free_port()}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
{lines}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    return conf


def _until(condition: object, folder: Path) -> None:
    assert callable(condition)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.2)
    said = "\n".join(path.read_text()[-300:] for path in folder.glob("*.out"))
    pytest.skip(f"SLURM does not start here: {said}")


def jobs_with_a_node(form: str) -> list[str]:
    """A line per job of SLURM that has a node."""
    words = ["squeue", "-h", "-t", "R,CG", "-o", form]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def until(ask: Callable[[], list[str]], told: Callable[[list[str]], bool]) -> list[str]:
    """What is said once it is as told, or after a minute."""
    end = time.monotonic() + 60
    while not told(lines := ask()):
        assert time.monotonic() < end, lines
        time.sleep(0.2)
    return lines
