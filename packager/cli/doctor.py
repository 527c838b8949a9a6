"""`qwen-pack doctor`: which engines are installed, and the line that adds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli.output import emit_json, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from packager.runtime import Tools


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Which engines are installed, and the line that adds one."""
    report = examine()
    if as_json:
        emit_json("doctor", report)
        return
    from packager.units import human_bytes

    click.echo(
        f"{'qwen-pack':16} {report['version']}, Python {report['python']}, {report['platform']}"
    )
    for engine in report["runtimes"]:
        if engine["error"]:
            click.echo(f"{engine['name']:16} does not load: {engine['error']}")
            continue
        parts = ", ".join(
            f"{part['name']} {part['version'] or 'MISSING'}" for part in engine["distributions"]
        )
        click.echo(f"{engine['name']:16} {'ready' if engine['ready'] else 'not ready'}: {parts}")
        if not engine["ready"]:
            click.echo(f"{'':16} {engine['install']}")
        for more in engine["more"]:
            missing = ", ".join(
                part["name"] for part in more["distributions"] if part["version"] is None
            )
            click.echo(
                f"{'':16} {more['serves']}: "
                + ("ready" if more["ready"] else f"not ready, {missing} missing: {more['install']}")
            )
    memory = report["memory"]
    click.echo(
        f"{'memory':16} {human_bytes(memory['available'])} available of "
        f"{human_bytes(memory['total'])}"
    )
    click.echo(f"{'cache':16} {report['cache']['folder']}, {human_bytes(report['cache']['bytes'])}")
    click.echo(f"{'disk':16} {human_bytes(report['disk_free'])} free there")


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
        "cache": {"folder": str(cache_dir()), "bytes": folder_bytes(cache_dir())},
        "memory": asdict(memory()),
        "disk_free": storage_free(cache_dir()),
    }


def _engine(name: str) -> dict[str, Any]:
    """One runtime: its distributions with versions, and what installs those that are missing."""
    from packager.engines import install_line
    from packager.errors import PackError
    from packager.runtime import Tools
    from targets.registry import runtime

    try:
        adapter = runtime(name)
    except PackError as error:
        return {
            "name": name,
            "extra": None,
            "distributions": [],
            "ready": False,
            "install": error.hint,
            "more": [],
            "error": error.message,
        }
    more = [
        {"serves": tools.serves, **_set(tools, install_line(adapter, tools))}
        for tools in adapter.more_tools
    ]
    engine = Tools(adapter.extra, adapter.distributions)
    return {"name": name, **_set(engine, install_line(adapter)), "more": more, "error": None}


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
