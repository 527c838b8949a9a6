"""A Dask worker that says what its machine has: `python -m packager.cli.fleet_worker ADDRESS`.

It is `dask worker` with one thread and the resources that a sweep asks for, the memory that is
available now and the machine itself. `--dask ssh:` and `--dask slurm` start it where it is to work.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from distributed import Nanny

_KNOWN_TO_NOBODY = 1 << 40


def resources() -> dict[str, float]:
    """Bytes of memory that are available, within what SLURM gave the job, bytes of disk below the
    build cache, and one machine."""
    from packager.files import free_bytes
    from packager.paths import cache_dir
    from targets.machine import limits

    available = limits.memory().available or _KNOWN_TO_NOBODY
    given = os.environ.get("SLURM_MEM_PER_NODE", "")
    if given.isdigit() and int(given):
        available = min(available, int(given) << 20)
    return {
        "memory": float(available),
        "disk": float(free_bytes(cache_dir())),
        "machine": 1.0,
    }


class Machine(Nanny):  # type: ignore[misc]
    """What watches over the worker of a machine."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{"resources": resources(), **given})


def main() -> None:
    """`dask worker` with the words of the command line."""
    from distributed.cli.dask_worker import main as worker

    has = resources()
    own = ["--nworkers", "1", "--nthreads", "1", "--memory-limit", "0", "--nanny"]
    own += ["--resources", " ".join(f"{name}={value:.0f}" for name, value in has.items())]
    worker([*sys.argv[1:], *own])


if __name__ == "__main__":
    main()
