"""Step 7: a package in the form that a store, a registry or a device takes; the package itself
stays as it is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from packager.errors import from_foreign
from packager.escapes import bare
from packager.events import StageProgress
from tui import figures, leaving
from tui.screens.base import BACK, Failed, StepScreen
from tui.screens.package_base import open_folder
from tui.widgets.export_form import ExportForm
from tui.widgets.lists import VimList
from tui.widgets.pane import Fitted, Pane
from tui.widgets.problem import Problem
from tui.widgets.slider import Slider

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.shipping.export import Exported, Format

_REDRAW_S = 0.1


class Written(Message):
    """How many bytes of how many went out; of several that wait only the newest is drawn."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__()
        self.done, self.total = done, total

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, Written)


class Ended(Message):
    """The export is over; `exported` is None where it was cancelled."""

    def __init__(self, exported: Exported | None) -> None:
        super().__init__()
        self.exported = exported


class ExportScreen(StepScreen):
    """Format, place, pieces, signature, what the format takes besides; what it does as a command;
    how far it is."""

    STEP = 7
    CSS_PATH = "export.tcss"
    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        "--out": ("#export-to", "To"),
        "--max-file-size": ("#export-size", "Size"),
        "--sign": ("#export-key", "Sign with"),
        "--accept-license": ("#export-licence", "the box Licence"),
        "--allow-dummy": ("#export-dummy", "the box Weights"),
        "--base-image": ("#export-base_image", "Base image"),
        "--device-type": ("#export-device_type", "Device type"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "w",
            "write",
            "Write it",
            id="export.write",
            tooltip="Write the package in this format; every byte is compared",
        ),
        Binding(
            "c",
            "cancel",
            "Cancel",
            id="export.cancel",
            tooltip="Stop writing; no partial files stay",
        ),
        Binding(
            "y,ctrl+y",
            "copy",
            "Copy command",
            id="screen.copy",
            tooltip="Copy the command line that does the same",
        ),
        Binding(
            "Y",
            "copy_path",
            "Copy path",
            id="export.path",
            tooltip="Copy the path of the export",
            show=False,
        ),
        Binding(
            "o",
            "open",
            "Open folder",
            id="export.open",
            tooltip="Show the export in the file manager",
        ),
        Binding("down", "app.focus_next", "Next", show=False),
        Binding("up", "app.focus_previous", "Previous", show=False),
        BACK,
    ]

    def __init__(self, package: Package) -> None:
        from packager.shipping.export import FORMATS

        super().__init__()
        self.package = package
        self._formats: tuple[Format, ...] = tuple(FORMATS.values())
        self._format = self._formats[0]
        self._stop = threading.Event()
        self._busy = self._leave = False
        self._at: tuple[int, int] | None = None
        self.exported: Exported | None = None

    @property
    def busy(self) -> bool:
        """Whether an export runs."""
        return self._busy

    def body(self) -> ComposeResult:
        """Formats on the left, what there is to say on the right, command and progress below."""
        with Horizontal(id="export"):
            yield VimList(
                *(Option(self._sign(form) + form.name, id=form.name) for form in self._formats),
                id="formats",
            )
            yield ExportForm(self.package, self._formats)
        with Horizontal(id="export-below"):
            with Pane(id="export-what"):
                yield Fitted(id="export-text")
                yield Problem(id="export-problem")
            with Pane(id="export-files"):
                yield Static(self._files(), id="export-files-text")

    def _files(self) -> Content:
        """The files of the package with their sizes, largest first as the manifest has them."""
        return Content.assemble(
            *(
                (f"{size:>9}  {bare(path)}\n", "")
                for path, size, _ in figures.files(self.package.manifest)
            )
        )

    def _sign(self, one: Format) -> str:
        """A format that makes no sense of this package is marked, as a rejected candidate is; its
        reason stands below."""
        return "✗ " if one.misfit(self.package.manifest) else "  "

    def on_mount(self) -> None:
        """Stand on the formats."""
        formats = self.query_one("#formats", VimList)
        formats.border_title = "Format"
        self.query_one("#export-what").border_title = "What is written"
        self.query_one("#export-files").border_title = "What is in the package"
        kept = self.pack.forms.get(self.package.path)
        formats.highlighted = 0
        self.set_focus(formats)
        self._choose(self._formats[0])
        if isinstance(kept, leaving.Form):
            self._fill(kept)

    def on_unmount(self) -> None:
        """An export does not outlive its screen; what was filled in does."""
        self._stop.set()

    @property
    def form(self) -> ExportForm:
        """What is filled in."""
        return self.query_one(ExportForm)

    def _fill(self, kept: leaving.Form) -> None:
        """What was filled in before."""
        row = next(
            (index for index, form in enumerate(self._formats) if form.name == kept.format), 0
        )
        self.query_one("#formats", VimList).highlighted = row
        self._choose(self._formats[row])
        self.form.fill(kept)
        self._forget()

    @property
    def order(self) -> leaving.Order:
        """What is asked for now."""
        return self.form.order(self._format, self._default)

    @property
    def _default(self) -> Path:
        return leaving.place(self.package, self._format, self.services.folder)

    @on(OptionList.OptionHighlighted, "#formats")
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        self._choose(next(form for form in self._formats if form.name == event.option.id))

    @on(OptionList.OptionSelected, "#formats")
    def _chosen(self) -> None:
        self.set_focus(self.query_one("#export-to", Input))

    def _choose(self, chosen: Format) -> None:
        """Another format: the place keeps a name that a person wrote, and follows where it was our
        own."""
        before, self._format = self._default, chosen
        self.form.choose(chosen, before, self._default)
        self._forget()

    @on(Input.Changed)
    @on(Slider.Moved)
    def _forget(self) -> None:
        """What was said of another order does not hold for this one."""
        self.form.ask_size(self._format)
        self.exported = None
        self.query_one(Problem).clear()
        self.pack.forms[self.package.path] = self.form.kept(self._format)
        self._draw()
        self.refresh_bindings()

    @on(Fitted.Resized)
    def _draw(self) -> None:
        width = max(10, min(40, self.query_one("#export-text").content_size.width - 34))
        parts = leaving.words(self._format, self.package, self.order)
        if self._at is not None:
            parts += leaving.progress(*self._at, width, self._stop.is_set())
        elif self.exported is not None:
            parts += leaving.outcome(self.exported)
        self.query_one("#export-text", Static).update(Content.assemble(*parts))

    @on(Input.Submitted)
    def action_write(self) -> None:
        """Write what the command says."""
        if self._busy:
            return
        self.query_one(Problem).clear()
        self.exported = None
        self._stop.clear()
        self._busy, self._at = True, (0, sum(entry.size for entry in self.package.manifest.files))
        order = self.order
        # What runs is what the command says until it has ended.
        self.query_one("#export").disabled = True
        self.set_focus(self.query_one("#export-what"))
        self._draw()
        self.refresh_bindings()
        self._write(order)

    @work(thread=True, exclusive=True, group="export")
    def _write(self, order: leaving.Order) -> None:
        clock, last, exported = self.services.clock, 0.0, None
        try:
            events = self.services.export(order)
            try:
                while not self._stop.is_set():
                    event = next(events)
                    if isinstance(event, StageProgress) and clock() - last >= _REDRAW_S:
                        last = clock()
                        self.post_message(Written(event.done, event.total or 0))
            except StopIteration as stop:
                exported = stop.value
            finally:
                events.close()
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            self.post_message(Failed(known))
            return
        self.post_message(Ended(exported))

    @on(Written)
    def _written(self, message: Written) -> None:
        if self._busy:
            self._at = (message.done, message.total)
            self._draw()

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        self._over()
        if not self.on_top:
            self.notify(
                message.error.message,
                title=f"{self.package.manifest.name} was not exported",
                severity="error",
            )
        self.refuse(self.query_one(Problem), message.error)

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        self.exported = message.exported
        self._over()
        if self.exported is None:
            self.notify(
                "No partial files are left.", title="The export was cancelled", severity="warning"
            )
        elif not self.on_top:
            self.notify(str(self.exported.path), title=f"{self.package.manifest.name} is exported")

    def _over(self) -> None:
        self._busy, self._at = False, None
        self.query_one("#export").disabled = False
        self._draw()
        self.refresh_bindings()
        if self._leave:
            self.app.exit(0)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Write while nothing runs, cancel while something does, the folder once there is one."""
        if action == "write":
            return not self._busy
        if action == "cancel":
            return self._busy
        return self.exported is not None if action in ("open", "copy_path") else True

    def action_cancel(self) -> None:
        """The worker stops at the next chunk; its generator closes, which removes what was
        begun."""
        self._stop.set()
        self._draw()

    def action_back(self) -> None:
        """A running export is not left behind unseen: ask."""
        if self._busy:
            self._ask("Cancel this export?", False)
        else:
            super().action_back()

    def ask_to_leave(self) -> None:
        """The person wants to quit while this export runs."""
        self._ask("Quit and stop the export?", True)

    def _ask(self, question: str, leave: bool) -> None:
        from tui.screens.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            self._leave = leave
            if self._busy:
                self.action_cancel()
            elif leave:
                self.app.exit(0)

        detail = (
            f"{self.package.manifest.name} is being written. What was begun will be removed; "
            "the package stays as it is."
        )
        self.app.push_screen(
            ConfirmScreen(
                question, detail, "Quit" if leave else "Cancel the export", "Keep writing"
            ),
            answered,
        )

    def action_open(self) -> None:
        """The folder in which the export lies; the path is copied where there is no desktop."""
        if self.exported is not None:
            folder = (
                self.exported.path if self.exported.path.is_dir() else self.exported.path.parent
            )
            if not open_folder(folder):
                self.pack.copy(str(folder), "the path, as no file manager was found")

    def action_copy_path(self) -> None:
        """Where it lies."""
        if self.exported is not None:
            self.pack.copy(str(self.exported.path), "the path of the export")

    def home(self) -> None:
        """The formats."""
        self.set_focus(self.query_one("#formats", VimList))

    def copied(self) -> tuple[str, str] | None:
        """The command line."""
        return self.order.command(), "the command"
