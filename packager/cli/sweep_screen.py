"""`qwen-pack sweep --tui`: the sweep on a screen of the terminal interface."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from packager.errors import ExitCode, PackError
from packager.sweep.building import Work


def follow(work: Work, start: Callable[[], Generator[Any, None, Any]]) -> bool:
    """Show every event until the person leaves; False where they stopped it. Raises PackError where
    no screen can be shown, and with what ended the sweep."""
    from packager.cli.tui import check, services, settings

    check()
    # Late: Textual takes longer to import than every other command takes altogether.
    from tui.screens.sweep import Job
    from tui.sweep_app import SweepApp

    app = SweepApp(services(), Job(work.plan.name, work.matrix.planned, start), settings())
    app.remembers = True
    app.run()
    end = app.outcome
    if end is None:
        raise PackError("The screen closed before the sweep ended.", exit_code=ExitCode.BUG)
    if end.problem:
        raise PackError(end.problem, end.hint, ExitCode(end.exit_code))
    return end.state == "done"
