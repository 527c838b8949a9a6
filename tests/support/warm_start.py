"""Jobs in child processes that are forked from one which has imported already what most of them
import: of a small job the imports are nearly all that it costs.

A job is still a process of its own, of its own session, with its own memory, log and end. What is
shared is what any process has after its imports, so a child that may not have it is started by
`subprocess` as ever: where a variable differs that a library reads when it is loaded, where the
caller's limits or cores differ, in the files COLD, and in every process that is not pytest's own but
those that are started with `tests.support.building.words_of`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from packager import process
from packager.cores import thread_limits
from packager.python import python_command, python_environment

COLD = {
    "test_process.py": "the start of a child is what it tests",
    "test_python.py": "which modules a child finds is what it tests",
    "test_liveness.py": "what a child computes and reads is what it tests",
    "test_reproducible.py": "bytes must not depend on the seed of a process's hashes",
    "test_rebuild.py": "bytes must not depend on the seed of a process's hashes",
    "test_llama_footprint.py": "memory is what it measures",
    "test_memory.py": "memory is what it measures",
    "test_tui_walk.py": "looks for the jobs by their command line",
}
"""Files of tests whose jobs are started by `subprocess`, and why."""

LIGHT = ("packager.checkpoint.template:", "packager.chat.speech:", "packager.sources.local:")
"""Jobs without arithmetic: some of them bound their address space, which numpy would use up."""
CONVERTING = (
    "targets.onnxruntime.convert:",
    "targets.onnxruntime.attest:",
    "tests.support.onnx_jobs:build",
    "tests.support.onnx_jobs:distances_to_transformers",
    "tests.support.exporters:",
    "tests.support.openvino_jobs:in_ways",
)
_BUILDING = (
    *(":build_and_compare", ":build_and_check", ":build_and_say", ":build_all"),
    *(":attest_all", ":say", ":say_by_recipe"),
)
"""Jobs in which the model builder is loaded: ten times what a tiny model takes to convert."""
_MODULES = {
    "light": (
        "jinja2.sandbox",
        "packager.chat.speech",
        "packager.checkpoint.template",
        "packager.package.manifest",
        "packager.sources.local",
    ),
    "numpy": (
        # What the hub's client imports; the client itself reads variables while it is imported.
        "filelock",
        "fsspec",
        "httpx",
        "tqdm.auto",
        "yaml",
        "jinja2.sandbox",
        "ml_dtypes",
        "numpy",
        "safetensors.numpy",
        "tokenizers",
        "packager.behaviour.job",
        "packager.behaviour.one_prompt",
        "packager.engine_check.job",
        "packager.measure.benchmark",
        "packager.measure.thread_search",
        "packager.quality.job",
        "packager.reference",
        "packager.sources.local",
        "targets.registry",
    ),
    # Without onnxruntime, which starts a thread; torch's own loaders fork after its import.
    "torch": (
        "torch",
        "transformers",
        "transformers.models.auto.modeling_auto",
        "transformers.generation.utils",
        "transformers.models.qwen2.modeling_qwen2",
        "onnx_ir",
        "targets.onnxruntime.convert",
    ),
}
_ALONE = ("light", "numpy")
_MAY_DIFFER = (
    *("QWEN_PACK_", "DYING", "PYTEST_", "NO_PROXY", "KMP_", "TORCHINDUCTOR_"),
    # The terminal's; readline tells children of its size.
    *("COLUMNS", "LINES", "NO_COLOR", "TERM"),
    "ORT_LIB_PATH",  # set by onnxruntime when it is imported, which no server does
    "OMP_WAIT_POLICY",  # how threads wait, and GOMP_SPINCOUNT has said that already
)
"""Beginnings of names of variables that nothing reads while modules are imported, or that torch sets
itself when it is."""
_MAY_DIFFER_WITHOUT_ENGINES = (
    *(*_MAY_DIFFER, "HF_", "OMP_", "GGML_", "DNNL_", "ONEDNN_"),
    "TOKENIZERS_PARALLELISM",  # read with each call, and set by the trainings
    *("PATH", "XDG_CACHE_HOME"),  # read where a program or a folder is looked up
)
"""And of those that nothing reads before an engine or the hub's client is loaded."""
_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
_LENGTH = struct.Struct("!Q")
STARTED_IN = "started-in.json"
"""What the servers were started in: variables, and what else a child inherits."""


