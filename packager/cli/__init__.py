"""The command line: parse, dispatch, print. The only package that writes to stdout and stderr, and
knows everybody.

One file per command; a file is imported when its command is called, and imports what it needs
inside functions. What every command needs is in `program`, and takes a twentieth of a second to
import; here stands what makes an interruption quiet by then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.cli.program import COMMANDS, PackError, app

_PROGRAM = "packager.cli.program"
_INTERRUPTED = 130
"""packager.errors.ExitCode.INTERRUPTED, which is not imported yet."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; see packager.cli.program.main."""
    try:
        run = _imported()
        code: int = run(arguments)
    except KeyboardInterrupt:
        # Between two handlers, where nothing was begun yet or everything is done.
        _say_interrupted()
        return _INTERRUPTED
    return code


def _imported() -> Any:
    """The program, with an end at once for Ctrl-C while it is imported: nothing is begun that would
    have to be cleared away, and what an import makes of an exception is not always that one."""
    quiet = (
        _PROGRAM not in sys.modules
        and threading.current_thread() is threading.main_thread()
        # Where it is ignored, or somebody else's, it stays so.
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if quiet:
        signal.signal(signal.SIGINT, _end)
    try:
        from packager.cli.program import main as run
    finally:
        if quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return run


def _end(number: int, frame: object) -> None:
    _say_interrupted()
    os._exit(_INTERRUPTED)


def _say_interrupted() -> None:
    try:
        os.write(2, b"Error: Interrupted.\n")
    except OSError:  # nobody reads it
        return


def __getattr__(name: str) -> Any:
    """What tests and screens take of the program."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from packager.cli import program

    return getattr(program, name)


__all__ = ["COMMANDS", "PackError", "app", "main"]
