"""What the workers of a test's cluster run: units with the runtime of numbers only, each conversion
and measurement written down."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from packager.sweep.unit import Answer, Order, do
from tests.support.sweeps import dying

LOG = "SWEEP_UNITS_LOG"


def unit(order: Order) -> Answer:
    """Do a unit; a line says when it began and when its answer was there, and whether the cache had
    it."""
    from distributed import get_worker

    host = get_worker().address.partition("://")[2].rpartition(":")[0]
    name = f"{order.stage} {order.one.cell.short} {order.one.cell.target}"
    _line(f"began {name} {os.getpid()}")
    answer = do(order, dying())
    _line(f"ended {name} {'cached' if answer.cached else 'done'} {answer.error or ''}".rstrip())
    return replace(answer, host=host)


def _line(text: str) -> None:
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(text + "\n")
