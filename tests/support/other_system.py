"""Plays another system: what only POSIX or only Linux has is taken away from this interpreter, then
a command of ours runs.

    python -m tests.support.other_system windows fit --target laptop-cpu

Simulated: modules that our own code may not import there, functions and constants of `os` and
`signal` that are missing there, no /proc, and a text encoding that must be named. Not simulated:
paths, consoles, file locks and the libraries of that system.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

MODULES = {"windows": ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty"), "macos": ()}
LINUX_ONLY = ("sched_getaffinity", "sched_setaffinity", "posix_fadvise")
POSIX_ONLY = (
    *(
        "fork",
        "forkpty",
        "killpg",
        "getpgid",
        "getuid",
        "geteuid",
        "getgid",
        "fchmod",
        "chown",
        "sysconf",
        "uname",
    ),
    *("getloadavg", "wait4", "mkfifo", "setpriority", "getpriority", "O_NOFOLLOW", "O_DIRECTORY"),
)
SIGNALS = ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "SIGPIPE", "SIGCHLD")
OURS = ("packager", "targets", "tui")


def become(system: str) -> None:
    """Take away what `system` does not have."""
    forbidden, real = MODULES[system], builtins.__import__

    def restricted(name: str, importer: Any = None, *more: Any, **named: Any) -> Any:
        # Libraries have branches of their own, which ask what system this is.
        importer = importer or named.pop("globals", None)
        if name in forbidden and importer and str(importer.get("__name__")).split(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, importer, *more, **named)

    builtins.__import__ = restricted
    for name in (*LINUX_ONLY, *(POSIX_ONLY if system == "windows" else ())):
        if hasattr(os, name):
            delattr(os, name)
    for name in SIGNALS if system == "windows" else ():
        delattr(signal, name)
    opened = builtins.open

    def without_proc(file: Any, *more: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if str(file).startswith(("/proc", "/sys")) and caller.split(".")[0] in OURS:
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return opened(file, *more, **named)

    builtins.open = without_proc
    for module in OURS:
        warnings.filterwarnings("error", category=EncodingWarning, module=rf"{module}(\.|$)")


def main(words: list[str]) -> int:
    """The command's exit code."""
    # Before: they are the libraries of this system.
    import asyncio
    import subprocess
    import tempfile

    import filelock
    import huggingface_hub.constants
    import platformdirs.unix
    import psutil

    assert (
        asyncio
        and subprocess
        and tempfile
        and filelock
        and psutil
        and huggingface_hub
        and platformdirs
    )
    become(words[0])
    if words[1:] == ["screens"]:
        return screens()
    if words[1] == "convert":
        from targets.gguf.convert import convert

        convert(Path(words[2]), Path(words[3]), "Q4_K_M")
        return 0
    from packager.cli import main as command

    return command(words[1:])


def screens() -> int:
    """The walkthrough without a terminal: from the device to its candidates."""
    import asyncio

    from packager.cli.tui import services
    from tui.app import PackApp

    async def walk() -> str:
        app = PackApp(services())
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause()
            return type(app.screen).__name__

    print(asyncio.run(walk()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