class WarmChild:
    """A forked job, with what packager.process asks of a `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, pid: int, stdin: IO[bytes]) -> None:
        self.pid, self.stdin, self.returncode = pid, stdin, None
        self._connection = connection

    returncode: int | None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process lives."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, waited for. Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked job", timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            data = self._connection.recv(64)
            self._connection.close()
            # Where the server was killed, its children died with it.
            self.returncode = int(data) if data else -9
        return self.returncode


class Warm:
    """What starts jobs in place of packager.process._start, from servers that listen in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.on = True
        self.servers: list[int] = []
        """The processes that jobs are forked from, in the process that started them."""
        self._start = process._start
        self._environment, self._surroundings = json.loads(
            (folder / STARTED_IN).read_text(encoding="utf-8")
        )
        self.folder = folder

    def start(
        self, order: dict[str, Any], write_end: int, log: IO[bytes], env: dict[str, str] | None
    ) -> subprocess.Popen[bytes] | WarmChild:
        """See packager.process._start."""
        environment = python_environment({**thread_limits(), **(env or {})})
        kind = kind_of(order)
        if (
            not self.on
            or deciding(kind, environment) != deciding(kind, self._environment)
            or surroundings() != self._surroundings
        ):
            return self._start(order, write_end, log, env)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self.folder / kind))
        except OSError:
            # A server that an engine took down.
            connection.close()
            return self._start(order, write_end, log, env)
        reading, writing = os.pipe()
        told = json.dumps({"env": environment, "cwd": str(Path.cwd())}).encode()
        try:
            descriptors = [reading, log.fileno(), write_end]
            socket.send_fds(connection, [_LENGTH.pack(len(told))], descriptors)
        finally:
            os.close(reading)
        connection.sendall(told)
        number = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
        if len(number) != _LENGTH.size:
            connection.close()
            os.close(writing)
            return self._start(order, write_end, log, env)
        (pid,) = _LENGTH.unpack(number)
        return WarmChild(connection, pid, os.fdopen(writing, "wb"))


def kind_of(order: Mapping[str, Any]) -> str:
    """The server that has imported what a job needs."""
    job, arguments = order["job"], order["arguments"]
    runtime = arguments.get("runtime") or arguments.get("engine")
    if job.startswith(CONVERTING) or (runtime == "onnxruntime" and job.endswith(_BUILDING)):
        return "torch"
    return "light" if job.startswith(LIGHT) else "numpy"


def deciding(kind: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that must be what they were when the server's modules were imported."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_MAY_DIFFER if kind == "torch" else _MAY_DIFFER_WITHOUT_ENGINES)
    }


def surroundings() -> list[object]:
    """What else a child inherits, as JSON gives it back."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    mask = next(line for line in status.splitlines() if line.startswith("Umask:"))
    limits = [list(resource.getrlimit(limit)) for limit in _LIMITS]
    return [sorted(os.sched_getaffinity(0)), mask, *limits]


@contextlib.contextmanager
def servers() -> Iterator[Warm]:
    """Jobs of this process are forked from now on, and theirs in turn."""
    with tempfile.TemporaryDirectory(prefix="qp-warm-") as folder, contextlib.ExitStack() as stack:
        started_in = (python_environment(thread_limits()), surroundings())
        (Path(folder) / STARTED_IN).write_text(json.dumps(started_in), encoding="utf-8")
        warm = Warm(Path(folder))
        for kind in _MODULES:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"{folder}/{kind}")
                listening.listen(64)
                server = subprocess.Popen(
                    python_command(__name__, kind, str(listening.fileno()), str(os.getpid())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(listening.fileno(),),
                    env=python_environment(thread_limits()),
                )
            warm.servers.append(server.pid)
            stack.callback(server.wait)
            stack.callback(server.kill)
        before, process._start = process._start, warm.start
        try:
            yield warm
        finally:
            process._start = before


class _Server:
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
        head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        if len(head) < _LENGTH.size:
            connection.close()
            return
        (length,) = _LENGTH.unpack(head)
        order = json.loads(connection.recv(length, socket.MSG_WAITALL))
        if self._kind in _ALONE:
            assert len(os.listdir("/proc/self/task")) == 1, "a thread does not live on in a fork"
        pid = os.fork()
        if pid == 0:
            self._become(order, descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[os.pidfd_open(pid)] = connection, pid
        connection.sendall(_LENGTH.pack(pid))

    def _become(
        self, order: dict[str, Any], descriptors: list[int], connection: socket.socket
    ) -> None:
        """Be the job that a `python -m packager.process` would be; does not return."""
        code = 1
        try:
            os.setsid()
            self._listening.close()
            connection.close()
            for other, (theirs, _) in self._children.items():
                os.close(other)
                theirs.close()
            reading, log, write_end = descriptors
            for descriptor, number in ((reading, 0), (log, 1), (log, 2)):
                os.dup2(descriptor, number)
            os.close(reading)
            os.close(log)
            os.set_inheritable(write_end, True)
            os.chdir(order["cwd"])
            os.environ.clear()
            os.environ.update(order["env"])
            process._start = self._warm.start
            sys.argv = [str(process.__file__), str(write_end), str(os.getppid())]
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
            code = process.child_main(write_end, os.getppid())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _main(kind: str, listening: int, parent: int) -> None:
    """Import, once there is a first job, and serve."""
    import gc
    import importlib

    process._die_with(parent)
    select.select([listening], [], [])
    for module in _MODULES[kind]:
        importlib.import_module(module)
    # What stands is looked through by no child's collector: it would copy every page.
    gc.freeze()
    _Server(kind, socket.socket(fileno=listening)).serve()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
