"""What several files of tests read alike is made once in a run, whichever worker asks for it first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from packager import locks


class Once:
    """Folders below one that all workers of a run share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of that name, filled by `make`; nobody may change what is in it.

        Who asks meanwhile waits. Where `make` failed, or its worker died, the next one who asks
        begins from nothing.
        """
        self._root.mkdir(exist_ok=True)
        folder, made = self._root / name, self._root / f"{name}.made"
        with (self._root / f"{name}.lock").open("wb") as lock:
            locks.wait(lock.fileno())
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder
