"""`qwen-pack doctor`: which engines are installed, and the line that adds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli.output import emit_json, json_option, say

if TYPE_CHECKING:
    from pathlib import Path

    from packager.runtime import Tools


@click.command("doctor")
@click.option(
    "--engines",
    is_flag=True,
    help="Try every installed engine on this machine: tiny models against a reference.",
)
@click.option("--again", is_flag=True, help="With --engines: also what was tried before.")
@json_option
def command(engines: bool, again: bool, as_json: bool) -> int:
    """Which engines are installed, the line that adds one, and with --engines whether each is right
    on this processor.

    An engine that is right in no way gives exit code 7.
    """
    from packager.cli import engines as trying
    from packager.errors import ExitCode, usage

    if again and not engines:
        raise usage("--again says nothing without --engines.", "Add --engines, or leave it out.")
    report = examine()
    tried = trying.examine(again) if engines else None
    code = ExitCode.RESOURCE if tried and not all(row["works"] for row in tried) else ExitCode.DONE
    if as_json:
        emit_json("doctor", {**report, "engines": tried})
        return code
    _show(report)
    if tried is not None:
        trying.show(tried)
    return code


def _show(report: dict[str, Any]) -> None:
    from packager.units import human_bytes

    say(f"{'qwen-pack':16} {report['version']}, Python {report['python']}, {report['platform']}")
    for engine in report["runtimes"]:
        if engine["error"]:
            say(f"{engine['name']:16} does not load: {engine['error']}")
            continue
        parts = ", ".join(
            f"{part['name']} {part['version'] or 'MISSING'}" for part in engine["distributions"]
        )
        say(f"{engine['name']:16} {'ready' if engine['ready'] else 'not ready'}: {parts}")
        if engine["started"]:
            say(f"{'':16} started as {engine['started']!r} on this machine, see --engines")
        if not engine["ready"]:
            say(f"{'':16} {engine['install']}")
        for more in engine["more"]:
            missing = ", ".join(
                part["name"] for part in more["distributions"] if part["version"] is None
            )
            say(
                f"{'':16} {more['serves']}: "
                + ("ready" if more["ready"] else f"not ready, {missing} missing: {more['install']}")
            )
    memory = report["memory"]
    say(
        f"{'memory':16} {human_bytes(memory['available'])} available of "
        f"{human_bytes(memory['total'])}"
    )
    say(f"{'catalogue':16} {report['catalogue']['text']}")
    say(f"{'cache':16} {report['cache']['folder']}, {human_bytes(report['cache']['bytes'])}")
    say(f"{'disk':16} {human_bytes(report['disk_free'])} free there")


def examine() -> dict[str, Any]:
    """Everything the command reports; imports no engine."""
    import platform
    from dataclasses import asdict

    from packager import __version__
    from packager.paths import cache_dir
    from targets.machine.limits import memory
    from targets.machine.probe import storage_free
    from targets.registry import runtime_names

    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "runtimes": [_engine(name) for name in runtime_names()],
        "catalogue": _catalogue(),
        "cache": {"folder": str(cache_dir()), "bytes": folder_bytes(cache_dir())},
        "memory": asdict(memory()),
        "disk_free": storage_free(cache_dir()),
    }


def _catalogue() -> dict[str, Any]:
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


def _engine(name: str) -> dict[str, Any]:
    """One runtime: its distributions with versions, and what installs those that are missing."""
    from packager.engines import install_line
    from packager.errors import PackError
    from packager.pipeline import climb
    from packager.runtime import Tools
    from targets.registry import runtime

    try:
        adapter = runtime(name)
    except PackError as error:
        nothing: dict[str, Any] = {
            "extra": None,
            "distributions": [],
            "ready": False,
            "more": [],
            "started": None,
        }
        return {"name": name, **nothing, "install": error.hint, "error": error.message}
    more = [
        {"serves": tools.serves, **_set(tools, install_line(adapter, tools))}
        for tools in adapter.more_tools
    ]
    found = _set(Tools(adapter.extra, adapter.distributions), install_line(adapter))
    started = climb.known(adapter).name if found["ready"] else None
    return {"name": name, **found, "more": more, "started": started, "error": None}


def _set(tools: Tools, install: str) -> dict[str, Any]:
    """Distributions with their versions, whether all are there, and the line that installs them."""
    parts = [{"name": each, "version": _version(each)} for each in tools.distributions]
    ready = all(part["version"] for part in parts)
    return {"extra": tools.extra, "distributions": parts, "ready": ready, "install": install}


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
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total
