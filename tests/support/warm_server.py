"""`python -m tests.support.warm_server KIND DESCRIPTOR PID`: a process that has imported what jobs or
commands of a kind need, and forks them; see tests/support/warm_start.py."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from packager import process
from packager.python import without
from targets.onnxruntime.model_builder import UNNEEDED
from tests.support.warm_start import ALONE, BRIEF, LENGTH, MODULES, Warm


class Server:
    """Forks a child for every connection and says on it how that ended; a connection that is closed
    first ends its child."""

    def __init__(self, kind: str, listening: socket.socket) -> None:
        self._kind, self._listening = kind, listening
        self._warm = Warm(Path(listening.getsockname()).parent)
        self._children: dict[int, tuple[socket.socket, int]] = {}
        """The connection and the process, by the descriptor that tells of its end."""

    def serve(self) -> None:
        """Until this process is killed, as it is when pytest's ends."""
        while True:
            connections = dict(self._children.values())
            ready, _, _ = select.select([self._listening, *self._children, *connections], [], [])
            for one in ready:
                if one is self._listening:
                    self._fork(self._listening.accept()[0])
                elif one in self._children:
                    self._reap(one)
                elif one in connections and not one.recv(1):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(connections[one], 9)
                    connections.pop(one)
                    self._orphan(one)

    def _orphan(self, gone: socket.socket) -> None:
        """Nobody asks for the end of that child any more: it is waited for at once."""
        for descriptor, (connection, _) in list(self._children.items()):
            if connection is gone:
                self._reap(descriptor)

    def _reap(self, descriptor: int) -> None:
        child = self._children.pop(descriptor, None)
        if child is None:
            return
        connection, pid = child
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            connection.sendall(str(code).encode())
        connection.close()
        os.close(descriptor)

    def _fork(self, connection: socket.socket) -> None:
        head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        if len(head) < LENGTH.size:
            connection.close()
            return
        (length,) = LENGTH.unpack(head)
        order = json.loads(connection.recv(length, socket.MSG_WAITALL))
        if self._kind in ALONE:
            assert len(os.listdir("/proc/self/task")) == 1, "a thread does not live on in a fork"
        pid = os.fork()
        if pid == 0:
            self._become(order, descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[os.pidfd_open(pid)] = connection, pid
        connection.sendall(LENGTH.pack(pid))

    def _become(
        self, order: dict[str, Any], descriptors: list[int], connection: socket.socket
    ) -> None:
        """Be the job that a `python -m packager.process` would be, or the program; does not
        return."""
        code = 1
        try:
            self._listening.close()
            connection.close()
            for other, (theirs, _) in self._children.items():
                os.close(other)
                theirs.close()
            if "command" in order:
                code = self._run(order, descriptors)
            else:
                code = self._do(order, descriptors)
        except SystemExit as end:
            code = _code_of(end)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            if "command" in order:
                # As Python does at its end; a job leaves without, see packager.process.
                with contextlib.suppress(Exception):
                    threading._shutdown()  # type: ignore[attr-defined]
                atexit._run_exitfuncs()
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _do(self, order: dict[str, Any], descriptors: list[int]) -> int:
        os.setsid()
        reading, log, write_end = descriptors
        for descriptor, number in ((reading, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, number)
        os.close(reading)
        os.close(log)
        os.set_inheritable(write_end, True)
        self._be_there(order)
        sys.argv = [str(process.__file__), str(write_end), str(os.getppid())]
        return process.child_main(write_end, os.getppid())

    def _run(self, order: dict[str, Any], descriptors: list[int]) -> int:
        process._die_with(os.getppid())
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        self._be_there(order)
        sys.argv = order["command"]
        runpy.run_module(order["command"][0], run_name="__main__", alter_sys=True)
        return 0

    def _be_there(self, order: dict[str, Any]) -> None:
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        process._start = self._warm.start
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _main(kind: str, listening: int, parent: int) -> None:
    """Import, once there is a first job, and serve."""
    process._die_with(parent)
    select.select([listening], [], [])
    with without(*UNNEEDED):
        for module in MODULES[kind]:
            # What belongs to an engine that is not installed is asked for by no job.
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    for name, values in BRIEF.items():
        if name in sys.modules:
            for constant, value in values.items():
                assert hasattr(sys.modules[name], constant), f"{name} has no {constant}"
                setattr(sys.modules[name], constant, value)
    # What stands is looked through by no child's collector: it would copy every page.
    gc.freeze()
    Server(kind, socket.socket(fileno=listening)).serve()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
