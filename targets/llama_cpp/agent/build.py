"""Build an agent: llama.cpp from the pinned source archive with a compiler that pip brings, or for
this machine against the installed library. The program is kept in the build cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Generator, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from packager.deaths import last_line
from packager.digests import key_of
from packager.engines import installed
from packager.errors import PackError, bad_input, unreachable, usage
from packager.events import Event, StageFinished, StageNote, StageProgress, StageStarted
from packager.files import sha256
from packager.lab.agent import FILE, Agent
from packager.pipeline.cache import BuildCache, Entry, whole
from packager.python import python_command, python_environment
from targets.gguf import library
from targets.llama_cpp.agent.variants import agents, variant

PROGRAM = "qwen-pack-agent"
HERE = "this machine"
"""What the agent is for that is linked to this machine's own llama.cpp."""

_STAGE = "agent"
_CODE = (
    "agent.cpp",
    "energy.hpp",
    "files.hpp",
    "kernels.hpp",
    "machine.hpp",
    "model.hpp",
    "protocol.hpp",
)
_SOURCES = (*_CODE, "CMakeLists.txt", "zig.cmake")
_STEP = re.compile(r"^\[(\d+)/(\d+)\]")
_MOST_SOURCE = 2 << 30
_MOST_FILES = 20_000
_SPINNING = ("env", "OMP_WAIT_POLICY=passive", f"GOMP_SPINCOUNT={library.SPIN}")
"""What the session of this machine sets before it loads the library; see targets.gguf.library."""

_Events = Generator[Event, None, Agent]


def from_file(path: Path) -> Agent:
    """An agent that was built elsewhere. Raises PackError (usage) where there is none."""
    if not path.is_file():
        raise usage(f"There is no agent {str(path)!r}.", "Name a file, or a known variant.")
    return Agent(path, sha256(path), FILE)


def cached(name: str, cache: BuildCache) -> Agent | None:
    """The agent of a variant, where it has been built."""
    entry = whole(cache, _STAGE, _key(name))
    return None if entry is None else _agent(entry, name)


def build(name: str, cache: BuildCache) -> _Events:
    """The agent of a variant, from the cache or built: minutes on a laptop.

    Raises PackError: exit code 2 where the extra `lab` is not installed, 5 where the source archive
    cannot be had, 6 where it is not the one that was pinned.
    """
    variant(name)
    with cache.holding():
        agent = cached(name, cache)
        if agent is not None:
            return agent
        tools = _tools()
        started = time.monotonic()
        yield StageStarted(_STAGE, f"Build the agent for {name}", 1, 1)
        source = yield from _source(cache)
        with cache.work_folder() as work:
            archive = next(iter(source.folder.glob("*.tar.gz")))
            llama = _unpacked(archive, work / "source")
            yield from _compiled(name, llama, work / "build", tools, cache.log(_STAGE))
            out = work / "out"
            out.mkdir()
            shutil.move(work / "build" / PROGRAM, out / PROGRAM)
            shutil.rmtree(work / "source")
            shutil.rmtree(work / "build")
            entry = cache.keep(_STAGE, _key(name), work, {"agent": name})
        yield StageFinished(_STAGE, time.monotonic() - started, False)
        return _agent(entry, name)


def for_this_machine(cache: BuildCache) -> _Events:
    """An agent that is linked to the llama.cpp that is installed here, by this machine's own
    compiler: some seconds, and the very kernels that a session here runs."""
    with cache.holding():
        key = _key_here()
        entry = whole(cache, _STAGE, key)
        if entry is None:
            started = time.monotonic()
            yield StageStarted(_STAGE, "Build the agent for this machine", 1, 1)
            with cache.work_folder() as work:
                (work / "out").mkdir()
                _linked(work / "out" / PROGRAM, cache.log(_STAGE))
                entry = cache.keep(_STAGE, key, work, {"agent": HERE})
            yield StageFinished(_STAGE, time.monotonic() - started, False)
        return _agent(entry, HERE, _SPINNING)


def _agent(entry: Entry, name: str, words: Sequence[str] = ()) -> Agent:
    path = entry.folder / "out" / PROGRAM
    # A cache on a disk without modes, or restored from a backup.
    path.chmod(path.stat().st_mode | 0o100)
    return Agent(path, sha256(path), name, tuple(words))


def _text(name: str) -> str:
    return resources.files("targets.llama_cpp.agent").joinpath(name).read_text("utf-8")


def _write(names: Sequence[str], folder: Path) -> None:
    for name in names:
        (folder / name).write_text(_text(name), "utf-8")


def _ours() -> dict[str, str]:
    """Digests of what is ours of an agent."""
    return {name: hashlib.sha256(_text(name).encode()).hexdigest() for name in _SOURCES}


def _key(name: str) -> str:
    known, chosen = agents(), variant(name)
    return key_of(
        {
            "source": known.source.sha256,
            "compiler": known.compiler.version,
            "target": chosen.target,
            "cpu": chosen.cpu,
            "ours": _ours(),
        }
    )


def _key_here() -> str:
    """The library is linked to where it lies, so its place counts."""
    folder = library.base_file().parent
    return key_of({"engine": library.version(), "folder": str(folder), "ours": _ours()})


