"""What if? Other context, cache type or memory than was asked for, on three sliders above the
candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal

from tui import describe
from tui.widgets.slider import Slider

if TYPE_CHECKING:
    from packager.need.workload import Workload
    from tui.ask import Ask


class WhatIf(Horizontal):
    """The three sliders; `tried` makes a question of where they stand."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(id="what-if")
        self._ask = ask

    def compose(self) -> ComposeResult:
        """As the need was asked."""
        base = self._ask.workload()
        yield Slider(
            "context",
            _contexts(base.context),
            base.context,
            room=(9, 11),
            id="if-context",
            parse=partial(describe.parsed, "context"),
            read="{:,}".format,
        )
        kv = self._ask.kv
        yield Slider("cache", _caches((), kv), kv, room=(7, 10), id="if-kv", usual=None)
        yield Slider(
            "memory",
            describe.steps("max_memory_bytes", base.max_memory_bytes),
            base.max_memory_bytes,
            room=(8, 11),
            id="if-memory",
            parse=partial(describe.parsed, "max_memory_bytes"),
            read=partial(describe.quantity, "max_memory_bytes"),
            unit=describe.UNITS["max_memory_bytes"],
        )

    def offer(self, kinds: Sequence[str], asked: str | None) -> None:
        """Cache types that a runtime of the target keeps, and the one that is asked now."""
        self.query_one("#if-kv", Slider).show(_caches(kinds, asked), asked, None)

    def show(self, workload: Workload, first: Workload) -> None:
        """Stand at a workload; what differs from the `first` is marked."""
        self.query_one("#if-context", Slider).show(
            _contexts(workload.context), workload.context, first.context
        )
        memory = describe.steps("max_memory_bytes", workload.max_memory_bytes)
        self.query_one("#if-memory", Slider).show(
            memory, workload.max_memory_bytes, first.max_memory_bytes
        )

    def tried(self, ask: Ask, moved: Slider.Moved) -> Ask:
        """The question with the value of the slider that was moved."""
        if moved.slider.id == "if-kv":
            return replace(ask, kv=moved.value)
        field = "context" if moved.slider.id == "if-context" else "max_memory_bytes"
        return ask.wishing(**{field: moved.value})


def _contexts(base: int) -> list[tuple[int, str]]:
    return [(value, f"{value:,}") for value, _ in describe.steps("context", base)]


def _caches(kinds: Sequence[str], asked: str | None) -> list[tuple[str | None, str]]:
    more = (asked,) if asked is not None and asked not in kinds else ()
    return [(None, "its own"), *((kind, kind) for kind in (*kinds, *more))]
