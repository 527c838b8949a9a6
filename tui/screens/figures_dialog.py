"""A new measurement beside the manifest's, and the question whether to keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from packager.errors import PackError
from packager.report.budgets import quantity, sentence
from tui import figures
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.records import Measurement

_LABEL_WIDTH = 20


class FiguresScreen(ModalScreen[bool]):
    """Manifest, now, and the ratio, and the budgets where they were taken on the device. Saving
    adds them to the manifest's list of measurements; answers whether that was done."""

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

    def __init__(self, package: Package, figures: Measurement) -> None:
        super().__init__()
        self._package, self._figures = package, figures

    def compose(self) -> ComposeResult:
        """A small table and two buttons."""
        from packager.pipeline.bench import beside

        parts: list[tuple[str, str]] = [
            (f"{'':<{_LABEL_WIDTH}}{'manifest':>14}{'now':>14}{'ratio':>8}\n", "bold")
        ]
        for row in beside(self._package.contents.telling, self._figures):
            if row.manifest is None and row.now is None:
                continue
            old, new = (
                "–" if value is None else quantity(value, row.figure.unit)
                for value in (row.manifest, row.now)
            )
            parts += [
                (f"{row.figure.label:<{_LABEL_WIDTH}}", "$foreground-muted"),
                (f"{old:>14}{new:>14}{row.ratio or 0:>8.2f}\n", ""),
            ]
        if self._figures.noisy:
            parts.append(
                (
                    "Noisy: other programs used the processor. Close them and measure again.",
                    "$text-warning",
                )
            )
        parts += self._place()
        parts[-1] = (parts[-1][0].rstrip("\n"), parts[-1][1])
        with Vertical(classes="dialog"):
            yield Static(Content.styled(f"{self._package.manifest.name}, measured again\n", "bold"))
            with Pane(id="figures-pane"):
                yield Static(Content.assemble(*parts), id="figures")
            with Horizontal():
                yield Button("Close (Esc)", id="close", variant="primary", compact=True)
                yield Button("Save (s)", id="save", compact=True)

    def _place(self) -> list[tuple[str, str]]:
        """Whose figures these are, and what they say of the budgets where they are the device's."""
        from packager.pipeline.bench import judged

        taken, contents = self._figures, self._package.contents
        name = (taken.machine.processor if taken.machine else "") or "an unknown machine"
        if not taken.on_device:
            why = f": {taken.place.why}" if taken.place and taken.place.why else ""
            text = f"\nTaken on {name}, not on {contents.target or 'the device'}{why}.\n"
            return [(text, "$foreground-muted")]
        parts: list[tuple[str, str]] = [(f"\nTaken on {name}, the device.\n", "")]
        for verdict in judged(contents, taken):
            sign, word, style = figures.MARKS[verdict.passed]
            parts += [(f"{sign} {word:<8}", style), (f"{sentence(verdict)}\n", "")]
        return parts

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "save":
            self.action_save()
        else:
            self.dismiss(False)

    def action_save(self) -> None:
        """Beside the ones that are there."""
        from packager.pipeline import bench

        try:
            bench.save(self._package.path, self._figures)
        except (PackError, OSError) as error:
            self.notify(f"{error}", title="The figures were not saved", severity="error")
            return
        self.notify("The figures are in the package's manifest.", title="Saved")
        self.dismiss(True)

    def action_close(self) -> None:
        """Nothing is kept."""
        self.dismiss(False)
