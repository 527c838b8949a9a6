"""`qwen-pack doctor`: which engines are installed, and the line that adds one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from packager.cli.output import emit_json, json_option, say
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from pathlib import Path

    from packager.runtime import Tools
    from targets.machine.limits import Memory


@click.command("doctor")
@click.option(
    "--engines",
    is_flag=True,
    help="Try every installed engine on this machine: tiny models against a reference.",
)
@click.option("--again", is_flag=True, help="With --engines: also what was tried before.")
@json_option
def command(engines: bool, again: bool, as_json: bool) -> int:
    """Which engines are installed, how to add one, and with --engines whether each is right on
    this processor.

    Exit code 7 if an engine is right in no configuration.
    """
    from packager.cli import engines as trying
    from packager.errors import ExitCode, usage

    if again and not engines:
        raise usage("--again has no effect without --engines.", "Add --engines, or leave it out.")
    report = _examine()
    tried = trying.examine(again) if engines else None
    code = ExitCode.RESOURCE if tried and not all(row["works"] for row in tried) else ExitCode.DONE
    if as_json:
        emit_json("doctor", {**report.to_json(), "engines": tried})
        return code
    _show(report)
    if tried is not None:
        trying.show(tried)
    return code


@dataclass(frozen=True, slots=True)
class _Distribution:
    """One that a runtime needs; `version` is None where it is not installed."""

    name: str
    version: str | None


@dataclass(frozen=True, slots=True)
class _Set:
    """Distributions that belong together, and the line that installs those that are missing.
    `serves` says what they are for, where they are more than the runtime itself."""

    extra: str | None
    distributions: tuple[_Distribution, ...]
    ready: bool
    install: str
    serves: str | None = None

    def missing(self) -> str:
        """The names of those that are not there."""
        return ", ".join(part.name for part in self.distributions if part.version is None)

    def to_json(self) -> JsonObject:
        """A row of `runtimes[]` or of its `more[]`."""
        row = asdict(self)
        if self.serves is None:
            del row["serves"]
        return row


@dataclass(frozen=True, slots=True)
class _Engine:
    """A runtime and how it is started here; `error` says why it cannot be loaded."""

    name: str
    own: _Set
    more: tuple[_Set, ...] = ()
    started: str | None = None
    error: str | None = None

    def to_json(self) -> JsonObject:
        """A row of `runtimes[]`."""
        return {
            "name": self.name,
            **self.own.to_json(),
            "more": [each.to_json() for each in self.more],
            "started": self.started,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class _Report:
    """What the command says; sizes in bytes."""

    runtimes: tuple[_Engine, ...]
    catalogue: JsonObject
    cache: Path
    cache_bytes: int
    memory: Memory
    disk_free: int

    def to_json(self) -> JsonObject:
        """JSON form, see docs/manifest.md."""
        return {
            **_versions(),
            "runtimes": [engine.to_json() for engine in self.runtimes],
            "catalogue": self.catalogue,
            "cache": {"folder": str(self.cache), "bytes": self.cache_bytes},
            "memory": asdict(self.memory),
            "disk_free": self.disk_free,
        }


def _versions() -> dict[str, str]:
    import platform

    from packager import __version__

    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _show(report: _Report) -> None:
    from packager.units import human_bytes

    own = _versions()
    say(f"{'qwen-pack':16} {own['version']}, Python {own['python']}, {own['platform']}")
    for engine in report.runtimes:
        _show_engine(engine)
    memory = report.memory
    say(f"{'memory':16} {human_bytes(memory.available)} available of {human_bytes(memory.total)}")
    say(f"{'catalogue':16} {report.catalogue['text']}")
    say(f"{'cache':16} {report.cache}, {human_bytes(report.cache_bytes)}")
    say(f"{'disk':16} {human_bytes(report.disk_free)} free there")


def _show_engine(engine: _Engine) -> None:
    if engine.error:
        say(f"{engine.name:16} does not load: {engine.error}")
        return
    own = engine.own
    parts = ", ".join(f"{part.name} {part.version or 'MISSING'}" for part in own.distributions)
    say(f"{engine.name:16} {'ready' if own.ready else 'not ready'}: {parts}")
    if engine.started:
        say(f"{'':16} started as {engine.started!r} on this machine, see --engines")
    if not own.ready:
        say(f"{'':16} {own.install}")
    for more in engine.more:
        state = "ready" if more.ready else f"not ready, {more.missing()} missing: {more.install}"
        say(f"{'':16} {more.serves}: {state}")


def _examine() -> _Report:
    """Everything the command reports; imports no engine."""
    from packager.paths import cache_dir
    from targets.machine.limits import memory
    from targets.machine.probe import storage_free
    from targets.registry import runtime_names

    return _Report(
        tuple(_engine(name) for name in runtime_names()),
        _catalogue(),
        cache_dir(),
        folder_bytes(cache_dir()),
        memory(),
        storage_free(cache_dir()),
    )


def _catalogue() -> JsonObject:
    """How old the catalogue is, and how many rows the user has added."""
    from packager import catalog
    from packager.catalog import own

    age, added = catalog.age(), len(own.files())
    text = f"{len(catalog.load())} variants, reviewed on {age.reviewed} ({age.ago})"
    more = f", {added} of them your own" if added else ""
    return {
        "reviewed": age.reviewed,
        "age_days": age.days,
        "newest_release": age.newest,
        "own": added,
        "text": f"{text}{more}",
    }


def _engine(name: str) -> _Engine:
    """One runtime: its distributions with versions, and what installs those that are missing."""
    from packager.engines import install_line
    from packager.errors import PackError
    from packager.pipeline import climb
    from packager.runtime import Tools
    from targets.registry import runtime

    try:
        adapter = runtime(name)
    except PackError as error:
        return _Engine(name, _Set(None, (), False, error.hint), error=error.message)
    more = (_set(tools, install_line(adapter, tools)) for tools in adapter.more_tools)
    own = _set(Tools(adapter.extra, adapter.distributions), install_line(adapter))
    started = climb.known(adapter).name if own.ready else None
    return _Engine(name, replace(own, serves=None), tuple(more), started)


def _set(tools: Tools, install: str) -> _Set:
    """Distributions with their versions, whether all are there, and the line that installs them."""
    parts = tuple(_Distribution(each, _version(each)) for each in tools.distributions)
    return _Set(tools.extra, parts, all(part.version for part in parts), install, tools.serves)


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; 0 where there is no such folder. Links count as themselves, files
    that vanish not at all."""
    import os
    from contextlib import suppress
    from pathlib import Path

    total = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(inner) / name).lstat().st_size
    return total
