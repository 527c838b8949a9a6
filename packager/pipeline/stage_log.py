"""The file that the engines of a stage write into: two processes never write into one."""

from __future__ import annotations

import os
from pathlib import Path

from packager import locks

_MOST = 9
"""Names that are tried; whoever finds them all taken shares the first."""

_held: dict[Path, int] = {}
"""The logs of this process, locked, all in one folder."""


def own_log(folder: Path, stage: str) -> Path:
    """`STAGE.log` in the folder, or `STAGE-2.log` and so on where another process writes there now.
    A process keeps its name until it ends, or until it works in another folder."""
    _let_go_elsewhere(folder)
    names = [f"{stage}.log", *(f"{stage}-{number}.log" for number in range(2, _MOST + 1))]
    paths = [folder / name for name in names]
    kept = next((path for path in paths if path in _held), None)
    if kept is not None:
        return kept
    for path in paths:
        try:
            descriptor = _locked(path)
        except BlockingIOError:
            continue
        except OSError:
            # Nothing can be written or locked there: whoever writes says so.
            break
        _held[path] = descriptor
        return path
    return paths[0]


def _locked(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        locks.take(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _let_go_elsewhere(folder: Path) -> None:
    for path in [path for path in _held if path.parent != folder]:
        os.close(_held.pop(path))
