"""`python -m tests.support.warm_command FOLDER MODULE ARGUMENTS`: a program of ours whose jobs are
forked from the servers of the suite in that folder; see tests/support/warm_start.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from packager import process
from tests.support.warm_start import Warm

if __name__ == "__main__":
    _, folder, module, *arguments = sys.argv
    process._start = Warm(Path(folder)).start
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
