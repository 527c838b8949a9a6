"""Graphs are compiled by one Core for the whole process, so that a signal finds its stack."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")

# In a process of its own: what is tested would end this one.
PROGRAM = """
import gc, signal
import numpy as np
import openvino
from openvino import opset13 as ops
from targets.openvino.shared_core import shared_core

given = ops.parameter([2], np.float32)
model = openvino.Model([ops.result(ops.relu(given))], [given], "model")
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first = shared_core().compile_model(model, "CPU")
second = shared_core().compile_model(model, "CPU")
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_handled_after_graphs_went_in_the_order_in_which_they_came() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr[-500:]


def test_no_other_core_compiles_a_graph() -> None:
    for path in (REPOSITORY / "targets" / "openvino").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "Core().compile_model" not in text and "core = openvino.Core()" not in text, path
