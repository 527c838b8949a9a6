"""Other converters, as a person runs them: a program of another package in a child process."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from packager.process import run_job
from packager.runtime import Report
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import finish

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "CI": "true",
    "NNCF_CI": "1",
}
"""It neither leaves the machine nor tells anybody that it ran."""


def exported(log: Path, module: str, *words: str) -> None:
    """Run the converter to its end. Raises what packager.process makes of its failure."""
    arguments = {"module": module, "words": list(words)}
    variables = {"PYTHONPATH": str(REPOSITORY)}
    finish(run_job("tests.support.exporters:run", arguments, log, variables))


def run(report: Report, *, module: str, words: list[str]) -> dict[str, Any]:
    """Be `python -m MODULE WORDS`."""
    os.environ.update(QUIET)
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{module} ended with {end.code}") from end
    return {}
