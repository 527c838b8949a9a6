"""Where the workers of a sweep come from: a Dask cluster that is there, processes of this machine,
hosts over SSH, jobs of SLURM. All but the first are started here, by Dask's own packages, and end
with the sweep.

The connections of what is started here are encrypted, and closed to anyone without the key of
this one cluster. Other machines read it in the sweep's folder, which they share anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import unreachable, usage
from packager.files import free_bytes
from packager.paths import cache_dir
from packager.scratch import scratch_folder
from packager.sweep.row import one_line

if TYPE_CHECKING:
    from distributed import Client

INSTALL = "pip install 'qwen-pack[fleet]'"
KNOWN = "tls://HOST:PORT, local:N, ssh:HOST,HOST or slurm:N"
ANSWER_S = 20.0
"""How long a scheduler may take to answer."""
_FIRST_S = 120.0
"""How long hosts over SSH may take to start their worker."""
_WORKER = "packager.cli.fleet_worker"
"""What runs on another machine: a Dask worker that says what its machine has."""
_MOST = 4096
_UNSEEN = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""The pages of a scheduler ask for no log-in, so they are shown to this machine only."""
MOST_TRIES = 3
"""Of one unit whose workers died under it."""

Refill = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster to connect to: its address, or what was started here. `refill` starts
    missing workers again; on the user's cluster it does nothing. `comes_late` where workers may
    come long after the scheduler."""

    where: Any
    refill: Refill
    comes_late: bool = False


@contextmanager
def client(address: str, available: int | None, folder: Path) -> Iterator[tuple[Client, Started]]:
    """A client of the cluster at `address`, or of one that is started for the while. `available`
    are bytes of memory that workers of this machine share; `folder` is the sweep's.

    Raises PackError: 2 where a package is not installed or the address is not one, 5 where no
    scheduler answers.
    """
    try:
        import distributed
    except ImportError:
        raise usage("--dask needs Dask, which is not installed.", f"Install: {INSTALL}") from None
    kind, _, rest = address.partition(":")
    with ExitStack() as stack:
        if kind == "local":
            started = _local(stack, _count(address, rest, 64), available)
        elif kind == "slurm":
            started = _slurm(stack, _count(address, rest or "1", _MOST), folder)
        elif kind == "ssh":
            started = _ssh(stack, _hosts(address, rest), folder)
        elif "://" in address:
            started = Started(address, _nothing)
        else:
            raise usage(f"{address!r} is not the address of a Dask cluster.", f"Known: {KNOWN}.")
        try:
            connected = stack.enter_context(
                distributed.Client(started.where, timeout=ANSWER_S, set_as_default=False)
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise unreachable(
                f"No Dask scheduler answers at {address}: {one_line(str(error))}.",
                f"Start one with `dask scheduler`, or take one of {KNOWN}.",
            ) from None
        yield connected, started


def _nothing() -> None:
    """Workers of a cluster come and go as its owner wants."""


def _count(address: str, count: str, most: int) -> int:
    """The number after the colon. Raises PackError (usage) where it is not one."""
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= most):
        kind = address.partition(":")[0]
        raise usage(f"{address!r} is not {kind}:N.", f"N is the number of workers, 1 to {most}.")
    return int(count)


def _tries_are_counted_here() -> None:
    """A unit whose worker died is tried again by the executor, with the reason in the row at the
    end; the scheduler, which is in this process, is to leave that to it."""
    import dask

    dask.config.set({"distributed.scheduler.allowed-failures": MOST_TRIES})


def _local(stack: ExitStack, count: int, available: int | None) -> Started:
    """Workers of this machine."""
    from distributed import LocalCluster
    from distributed.security import Security

    _tries_are_counted_here()
    share = (available or 1 << 40) // count
    disk = free_bytes(cache_dir()) // count
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            protocol="tls://",
            security=Security.temporary(),
            dashboard_address=None,
            memory_limit=0,
            resources={"memory": share, "machine": 1, "disk": disk},
            silence_logs=50,
        )
    )
    return Started(cluster, partial(cluster.scale, count))


def _slurm(stack: ExitStack, count: int, folder: Path) -> Started:
    """Jobs of SLURM, each a node of its own. Queue, account, time and memory are those of Dask's
    own jobqueue.yaml."""
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise usage(
            "--dask slurm needs dask-jobqueue, which is not installed.", f"Install: {INSTALL}"
        ) from None
    _tries_are_counted_here()
    asked = dask.config.get("jobqueue.slurm", {})
    logs = asked.get("log-directory") or str(folder / "workers")
    options = {**_UNSEEN, **(asked.get("scheduler-options") or {})}
    try:
        cluster = stack.enter_context(
            SLURMCluster(
                cores=asked.get("cores") or 1,
                processes=1,
                memory=asked.get("memory") or "1GB",
                # All memory of the node, unless the user's file says how much.
                job_mem=asked.get("job-mem") or (None if asked.get("memory") else "0"),
                job_extra_directives=["--exclusive", *(asked.get("job-extra-directives") or [])],
                worker_command=_WORKER,
                worker_extra_args=[*(asked.get("worker-extra-args") or []), "--no-dashboard"],
                log_directory=logs,
                protocol="tls://",
                security=_shared_key(stack, folder),
                scheduler_options=options,
                silence_logs=50,
            )
        )
        cluster.scale(jobs=count)
    except (OSError, RuntimeError, ValueError) as error:
        raise unreachable(
            f"SLURM accepts no job: {one_line(str(error))}.",
            "Check `sinfo` and `sbatch` here, and ~/.config/dask/jobqueue.yaml.",
        ) from None
    return Started(cluster, partial(cluster.scale, jobs=count), comes_late=True)


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    user: str | None
    port: int | None

    @property
    def options(self) -> dict[str, object]:
        """How it is connected to, in addition to the user's ssh configuration."""
        given = {"username": self.user, "port": self.port}
        return {name: value for name, value in given.items() if value is not None}


