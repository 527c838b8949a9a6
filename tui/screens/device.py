"""Step 1: where will it run? This machine, measured, or any device that is known."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, get_current_worker

from packager.errors import PackError, from_foreign
from tui import describe
from tui.ask import Ask
from tui.device_list import LAB, lab_rows, rows
from tui.screens.base import COPY, Failed, StepScreen
from tui.screens.device_messages import Answered, Loaded, Measured, Read, Said
from tui.screens.reach import Place
from tui.widgets.device_pane import DevicePane
from tui.widgets.lists import VimList
from tui.widgets.paths import PathSuggester
from tui.widgets.preview import Preview
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.lab.seen import Seen

HERE = "this machine"
_WHAT = (
    "qwen-pack takes a device and a need, picks the smallest Qwen model that does the job there, "
    "builds it, measures it, and packages it with the evidence."
)
_LIVE_S = 1.0


class DeviceScreen(StepScreen):
    """A list of devices, and what is known of the highlighted one."""

    STEP = 1
    CSS_PATH = "device.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "Filter",
            id="device.filter",
            tooltip="Type a part of a name, or the path of a device file",
        ),
        Binding(
            "m",
            "measure",
            "Measure here",
            id="device.measure",
            tooltip="Measure this machine's memory bandwidth and compute, under ten seconds",
        ),
        Binding("s,f2", "app.shelf", "Shelf", id="app.shelf", tooltip="The packages built so far"),
        Binding(
            "S,f6",
            "app.sweeps",
            "Sweeps",
            id="app.sweeps",
            tooltip="Build and measure a matrix from a plan file; what past ones found",
        ),
        # The first step has none before it: this key ends a measurement, or leads out of the
        # filter.
        Binding(
            "escape",
            "back",
            "Back",
            id="screen.back",
            tooltip="Out of a text field; cancels a measurement",
            show=False,
        ),
        COPY,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._targets: tuple[Target, ...] = ()
        self._here: Target | None = None
        self._machines: tuple[Seen, ...] = ()
        self._absent: dict[str, Mapping[str, str]] = {}
        self._worker: Worker[None] | None = None

    @property
    def _pane(self) -> DevicePane:
        return self.query_one(DevicePane)

    @property
    def measuring(self) -> bool:
        """Whether a measurement of this machine runs."""
        return self._worker is not None

    def body(self) -> ComposeResult:
        """Filter and list on the left, facts on the right."""
        yield Static(_WHAT, id="device-what", markup=False)
        with Horizontal(id="device"):
            with Vertical(id="device-left"):
                yield Input(
                    placeholder="/ filter, or FILE.toml",
                    id="device-filter",
                    compact=True,
                    suggester=PathSuggester(),
                )
                yield VimList(id="devices")
            yield DevicePane()
            yield Preview(self.services, id="device-preview")

    def on_mount(self) -> None:
        """Show the frame at once; the files are read meanwhile."""
        self.query_one("#devices").border_title = "Where will it run?"
        self.query_one(VimList).loading = True
        self._load()
        self._ask_the_lab()
        self.set_interval(_LIVE_S, self._live)

    @work(thread=True, exclusive=True, group="load")
    def _load(self) -> None:
        try:
            self.post_message(Loaded(self.services.targets(), self.services.known_machine()))
        except Exception as error:
            self._failed(error)

    @work(thread=True, exclusive=True, group="lab")
    def _ask_the_lab(self) -> None:
        try:
            machines = self.services.lab()
        except PackError as error:
            self.app.call_from_thread(
                self.notify, error.message, title="The lab", severity="warning"
            )
            return
        if machines:
            self.post_message(Answered(machines))

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        """They come late: the row that a person is on stays the one."""
        self._machines = message.machines
        self._list_again()

    @on(VimList.Resized)
    def _list_again(self) -> None:
        """The same rows for another width, or with others beside them; the cursor stays where it
        is. An error that is to be read stays as well: it would go with the row that is described
        anew."""
        devices = self.query_one(VimList)
        if devices.loading or not self._targets or self.query_one(Problem).text:
            return
        option = devices.highlighted_option
        self._list(self.query_one("#device-filter", Input).value)
        if option is not None and option.id is not None:
            devices.highlighted = devices.get_option_index(option.id)

    def _failed(self, error: Exception) -> None:
        known = from_foreign(error)
        if known is None:
            raise error
        self.post_message(Failed(known))

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        self._targets, self._here = message.targets, message.here
        devices = self.query_one(VimList)
        devices.loading = False
        self._list("")
        self.set_focus(devices)

    def _list(self, words: str) -> None:
        """The devices whose name, summary or kind hold every word, by kind, with the memory for one
        model."""
        devices = self.query_one(VimList)
        devices.clear_options()
        room = max(24, devices.scrollable_content_region.width or 34)
        options = [*lab_rows(self._machines, words, room), *rows(self._targets, words, room)]
        if all(word in "this machine here localhost" for word in words.casefold().split()):
            options.insert(0, Option(HERE, id=HERE))
        devices.add_options(options)
        if devices.option_count:
            devices.action_first()
        else:
            self._pane.nothing()
            self.query_one(Preview).question(None)

    @property
    def _on_here(self) -> bool:
        option = self.query_one(VimList).highlighted_option
        return option is not None and option.id == HERE

    @property
    def _machine(self) -> Seen | None:
        """The machine of the lab under the cursor."""
        option = self.query_one(VimList).highlighted_option
        wanted = "" if option is None else option.id or ""
        return next((row for row in self._machines if f"{LAB}{row.address}" == wanted), None)

    def _highlighted(self) -> Target | None:
        """The target under the cursor; None where there is no row, for this machine until it is
        measured, and for a machine of the lab that no device describes."""
        option = self.query_one(VimList).highlighted_option
        if option is None:
            return None
        if option.id == HERE:
            return self._here
        machine = self._machine
        if machine is not None:
            known = machine.targets[:1]
            return next((row for row in self._targets if row.name in known), None)
        return next((row for row in self._targets if row.name == option.id), None)

    @on(OptionList.OptionHighlighted)
    def _describe(self) -> None:
        # A filter that is typed fast leaves messages about rows that are gone.
        if self.query_one(VimList).highlighted_option is None:
            self._pane.nothing()
            self.query_one(Preview).question(None)
            return
        target, here, machine = self._highlighted(), self._on_here, self._machine
        self.query_one(Preview).question(Ask(target) if target is not None else None)
        if machine is not None:
            self._pane.machine(machine, target)
            return
        self._pane.describe(target, here, self._missing(target) if target else {})
        if here:
            self._live()
        self._title()
        if target is None:
            self._pane.offer(not self.measuring)

    def _missing(self, target: Target) -> Mapping[str, str]:
        """Runtimes whose engine is not installed, asked once for each list of runtimes."""
        key = ",".join(target.runtimes)
        if key not in self._absent:
            self._absent[key] = self.services.absent(self.services, target)
        return self._absent[key]

    def _title(self, note: str = "") -> None:
        """What the highlighted row is, and what its measurement says meanwhile."""
        target = self._highlighted()
        if self._on_here and self.measuring:
            parts = [
                ("Measuring this machine … ", "bold"),
                (note, ""),
                ("\nEsc cancels.", "$foreground-muted"),
            ]
        elif target is None:
            parts = [("This machine, not measured yet", "bold")]
        else:
            parts = [(target.summary, "bold")]
            disturbed = describe.disturbance(target)
            parts += [(f"\n! {disturbed}. m measures again.", "$text-warning")] if disturbed else []
            if self._on_here:
                parts.append(("\nEnter continues.", "$foreground-muted"))
        self._pane.title(parts)

    def _live(self) -> None:
        """Memory of this machine as it is now, while it is highlighted; drawn only where it
        changed."""
        if not self.on_top or not self._on_here:
            return
        self._pane.live(*self.services.memory())

    @on(Input.Changed, "#device-filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted, "#device-filter")
    def _entered(self, event: Input.Submitted) -> None:
        if event.value.strip().endswith(".toml"):
            self._read(event.value.strip())
        elif self.query_one(VimList).option_count:
            self.home()

    @work(thread=True, exclusive=True, group="load")
    def _read(self, path: str) -> None:
        try:
            self.post_message(Read(self.services.read_target(path)))
        except Exception as error:
            self._failed(error)

    @on(Read)
    def _was_read(self, message: Read) -> None:
        if self.on_top:
            self._go_on(message.target)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        target, machine = self._highlighted(), self._machine
        if machine is not None and machine.reached:
            self.pack.last_place = Place(machine.label)
        if target is not None:
            self._go_on(target, machine.label if machine is not None else None)
        elif self._on_here:
            self.action_measure()

    def _go_on(self, target: Target, machine: str | None = None) -> None:
        """To the need for a device; `machine` of the lab measures what is built for it."""
        from tui.screens.need import NeedScreen

        ask, view = self.pack.need or (Ask(target), None)
        asked = replace(ask, target=target, kv=None, machine=machine)
        self.app.push_screen(NeedScreen(asked, view))

    def action_measure(self) -> None:
        """Measure this machine, once at a time and beside no other measurement."""
        if self.measuring or not self.pack.may_measure(HERE):
            return
        devices = self.query_one(VimList)
        if devices.option_count and devices.get_option_at_index(0).id == HERE:
            devices.highlighted = 0
        self._worker = self._measure()
        self._describe()

    @work(thread=True, exclusive=True, group="measure")
    def _measure(self) -> None:
        worker, last = get_current_worker(), ""
        notes: Generator[str, None, Target] = self.services.measure_machine()
        try:
            while not worker.is_cancelled:
                text = next(notes)
                if text != last:
                    last = text
                    self.post_message(Said(text))
            self.post_message(Measured(None))
        except StopIteration as stop:
            self.post_message(Measured(stop.value))
        except Exception as error:
            self._failed(error)
        finally:
            notes.close()

    def _over(self) -> None:
        self._worker = None
        self.pack.measuring = ""

    @on(Said)
    def _said(self, message: Said) -> None:
        if self.measuring and self._on_here:
            self._title(message.text)

    @on(Measured)
    def _measured(self, message: Measured) -> None:
        """Show the figures here; wherever else a person has gone meanwhile, only say so."""
        self._over()
        target = message.target
        self._here = target or self._here
        if not self.on_top and target is not None:
            disturbed = describe.disturbance(target)
            self.notify(
                f"{disturbed}."
                if disturbed
                else f"{target.device.bandwidth / 1e9:.3g} GB/s; it is the first row of step 1.",
                title="This machine is measured",
                severity="warning" if disturbed else "information",
            )
        if self.query_one(VimList).highlighted_option is not None:
            self._describe()

    @on(Failed)
    def _show(self, message: Failed) -> None:
        self._over()
        self.query_one(VimList).loading = False
        if not self.on_top:
            self.notify(
                message.error.message, title="This machine was not measured", severity="error"
            )
        self._title()
        self.refuse(self.query_one("#device-problem", Problem), message.error)

    def action_back(self) -> None:
        """Out of the filter; else end the measurement."""
        if not isinstance(self.focused, Input) and self._worker is not None:
            self._worker.cancel()
            self._title("stopping …")
        else:
            super().action_back()

    def action_filter(self) -> None:
        """Into the filter."""
        self.set_focus(self.query_one(Input))

    def home(self) -> None:
        """The list."""
        self.set_focus(self.query_one(VimList))

    def copied(self) -> tuple[str, str] | None:
        """The flag that names the device."""
        from tui.ask import target_word

        target = self._highlighted()
        return (f"--target {target_word(target)}", "the flag of this device") if target else None
