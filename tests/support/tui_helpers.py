"""Driving the terminal interface in tests: wait on conditions, never for a time."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from textual.pilot import Pilot
from textual.screen import Screen

from packager.cli import app as command_line
from packager.cli.tui import services
from tui.app import PackApp
from tui.services import Services
from tui.settings import Settings

Shown = TypeVar("Shown", bound="Screen[Any]")
_PATIENCE_S = float(os.environ.get("QWEN_PACK_TEST_PATIENCE_S", "90"))


def parsed(command: str) -> dict[str, Any]:
    """The parameters that click makes of a command line."""
    words = shlex.split(command)
    assert words[:2] == ["qwen-pack", "build"]
    build = command_line.get_command(None, "build")  # type: ignore[arg-type]
    assert build is not None
    return build.make_context("build", words[2:]).params


def real_services(folder: Path) -> Services:
    """The services of the command line, with packages written into `folder`."""
    return replace(services(), folder=folder)


def drive(
    walk: Callable[[Pilot[Any]], Awaitable[None]],
    given: Services,
    size: tuple[int, int] = (120, 36),
    settings: Settings | None = None,
) -> PackApp:
    """Run the application without a terminal, let `walk` use it, and return it when it is
    closed."""
    app = PackApp(given, settings)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await walk(pilot)

    asyncio.run(run())
    return app


async def until(pilot: Pilot[Any], condition: Callable[[], Any], what: str) -> Any:
    """Let the application work until the condition gives something true; fail with `what` when it
    never does."""
    end, pause = time.monotonic() + _PATIENCE_S, 0.02
    while not (value := condition()):
        assert time.monotonic() < end, (
            f"never came: {what}; on screen: {type(pilot.app.screen).__name__}"
        )
        await pilot.pause(pause)
        # What an engine works on takes seconds, and asking takes its processor away.
        pause = min(pause * 1.25, 0.1)
    await pilot.pause()
    return value


async def settled(pilot: Pilot[Any], workers: bool = True) -> None:
    """Wait until nothing is under way: no worker (where `workers` are to be waited for), message,
    layout, scrolling or animation. A processor that others use makes it take longer, and no picture
    come out otherwise."""
    end, app = time.monotonic() + _PATIENCE_S, pilot.app
    while True:
        await pilot._wait_for_screen()
        await app.animator.wait_until_complete()
        app.screen._on_timer_update()
        await asyncio.sleep(0)
        left = _under_way(app, workers)
        if not left:
            return
        assert time.monotonic() < end, f"never came to rest: {left}"
        await asyncio.sleep(0.005)


def _under_way(app: Any, workers: bool) -> list[str]:
    """What is not done yet, in words."""
    shown = app.screen
    pumps = [app, *shown.walk_children(with_self=True)]
    states = {
        "a worker": workers and any(not worker.is_finished for worker in app.workers),
        "a message": any(pump._message_queue.qsize() or pump._next_callbacks for pump in pumps),
        "a wait": any(getattr(pump, "waits", False) for pump in pumps),
        "a layout": shown._layout_required or shown._scroll_required or shown._recompose_required,
        "a repaint": shown._repaint_required or bool(shown._dirty_widgets),
        "a callback": bool(shown._callbacks),
        "an animation": bool(app.animator._animations or app.animator._scheduled),
    }
    return [what for what, so in states.items() if so]


async def screen(pilot: Pilot[Any], kind: type[Shown]) -> Shown:
    """Wait until a screen of that kind is on top, and give it."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), kind.__name__)
    found = pilot.app.screen
    assert isinstance(found, kind)
    return found


def text_of(pilot: Pilot[Any]) -> str:
    """What the screen on top reads, line by line."""
    lines = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)
