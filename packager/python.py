"""The command line of our own Python: every process of ours that starts one goes through here.

The folder that somebody stands in may be a checkpoint or a package that he does not trust. Python
looks for modules there first, unless it is told not to: a `click.py` beside the weights would run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with this Python, which does not look into the current
    folder.

    Not -I: an editable installation and the person's own PYTHONPATH are what this process was found
    by.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of such a process: what an engine starts in its turn does not look into the
    current folder either."""
    environment = {**os.environ, **(more or {}), "PYTHONSAFEPATH": "1"}
    path = environment.get("PYTHONPATH")
    if path is not None:
        # An empty entry, as `PYTHONPATH=$PYTHONPATH:/more` leaves one, means the current folder.
        environment["PYTHONPATH"] = os.pathsep.join(
            entry for entry in path.split(os.pathsep) if entry
        )
    return environment


@contextlib.contextmanager
def without(*modules: str) -> Iterator[None]:
    """Those of the modules that are not imported yet count as not installed for the while: for
    libraries that load whatever they find, and ask it nothing."""
    absent = [name for name in modules if name not in sys.modules]
    # What the import system takes for a module that is not installed.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
