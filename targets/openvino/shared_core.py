"""The one `openvino.Core` of a process that compiles graphs for its processor."""

from __future__ import annotations

from functools import cache

import openvino


@cache
def shared_core() -> openvino.Core:
    """The same one each time, for as long as the process runs.

    OpenVINO 2026.4 gives signals a stack of its own with the first graph that a Core compiles, and
    sets the one before back when the Core goes. Of two that go in the order in which they came, the
    one that is set back is gone: the next signal that Python handles ends the process by SIGSEGV.
    """
    return openvino.Core()
