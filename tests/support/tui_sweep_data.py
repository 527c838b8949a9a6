"""A sweep for pictures of the screens: its files, its plan, and half of it done."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from packager.runtime import BuildNeeds
from packager.sweep import forecast
from packager.sweep.cell import Cell
from packager.sweep.expect import Expected
from packager.sweep.matrix import Matrix, Planned
from tests.support.tui_packages import HOME
from tui.screens.sweep import Job
from tui.sweep import planned
from tui.sweeps import Listed, Shown

_MB = 10**6


def never_swept() -> Generator[Any, None, None]:
    """A sweep that is not started: its screen shows a prepared state."""
    yield from ()


SWEEP_FILES = (
    Listed("plan", HOME / "nightly.toml"),
    Listed("plan", HOME / "phones.toml"),
    Listed("sweep", HOME / "sweep-nightly"),
)
_CELLS = tuple(
    Planned(
        Cell(f"Qwen/{variant}", recipe, target, context=4096),
        round(size * _MB),
        round(size * 1.6 * _MB),
        BuildNeeds(round(size * 2.5 * _MB), round(size * 3 * _MB)),
        decode_tps=speed,
        expected=Expected({"convert": size / 20, "measure": size / 5}),
        problem=problem,
    )
    for variant, recipe, target, size, speed, problem in (
        ("Qwen3-0.6B", "gguf:Q8_0", "laptop-cpu", 640, 62.0, None),
        ("Qwen3-0.6B", "gguf:Q4_K_M", "laptop-cpu", 400, 98.0, None),
        ("Qwen3-1.7B", "gguf:Q8_0", "laptop-cpu", 1830, 21.0, None),
        ("Qwen3-1.7B", "gguf:Q4_K_M", "laptop-cpu", 1110, 34.0, None),
        ("Qwen3-32B", "gguf:Q8_0", "laptop-cpu", 0, None, "memory: needs 34.8 GB, has 12.0 GB."),
    )
)
SWEEP_SHOWN = Shown(
    "nightly",
    forecast.columns(),
    forecast.rows(Matrix(_CELLS)),
    tuple(range(3, 8)),
    tuple(forecast.sentences(Matrix(_CELLS))),
)
SWEEP_JOB = Job("nightly", _CELLS, never_swept)
SWEEP_HALF = replace(
    planned(_CELLS),
    cells=(
        replace(
            planned(_CELLS).cells[0], status="done", decode_tps=59.1, predicted=False, says="built"
        ),
        replace(planned(_CELLS).cells[1], status="running"),
        *planned(_CELLS).cells[2:4],
        replace(planned(_CELLS).cells[4], status="refused"),
    ),
    lines=("Qwen3-0.6B gguf:Q8_0 context 4096 for laptop-cpu: built",),
)
