"""The suite survives what it tests: a worker that an engine takes down is one failed test, and the
others go on in a new worker."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

ENGINES = {
    "llama.cpp": ("llama", "gguf", "tiny_model", "trained"),
    "openvino": ("openvino", "build"),
    "onnxruntime": ("onnx",),
}
"""Words of the names of test files, by the engine that a process of such a test may open."""


_LEAST = 2
"""A worker begins a test when it has the one after it, or has been told that there is none."""


class FilesThatSurvive(LoadFileScheduling):
    """xdist's scheduling by file, for workers that die.

    Its own hands the test that killed a worker to the next worker, and so on until none is left;
    and it gives a new worker a single test, or a file that is done, and waits for ever.
    """

    def remove_node(self, node: Any) -> str | None:
        """The test that ran when the worker died counts as run; what is left of its file goes to
        others."""
        units = list(self.assigned_work.get(node, {}).values())
        crashed = next(
            ((unit, test) for unit in units for test, done in unit.items() if not done), None
        )
        if crashed is None:
            return super().remove_node(node)
        unit, test = crashed
        unit[test] = True
        super().remove_node(node)
        self._drop_what_is_done()
        return test

    def _drop_what_is_done(self) -> None:
        for name in [name for name, unit in self.workqueue.items() if all(unit.values())]:
            del self.workqueue[name]

    def _reschedule(self, node: Any) -> None:
        """Give a worker work until it can begin, or tell it that there is none; one that still
        collects asks again."""
        self._drop_what_is_done()
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < _LEAST:
            super()._reschedule(node)


def engine_of(test: str) -> str:
    """The engine that a test opens, as far as its file's name says; else what all of them have in
    common."""
    file = test.split("::")[0]
    return next(
        (name for name, words in ENGINES.items() if any(word in file for word in words)),
        "an engine",
    )


def explain(report: pytest.TestReport, limit: float) -> None:
    """Say in a dead worker's report what can have killed it."""
    said = (
        f"{report.longrepr}: {engine_of(report.nodeid)} took the process down, or the test ran "
        f"longer than {limit:.0f} s."
    )
    report.longrepr = (
        f"{said} Python's traceback of its last moment stands above, in the output of the worker."
    )
