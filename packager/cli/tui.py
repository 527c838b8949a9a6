"""`qwen-pack tui`: the walkthrough from a device to a package, in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import click

from packager.cli.options import Number
from packager.cli.output import say
from packager.errors import usage

if TYPE_CHECKING:
    from pathlib import Path

    from packager.device.identity import Here
    from packager.device.target import Target
    from packager.events import Event
    from packager.lab.seen import Seen
    from packager.records import Measurement
    from packager.runtime import Runtime
    from targets.machine import probe
    from tui.services import Services
    from tui.settings import Settings


@click.command("tui")
@click.option(
    "--serve",
    is_flag=True,
    help="Show it in a browser on this machine instead; the address carries a token.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Interface for --serve.",
)
@click.option(
    "--port",
    type=Number(1, 65535, whole=True),
    default=8000,
    show_default=True,
    help="Port for --serve.",
)
@click.option(
    "--i-know-it-is-exposed",
    "consent",
    is_flag=True,
    help="Allow a --host that other machines reach: they could act as you.",
)
def command(serve: bool, host: str, port: int, consent: bool) -> int:
    """The walkthrough from a device to a package, in the terminal.

    \b
    qwen-pack tui             ? shows every key, ctrl+p finds every action
    qwen-pack tui --serve     the same in a browser, on this machine only
    """
    if serve:
        _check_installed("textual_serve")
        from packager.cli.tui_browser import serve as run

        run(host, port, consent)
        return 0
    if os.environ.get("TEXTUAL_DRIVER"):
        from packager.process import die_with_parent

        die_with_parent()
    check()
    # Imported here: Textual takes longer to import than every other command takes altogether.
    from tui.app import PackApp

    app = PackApp(services(), settings())
    app.remembers = True
    app.run()
    for package in app.made:
        # The screens are gone with their paths; what was built is named once more where it can be
        # scrolled back to.
        say(f"Package: {package}")
    return app.return_code or 0


def check() -> None:
    """Raise PackError (usage) where no screen can be shown here."""
    _check_terminal()
    _check_installed()
    _check_size()


def _check_installed(*more: str) -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("textual", "textual_plotext", *more)):
        raise usage(
            "The terminal interface is not installed here.",
            "Install it with: pip install 'qwen-pack[tui]'",
        )


def _check_terminal() -> None:
    """A sentence in place of a broken picture. A driver in the environment means that a browser is
    the terminal."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage(
            "The terminal interface needs a terminal, and stdin or stdout is not one.",
            "Start it in a terminal; scripts use `qwen-pack build`.",
        )


def _check_size() -> None:
    from tui.app import LEAST

    columns, rows = shutil.get_terminal_size()
    if columns < LEAST[0] or rows < LEAST[1]:
        raise usage(
            f"The terminal has {columns} columns and {rows} rows; the interface needs {LEAST[0]} "
            f"and {LEAST[1]}.",
            "Make the window larger, or use `qwen-pack fit` and `qwen-pack build`.",
        )


def settings() -> Settings:
    """The person's own keys and theme; the file costs its reading only where there is one."""
    from tui.settings import Settings, config_file, read

    path = config_file()
    if not path.is_file():
        return Settings()
    from textual.theme import BUILTIN_THEMES

    from tui.bindings import all_keys

    keys = all_keys()
    return read(path, keys, tuple(BUILTIN_THEMES), keys)


def services() -> Services:
    """The world outside the core, as the screens may see it."""
    from tui.services import Services

    return Services(
        targets=_targets,
        runtimes=_runtimes,
        memory=_memory,
        known_machine=_known_machine,
        measure_machine=_measure_machine,
        read_target=_read_target,
        bench_on=_bench_on,
        here=_here,
        lab=_lab,
    )


def _targets() -> tuple[Target, ...]:
    from targets import registry

    return registry.targets()


def _runtimes() -> tuple[Runtime, ...]:
    from targets import registry

    return registry.runtimes()


def _read_target(name: str) -> Target:
    from targets import registry

    return registry.target(name)


def _bench_on(
    package: Path, address: str, agent: str | None
) -> Generator[Event, None, Measurement]:
    from packager.cli.reach import Way, measure_on
    from packager.package import manifest

    runtime = manifest.read(package).contents.runtime.name
    return measure_on(package, runtime, address, Way(agent))


def _lab() -> tuple[Seen, ...]:
    from packager.cli.lab import everybody

    return tuple(everybody(start_adb=False))


def _here() -> Here:
    from targets.machine.here import here

    return here()


def _memory() -> tuple[int, int]:
    from targets.machine import limits as machine

    seen = machine.memory()
    return seen.total, seen.available


def _known_machine() -> Target | None:
    from targets.machine.probe import kept, look

    machine = look()
    measurement = kept(machine)
    # A disturbed measurement decided once, marked as such; the next start asks for a better one.
    return None if measurement is None or measurement.noisy else _as_file(machine, measurement)


def _measure_machine() -> Generator[str, None, Target]:
    from packager.process import Note
    from targets.machine.probe import keep, look, measure
    from targets.registry import environment_of

    machine = look()
    notes, last = measure(machine, environment_of), ""
    try:
        while True:
            message = next(notes)
            last = message.text if isinstance(message, Note) else last
            yield last
    except StopIteration as stop:
        keep(machine, stop.value)
        return _as_file(machine, stop.value)
    finally:
        notes.close()


def _as_file(machine: probe.Machine, measurement: probe.Measurement) -> Target:
    """This machine as a device file in the cache, so that the command line can name what the
    screens use."""
    from packager.files import write_atomically
    from packager.paths import made_cache_dir
    from targets import registry
    from targets.devices.device_write import device_text
    from targets.machine.probe import as_target

    path = made_cache_dir() / "this-machine.toml"
    write_atomically(path, device_text(as_target(machine, measurement, "this-machine")).encode())
    return registry.target(str(path))