def _hosts(address: str, text: str) -> list[_Host]:
    """`[USER@]HOST[:PORT]`, with commas between."""
    hosts = []
    for word in text.split(","):
        user, _, rest = word.rpartition("@")
        name, colon, port = rest.partition(":")
        ported = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
        if not _is_name(name) or bool(colon) != ported or (user and not _is_name(user)):
            raise usage(
                f"{address!r} is not ssh:HOSTS.",
                "HOSTS are [USER@]HOST[:PORT], separated by commas.",
            )
        hosts.append(_Host(name, user or None, int(port) if ported else None))
    return hosts


def _is_name(text: str) -> bool:
    """Whether a text is a name of a host or of a user, and no option of a command."""
    plain = text.replace(".", "").replace("-", "").replace("_", "")
    return plain.isascii() and plain.isalnum() and not text.startswith("-")


def _ssh(stack: ExitStack, hosts: list[_Host], folder: Path) -> Started:
    """A worker on each host, started over SSH with the user's own configuration and keys; the
    scheduler is in this process."""
    try:
        import asyncssh  # noqa: F401
    except ImportError:
        raise usage(
            "--dask ssh needs asyncssh, which is not installed.", f"Install: {INSTALL}"
        ) from None
    from distributed import Scheduler, SpecCluster
    from distributed.deploy.ssh import Worker
    from distributed.utils import get_ip

    _tries_are_counted_here()
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    security = _shared_key(stack, folder)
    at_work = {
        "nthreads": 1,
        "memory_limit": 0,
        "protocol": "tls://",
        "security": _paths(security),
        "death_timeout": _FIRST_S,
    }
    workers = {
        place: {
            "cls": Worker,
            "options": {
                "address": host.name,
                "connect_options": host.options,
                "kwargs": at_work,
                "worker_class": f"{_WORKER}.Machine",
            },
        }
        for place, host in enumerate(hosts)
    }
    # The address of this machine that the first host sees.
    options = {
        "host": get_ip(hosts[0].name, hosts[0].port or 22),
        "protocol": "tls://",
        "security": security,
        **_UNSEEN,
    }
    try:
        cluster = stack.enter_context(
            SpecCluster(
                workers=workers,
                scheduler={"cls": Scheduler, "options": options},
                security=security,
                silence_logs=50,
            )
        )
    except Exception as error:
        # asyncssh has errors of its own, and Dask wraps them.
        raise unreachable(
            f"No worker could be started over SSH: {one_line(str(error))}.",
            "Check that `ssh HOST` asks for nothing, and that qwen-pack[fleet] is installed there "
            "under the same path as here.",
        ) from None
    return Started(cluster, partial(cluster.scale, len(hosts)), comes_late=True)


def _shared_key(stack: ExitStack, folder: Path) -> Any:
    """Key and certificate of one cluster, as files that only this user reads, for the while."""
    from distributed.security import Security

    private = stack.enter_context(scratch_folder(folder))
    made = Security.temporary().get_tls_config_for_role("worker")
    for name, text in (("key", made["key"]), ("cert", made["cert"])):
        path = private / name
        path.touch(mode=0o600)
        path.write_text(text)
    own = {
        f"tls_{role}_{name}": str(private / name)
        for role in ("scheduler", "worker", "client")
        for name in ("key", "cert")
    }
    return Security(tls_ca_file=str(private / "cert"), require_encryption=True, **own)


def _paths(security: Any) -> dict[str, object]:
    """What a worker needs of it, as JSON can carry it."""
    names = ("tls_ca_file", "tls_worker_key", "tls_worker_cert")
    return {"require_encryption": True, **{name: getattr(security, name) for name in names}}
