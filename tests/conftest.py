"""Fixtures that several modules share."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.unraisableexception import gc_collect_iterations_key

# A busy machine may take a second for what takes a millisecond: how long an example took, or was
# looked for, is no property of what is tested. And the same commit has the same examples every
# time; others are tried by `pytest --hypothesis-profile exploring`.
_UNHURRIED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("exploring", **_UNHURRIED)
hypothesis.settings.register_profile("unhurried", derandomize=True, **_UNHURRIED)
hypothesis.settings.load_profile("unhurried")

# Tests that somebody runs in the background of a script inherit that interruptions are ignored,
# and would hand it down to what they start and interrupt.
for _number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        _own = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, _own)

REPOSITORY = Path(__file__).resolve().parent.parent

# Two workers on two cores, each with children whose threads wait for one another: waiting by spinning
# takes the core from the thread that is waited for, and tiny products are no work for two threads.
# In order for numpy, torch, and llama.cpp: before any of them is loaded, in this process and in its
# children. What somebody has set stays.
for _variable, _value in (
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("GOMP_SPINCOUNT", "0"),
):
    os.environ.setdefault(_variable, _value)

# A child that is forked shares the memory of its parent's modules: putting that into huge pages
# would copy it a thousand times. The thorough tier leaves it on.
os.environ.setdefault("QWEN_PACK_HUGE_PAGES", "0")

# transformers and accelerate load them where they are installed, which takes as long as all of torch,
# and no test asks them anything. What the import system takes for a module that is not there.
for _module in ("boto3", "sklearn"):
    sys.modules.setdefault(_module, None)  # type: ignore[arg-type]

# A thousand children import the same modules: somebody who keeps no bytecode would compile them anew
# for each, and pytest would rewrite every file of tests again in every worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Whoever asks adb for its devices starts adb's server, which stays. Only tests that start one of
# their own reach it; at another address than localhost adb starts none.
os.environ["ADB_SERVER_SOCKET"] = "tcp:127.0.0.1:1"

# Runtimes that somebody has installed next to the project are not what is tested. Not a fixture:
# modules ask for all runtimes while they are collected.
os.environ["QWEN_PACK_PLUGINS"] = "0"
# Nor are the rows that somebody has added to the catalogue: a folder that is not there.
os.environ["QWEN_PACK_CATALOGUE"] = str(REPOSITORY / "tests" / "no-catalogue")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="Leave out what is marked `engine`, `slow` or `thorough`.",
    )


_NOT_QUICK = ("engine", "slow", "thorough")
_MARKED = re.compile(
    rf"^pytestmark = (?:.*|\[[^\]]*)mark\.(?:{'|'.join(_NOT_QUICK)})\b", re.MULTILINE
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # A file that is marked as a whole is not even imported: its engine may be absent.
    if config.getoption("--quick") and collection_path.match("test_*.py"):
        return bool(_MARKED.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


_OF_ENGINES = ("gguf", "llama_cpp", "onnx", "onnxruntime", "openvino", "torch")
"""What is installed with an engine alone."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of the quick tests leave out a file that imports an engine which is absent."""
    report = yield
    call: Any = getattr(report, "call", None)
    if report.failed and call is not None and collector.config.getoption("--quick"):
        cause = call.excinfo.value.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in _OF_ENGINES:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"needs {cause.name}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    from tests.support.cpu_seconds import longest_first
    from tests.support.tiers import unrepresented

    # Of a test that is named with one case in brackets, its other cases are not among the items.
    if not any("::" in argument for argument in config.args) and (lost := unrepresented(items)):
        raise pytest.UsageError(f"`make test` has no case of {', '.join(lost)}")
    if config.getoption("--quick"):
        slow = [item for item in items if any(map(item.get_closest_marker, _NOT_QUICK))]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    yield
    if hasattr(config, "workerinput"):
        # Without the tier that this run leaves out.
        items[:] = longest_first(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The collector has less to look through: with torch among the modules that were imported, one
    pass over everything takes half a second, and screens make so many objects that a third of the
    time of their tests was such passes."""
    if not session.config.option.collectonly:
        gc.freeze()
        gc.set_threshold(10_000, 20, 10)


def pytest_configure(config: pytest.Config) -> None:
    """Before any engine is loaded."""
    from tests.support.engine_starts import set_variables

    if not config.option.collectonly:
        set_variables(config)
    # At its end pytest collects garbage five times, half a second each in a worker that has loaded
    # the engines; what five find one finds.
    config.stash[gc_collect_iterations_key] = 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker's death is one failed test, and no worker begins the longest file last."""
    from tests.support.surviving import FilesThatSurvive

    if config.getvalue("dist") != "loadfile":
        return None
    # By the number of tests, which says nothing of how long they take; the workers have sorted them.
    config.option.loadscopereorder = False
    return FilesThatSurvive(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """Which engine it was."""
    from tests.support.surviving import explain

    explain(report, float(sched.config.getini("timeout") or 0))


@pytest.fixture(autouse=True, scope="session")
def jobs_of_tests() -> Iterator[None]:
    """Child processes do not look into the current folder, where the jobs of the tests lie."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        # The tests themselves keep every core busy: measuring again would change nothing.
        monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "1")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(autouse=True, scope="session")
def warm_start(jobs_of_tests: None) -> Iterator[Any]:
    """Jobs are forked from a process that has imported what they need; None where the system does
    not tell by a descriptor that a process has ended."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    from tests.support.warm_start import servers

    with servers() as warm:
        yield warm


@pytest.fixture(autouse=True, scope="module")
def own_signal_stack() -> Iterator[None]:
    """Two Cores of OpenVINO that go in the order in which they came leave signals a stack that is
    gone (targets/openvino/shared_core.py), and tests and openvino-genai open Cores of their own."""
    yield
    if "openvino" in sys.modules and sys.platform == "linux":
        _handle_signals_on_the_usual_stack()


def _handle_signals_on_the_usual_stack() -> None:
    class Stack(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    disabled = 2
    ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(None, disabled, 0)), None)


@pytest.fixture(autouse=True, scope="module")
def the_variables_of_the_next_file(warm_start: Any) -> Iterator[None]:
    """What libraries put into the environment while they are imported (ORT_LIB_PATH, KMP_...,
    TOKENIZERS_PARALLELISM) is gone with the file of tests that imported them: whatever ran before,
    a child of the next one starts with the same variables."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def cold_files(warm_start: Any, request: pytest.FixtureRequest) -> None:
    """But where their start is what is tested."""
    if warm_start is not None:
        from tests.support.warm_start import COLD

        warm_start.on = request.path.name not in COLD


@pytest.fixture(autouse=True)
def cold_tests(warm_start: Any, cold_files: None, request: pytest.FixtureRequest) -> None:
    """And in single tests of other files."""
    if warm_start is not None:
        from tests.support.warm_start import COLD

        file = request.path.name
        own = f"{file}::{request.node.name.partition('[')[0]}"
        warm_start.on = file not in COLD and own not in COLD


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the cache of the person who runs it, nor leaves the machine."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("QWEN_PACK_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders that all workers of this run share, see tests/support/once.py."""
    from tests.support.once import Once

    base = tmp_path_factory.getbasetemp()
    # Of a worker it lies in the folder of the run.
    return Once((base.parent if hasattr(request.config, "workerinput") else base) / "once")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The genuine Qwen vocabularies, templates and test vectors that lie beside the repository on
    some machines."""
    folder = Path(os.environ.get("QWEN_PACK_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "qwen").is_dir():
        pytest.skip(
            f"needs the genuine Qwen files in {folder}, which are not part of the repository"
        )
    return folder