def _tools() -> dict[str, str]:
    """The programs of the extra `lab` by name. Raises PackError (usage) where one is missing, or
    the compiler is another release."""
    wanted = agents().compiler
    absent = [name for name in (wanted.distribution, "cmake", "ninja") if installed(name) is None]
    if absent:
        raise usage(
            f"Building an agent needs {' and '.join(absent)}, not installed here.",
            "Install it with: pip install 'qwen-pack[lab]', or give an agent built elsewhere with "
            "--agent FILE.",
        )
    if installed(wanted.distribution) != wanted.version:
        raise usage(
            f"The agent is built with {wanted.distribution} {wanted.version}, and "
            f"{installed(wanted.distribution)} is installed.",
            f"pip install {wanted.distribution}=={wanted.version}",
        )
    spec = find_spec(wanted.distribution)
    assert spec is not None and spec.origin is not None
    zig = Path(spec.origin).parent / ("zig.exe" if sys.platform == "win32" else "zig")
    scripts = Path(sysconfig.get_path("scripts"))
    return {"zig": str(zig), **{name: _script(scripts, name) for name in ("cmake", "ninja")}}


def _script(folder: Path, name: str) -> str:
    program = shutil.which(name, path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise usage(f"{name} is installed, and its program is not in PATH.", "Add it to PATH.")
    return program


def _source(cache: BuildCache) -> Generator[Event, None, Entry]:
    """The pinned source archive, downloaded by pip and compared with its digest."""
    pin = agents().source
    key = key_of({"source": pin.sha256})
    kept = whole(cache, _STAGE, key)
    if kept is not None:
        return kept
    yield StageNote(_STAGE, f"downloading the source of {pin.distribution} {pin.version}")
    with cache.work_folder() as work:
        command = python_command("pip", "download", "--no-deps", "--no-binary")
        command += [pin.distribution, "--dest", str(work), f"{pin.distribution}=={pin.version}"]
        log = cache.log(f"{_STAGE}-source")
        yield from _run(command, log, python_environment())
        archives = list(work.glob("*.tar.gz"))
        if len(archives) != 1:
            raise unreachable(
                f"pip found no source archive of {pin.distribution} {pin.version}: "
                f"{last_line(log)}",
                "Connect to a package index that has it.",
            )
        if sha256(archives[0]) != pin.sha256:
            raise bad_input(
                f"The source archive of {pin.distribution} {pin.version} is not the one that was "
                "pinned.",
                "Check which package index pip is set to.",
            )
        return cache.keep(_STAGE, key, work, {"agent": f"source {pin.version}"})


def _unpacked(archive: Path, folder: Path) -> Path:
    """The folder of llama.cpp out of the archive; nothing else of it, and no links."""
    inner = agents().source.llama
    size = count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, below = member.name.partition("/")
            if not member.isreg() or not below.startswith(f"{inner}/"):
                continue
            size, count = size + member.size, count + 1
            if size > _MOST_SOURCE or count > _MOST_FILES:
                raise bad_input("The source archive unpacks to more than it should.")
            tar.extract(member, folder, filter="data")
    source = next(iter(folder.glob(f"*/{inner}")), None)
    if source is None:
        raise bad_input(f"The source archive has no {inner}.", "Check the package index of pip.")
    return source


def _compiled(
    name: str, llama: Path, folder: Path, tools: dict[str, str], log: Path
) -> Generator[Event, None, None]:
    chosen = variant(name)
    project = folder / "project"
    project.mkdir(parents=True)
    _write(_SOURCES, project)
    # zig keeps its C library where it likes; below the work folder it goes with the rest.
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig")}
    environment["ZIG_LOCAL_CACHE_DIR"] = str(folder / "zig")
    yield StageNote(_STAGE, "configuring")
    yield from _run(
        [
            tools["cmake"],
            *("-G", "Ninja", "-S", str(project), "-B", str(folder)),
            f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_TOOLCHAIN_FILE={(project / 'zig.cmake').as_posix()}",
            f"-DZIG={Path(tools['zig']).as_posix()}",
            f"-DZIG_TARGET={chosen.target}",
            f"-DZIG_CPU={chosen.cpu}",
            f"-DLLAMA_SOURCE={llama.as_posix()}",
        ],
        log,
        environment,
    )
    yield from _run([tools["ninja"], "-C", str(folder), PROGRAM], log, environment)


def _linked(program: Path, log: Path) -> None:
    """Compile agent.cpp against the headers and libraries of llama-cpp-python."""
    lib = library.base_file().parent
    headers = lib.parent.parent / "include"
    if not (headers / "llama.h").is_file():
        raise usage("The installed llama-cpp-python has no headers.", "Name an agent with --agent.")
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise usage(
            "There is no C++ compiler here to build the agent for this machine with.",
            "Install one (g++ or clang), or name an agent with --agent.",
        )
    sources = program.parent.with_name("sources")
    sources.mkdir()
    _write(_CODE, sources)
    source = sources / "agent.cpp"
    command = [compiler, "-std=c++17", "-O2", str(source), f"-I{headers}", f"-L{lib}"]
    command += ["-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{lib}", "-pthread"]
    # The library takes the program's own `new`, see agent.cpp.
    command += ["-rdynamic", "-o", str(program)]
    command += ["-Wl,--allow-shlib-undefined"] if sys.platform == "linux" else []
    for _ in _run(command, log, dict(os.environ)):
        pass
    shutil.rmtree(sources)


def _run(
    command: list[str], log: Path, environment: dict[str, str]
) -> Generator[Event, None, None]:
    """Run a program, its words to the log; ninja's counts as progress. Closing the generator ends
    it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as kept:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                kept.write(line)
                step = _STEP.match(line)
                if step:
                    yield StageProgress(_STAGE, int(step[1]), int(step[2]), "steps")
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
    if code:
        raise _failed(command, log)


def _failed(command: list[str], log: Path) -> PackError:
    name = "pip" if "pip" in command else Path(command[0]).stem
    problem = f"{name} could not do its part of the agent: {last_line(log)}"
    hint = f"Its whole output is in {log}."
    return unreachable(problem, hint) if name == "pip" else usage(problem, hint)
