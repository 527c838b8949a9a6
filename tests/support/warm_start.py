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
import io
import json
import os
import resource
import select
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    "test_rebuild.py::test_the_same_weights_give_the_same_files_from_a_folder_of_any_name": (
        "bytes must not depend on the seed of a process's hashes"
    ),
    "test_llama_footprint.py": "memory is what it measures",
    "test_memory.py": "memory is what it measures",
    **dict.fromkeys(
        (
            "test_tui_walk.py::test_cancelling_a_stage_ends_its_process_and_leaves_no_package",
            "test_tui_walk.py::test_cancelling_a_late_stage_leaves_no_package_either",
            "test_tui_walk.py::test_q_asks_while_a_build_runs_and_leaving_ends_the_engine",
            "test_tui_walk.py::test_a_rebound_key_takes_the_place_of_the_old_one",
        ),
        "looks for the jobs by their command line",
    ),
}
"""Files of tests, and single tests, whose jobs are started by `subprocess`, and why."""

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
MODULES = {
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
        # What NNCF and llama-cpp-python import in their turn.
        "diskcache",
        "networkx.algorithms.isomorphism",
        "packaging.version",
        "psutil",
        "pydot",
        "rich.console",
        "rich.progress",
        "rich.table",
        "scipy.linalg",
        "tabulate",
        "gguf",
        "packager.behaviour.job",
        "packager.behaviour.one_prompt",
        "packager.engine_check.job",
        "packager.measure.benchmark",
        "packager.measure.retrieval",
        "packager.measure.thread_search",
        "packager.quality.job",
        "packager.quality.retrieval",
        "packager.reference",
        "packager.sources.local",
        "targets.gguf.convert",
        "targets.llama_cpp.build",
        "targets.llama_cpp.session",
        "targets.machine.measure",
        "targets.machine.measure_ggml",
        "targets.machine.measure_openvino",
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
    # Commands, each of which imports what is its own: most of them build, or look at what was built.
    "command": (
        "packager.catalog.loader",
        "packager.cli",
        "packager.cli.adopt",
        "packager.cli.attest",
        "packager.cli.build",
        "packager.cli.export",
        "packager.cli.fit",
        "packager.cli.fit_json",
        "packager.cli.fit_tables",
        "packager.cli.progress",
        "packager.cli.run",
        "packager.cli.verify",
        "packager.package.verify",
        "packager.pipeline.comparison",
        "packager.pipeline.run",
        "packager.plan.adoption",
        "packager.plan.choose",
        "packager.report.budgets",
        "packager.select.none_fits",
        "packager.select.steps",
        "targets.gguf.layers",
        "targets.llama_cpp",
        "targets.llama_cpp.speed",
        "targets.machine.here",
        "targets.machine.limits",
        "targets.onnxruntime",
        "targets.openvino",
        "targets.registry",
    ),
}
BRIEF = {
    "packager.measure.thread_search": {"_LEAST_S": 0.0, "_LEAST_TRIALS": 1, "_PROBE_TOKENS": 4},
    "packager.measure.benchmark": {
        **{"_RATE_REPEATS": 2, "_QUICK_S": 0.0},
        **{"_EMPTY_TOKENS": 8, "_FULL_TOKENS": 8},
    },
    "packager.measure.pictures": {"_REPEATS": 2},
    "packager.measure.sounds": {"_REPEATS": 1},
    "packager.measure.throttling": {"LEAST_S": 0.2},
    "packager.measure.retrieval": {"DOCUMENTS": {128: 2, 512: 2, 2048: 1}, "_QUERIES": 4},
    "targets.machine.measure": {"_WARM_S": 0.01, "THREADS_S": 0.03, "RATE_S": 0.07},
    "targets.machine.measure_ggml": {"BATCH": 16},
    "targets.machine.measure_openvino": {"_BATCH": 16},
}
"""How long a forked job measures, by names in the modules: what makes a figure repeat itself on a
quiet machine shows nothing more of a build. Jobs that start from nothing measure as everybody's."""
ALONE = ("light", "numpy", "command")
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
    *("SWEEP_UNITS_", "MALLOC_TRIM_", "__DASK_"),  # of a cluster's workers
    *("_", "SHLVL", "PWD", "OLDPWD"),  # of a shell
    # What a conversion tells the engines that it loads, before it asks for the chat template.
    *("CI", "DO_NOT_TRACK", "NNCF_CI", "TMPDIR", "TRANSFORMERS_OFFLINE", "GIT_DIR"),
)
"""And of those that nothing reads before an engine or the hub's client is loaded."""
_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
LENGTH = struct.Struct("!Q")
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
        if not self._fits(kind, environment):
            return self._start(order, write_end, log, env)
        reading, writing = os.pipe()
        told = {"env": environment, "cwd": str(Path.cwd())}
        try:
            child = self._forked(kind, told, [reading, log.fileno(), write_end])
        finally:
            os.close(reading)
        if child is None:
            os.close(writing)
            return self._start(order, write_end, log, env)
        return WarmChild(*child, os.fdopen(writing, "wb"))

    def run(
        self, module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str] | None:
        """What `python -m MODULE ARGUMENTS` prints, as a forked program; None where it must be
        started from nothing."""
        would_be = python_environment({**thread_limits(), **env})
        if not self._fits("command", would_be):
            return None
        words = [module, *arguments]
        told = {"env": dict(env), "cwd": str(cwd), "command": words}
        with (
            open(os.devnull, "rb") as nothing,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as said,
        ):
            child = self._forked("command", told, [one.fileno() for one in (nothing, out, said)])
            if child is None:
                return None
            code = WarmChild(*child, io.BytesIO()).wait()
            printed = []
            for file in (out, said):
                file.seek(0)
                printed.append(io.TextIOWrapper(file, encoding="utf-8").read())
        return subprocess.CompletedProcess(words, code, *printed)

    def _fits(self, kind: str, environment: Mapping[str, str]) -> bool:
        """Whether a child with these variables can be one of that server."""
        return (
            self.on
            and deciding(kind, environment) == deciding(kind, self._environment)
            and surroundings() == self._surroundings
        )

    def _forked(
        self, kind: str, told: dict[str, Any], descriptors: list[int]
    ) -> tuple[socket.socket, int] | None:
        """A connection that says how the child ended, and its process; None where an engine took
        the server down."""
        connection = socket.socket(socket.AF_UNIX)
        data = json.dumps(told).encode()
        try:
            connection.connect(str(self.folder / kind))
            socket.send_fds(connection, [LENGTH.pack(len(data))], descriptors)
            connection.sendall(data)
            number = connection.recv(LENGTH.size, socket.MSG_WAITALL)
        except OSError:
            number = b""
        if len(number) != LENGTH.size:
            connection.close()
            return None
        return connection, int(LENGTH.unpack(number)[0])


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
        for kind in MODULES:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"{folder}/{kind}")
                listening.listen(64)
                server = subprocess.Popen(
                    python_command(
                        "tests.support.warm_server", kind, str(listening.fileno()), str(os.getpid())
                    ),
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
