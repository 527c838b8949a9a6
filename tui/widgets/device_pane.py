"""What is known of the highlighted device: a picture, its memory, the memory that is free now,
facts and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from packager.units import human_bytes
from tui import describe
from tui.icons import picture
from tui.widgets.pane import Pane
from tui.widgets.problem import Problem
from tui.widgets.stacked import Part, Stacked

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.lab.seen import Seen

_SIGNS = (("█", "$primary"), ("▒", "$warning"), ("░", "$foreground-muted"))
_ROUND = 10**8
"""Bytes to which free memory is rounded while it is watched: a line that never rests is a burden
over a slow connection."""


class DevicePane(Pane):
    """One device at a time; a screen says which."""

    def __init__(self) -> None:
        super().__init__(id="device-right")
        self._live_text = ""

    def compose(self) -> ComposeResult:
        """Picture and title beside each other, memory, facts."""
        yield Problem(id="device-problem")
        with Horizontal(id="device-head"):
            yield Static(id="device-icon")
            yield Static(id="device-title")
        yield Stacked(id="device-memory")
        yield Static(id="device-live")
        yield Static(id="device-facts")

    def on_mount(self) -> None:
        """Its name."""
        self.border_title = "The device"

    def title(self, parts: list[tuple[str, str]]) -> None:
        """What the highlighted row is, and what its measurement says meanwhile."""
        self.query_one("#device-title", Static).update(Content.assemble(*parts))

    def nothing(self) -> None:
        """No device matches the filter."""
        for name in ("#device-memory", "#device-live"):
            self.query_one(name).display = False
        self.query_one("#device-icon").remove_class("-shown")
        self.query_one("#device-facts", Static).update("")
        self.title(
            [
                ("No device matches. ", "bold"),
                ("Enter reads a path that ends in .toml as a device file.", ""),
            ]
        )

    def describe(self, target: Target | None, here: bool, absent: Mapping[str, str]) -> None:
        """A target, None for this machine until it is measured; `here` whether it is this machine,
        whose memory is watched; `absent` says of runtimes whose engine is missing what to do."""
        self.query_one(Problem).clear()
        self.query_one("#device-memory").display = True
        self.query_one("#device-live").display = here
        self._live_text = ""
        lines = picture(target.kind) if target is not None else ()
        icon = self.query_one("#device-icon", Static)
        icon.set_class(bool(lines), "-shown")
        icon.update(Content.styled("\n".join(lines), "$primary"))
        if target is None:
            return
        if not here:
            pieces = zip(describe.memory_parts(target), _SIGNS, strict=True)
            self.query_one(Stacked).show(
                [Part(label, size, sign, style) for (label, size), (sign, style) in pieces]
            )
        self._facts(describe.device_rows(target, absent), target.device.sources)

    def machine(self, seen: Seen, target: Target | None) -> None:
        """A machine of the lab: what it answered, and the device that it is."""
        self.describe(target, False, {})
        self.query_one("#device-memory").display = target is not None
        if not seen.reached:
            self.title([(f"{seen.label} does not answer", "bold")])
            rows = [("address", seen.address), ("why", seen.error), ("then", seen.hint)]
            self._facts([row for row in rows if row[1]], {})
            return
        if target is None:
            rest = "\nNo known device matches it: choose the most similar one."
        else:
            rest = f"\nEnter continues with {target.name}, and what is built is measured on it."
        self.title([(seen.label, "bold"), (rest, "$foreground-muted")])
        memory = human_bytes(seen.memory_bytes) if seen.memory_bytes else "not told"
        rows = [
            ("address", seen.address),
            ("calls itself", seen.device),
            ("memory", memory),
            ("processor", seen.architecture),
            ("is", ", ".join(seen.targets) or "no known device"),
        ]
        self._facts(rows, {})

    def offer(self, idle: bool) -> None:
        """This machine is not measured yet; `idle` where no measurement runs either."""
        text = (
            " measures it: memory bandwidth and compute, with the installed engines' own kernels."
        )
        parts = [("Enter", "bold $text-accent"), (text, "")] if idle else []
        self.query_one("#device-facts", Static).update(Content.assemble(*parts))

    def live(self, total: int, available: int) -> None:
        """Memory of this machine as it is now, in bytes; drawn only where it changed."""
        free = round(available / _ROUND) * _ROUND
        text = f"{human_bytes(free)} of {human_bytes(total)} free"
        if text == self._live_text:
            return
        self._live_text = text
        parts = (("free for a model", free), ("taken by others", 0), ("in use now", total - free))
        self.query_one(Stacked).show(
            [Part(label, size, *sign) for (label, size), sign in zip(parts, _SIGNS, strict=True)]
        )
        self.query_one("#device-live", Static).update(
            Content.assemble(("live: ", "$foreground-muted"), text)
        )

    def _facts(self, rows: list[tuple[str, str]], sources: Mapping[str, str]) -> None:
        parts: list[tuple[str, str]] = []
        for label, text in rows:
            parts += [(f"{label:<13}", "$foreground-muted"), (f"{text}\n", "")]
        if sources:
            parts.append(("\nWhere the numbers come from\n", "bold"))
        cells = max(map(len, sources), default=0) + 2
        for key, text in sources.items():
            parts += [(f"{key:<{cells}}", "$text-accent"), (f"{text}\n", "$foreground-muted")]
        self.query_one("#device-facts", Static).update(Content.assemble(*parts))
