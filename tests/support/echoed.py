"""A program that runs one job and says whether that was forked."""

from __future__ import annotations

import tempfile
from pathlib import Path

from packager import process

if __name__ == "__main__":
    kinds = []
    start = process._start

    def told(*arguments: object) -> object:
        kinds.append(start(*arguments))  # type: ignore[arg-type]
        return kinds[-1]

    process._start = told  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        for _ in process.run_job("tests.support.jobs:echo", {"word": "hello"}, Path(folder, "log")):
            pass
    print(type(kinds[0]).__name__)
