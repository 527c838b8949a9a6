"""A new measurement beside the manifest's, and the question whether to keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from packager.report.budgets import quantity

if TYPE_CHECKING:
    from packager.package.package import Package

_UNITS = {"load_s": "s", "ttft_ms": "ms"} | dict.fromkeys(
    ("token_ms_median", "token_ms_p95", "token_ms_p99"), "ms"
)
_UNITS |= dict.fromkeys(("peak_memory_bytes", "proportional_memory_bytes"), "B")
_LABELS = {
    "load_s": "load",
    "ttft_ms": "first token",
    "prefill_tps": "prefill",
    "prefill_128_tps": "prefill, 128",
    "prefill_512_tps": "prefill, 512",
    "decode_tps": "decode",
    "decode_empty_tps": "decode, empty",
    "decode_full_tps": "decode, full",
    "token_ms_median": "token, median",
    "token_ms_p95": "token, P95",
    "token_ms_p99": "token, P99",
    "proportional_memory_bytes": "proportional",
    "peak_memory_bytes": "peak memory",
}


class FiguresScreen(ModalScreen[None]):
    """Manifest, now, and the ratio; saving adds them to the manifest's list of measurements."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "s",
            "save",
            "Save",
            id="figures.save",
            tooltip="Add the figures to the package's manifest",
        ),
        Binding("escape,q,enter", "close", "Close", id="figures.close", tooltip="Forget them"),
    ]

    def __init__(self, package: Package, figures: dict[str, Any]) -> None:
        super().__init__()
        self._package, self._figures = package, figures

    def compose(self) -> ComposeResult:
        """A small table and two buttons."""
        from packager.pipeline.bench import beside
        from packager.report.evidence import telling

        parts: list[tuple[str, str]] = [
            (f"{'':<16}{'manifest':>14}{'now':>14}{'ratio':>8}\n", "bold")
        ]
        for row in beside(telling(self._package.manifest.data) or {}, self._figures):
            if row["manifest"] is None and row["now"] is None:
                continue
            unit = _UNITS.get(row["figure"], "tok/s")
            old, new = (
                "–" if row[key] is None else quantity(row[key], unit) for key in ("manifest", "now")
            )
            parts += [
                (f"{_LABELS[row['figure']]:<16}", "$foreground-muted"),
                (f"{old:>14}{new:>14}{row['ratio'] or 0:>8.2f}\n", ""),
            ]
        if self._figures.get("noisy"):
            parts.append(
                (
                    "Noisy: other programs used the processor. Close them and measure again.",
                    "$text-warning",
                )
            )
        with Vertical(classes="dialog"):
            yield Static(Content.styled(f"{self._package.manifest.name}, measured again\n", "bold"))
            yield Static(Content.assemble(*parts), id="figures")
            with Horizontal():
                yield Button("Close (Esc)", id="close", variant="primary", compact=True)
                yield Button("Save (s)", id="save", compact=True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "save":
            self.action_save()
        else:
            self.dismiss()

    def action_save(self) -> None:
        """Beside the ones that are there."""
        from packager.pipeline import bench

        bench.save(self._package.path, self._figures)
        self.notify("The figures are in the package's manifest.", title="Saved")
        self.dismiss()

    def action_close(self) -> None:
        """Nothing is kept."""
        self.dismiss()
