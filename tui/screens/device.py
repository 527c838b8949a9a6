"""Step 1: what have I got? This machine, measured, or any device that is known."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from packager.errors import from_foreign
from packager.units import human_bytes
from tui import describe
from tui.ask import Ask
from tui.screens.base import BACK, COPY, Failed, Problem, StepScreen
from tui.widgets.lists import VimList
from tui.widgets.pane import Pane
from tui.widgets.stacked import Part, Stacked

if TYPE_CHECKING:
    from packager.device.target import Target

HERE = "this machine"
_SIGNS = (("█", "$primary"), ("▒", "$warning"), ("░", "$foreground-muted"))
_LIVE_S = 1.0


class Loaded(Message):
    """The targets are read, and this machine where it was measured before."""

    def __init__(self, targets: tuple[Target, ...], here: Target | None) -> None:
        super().__init__()
        self.targets, self.here = targets, here


class Said(Message):
    """A sentence of the measurement that runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Measured(Message):
    """This machine as a target."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target


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
        BACK,
        COPY,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._targets: tuple[Target, ...] = ()
        self._here: Target | None = None
        self._measuring = False

    def body(self) -> ComposeResult:
        """Filter and list on the left, facts on the right."""
        with Horizontal(id="device"):
            with Vertical(id="device-left"):
                yield Input(placeholder="/ filter, or FILE.toml", id="device-filter", compact=True)
                yield VimList(id="devices")
            with Pane(id="device-right"):
                yield Problem(id="device-problem")
                yield Static(id="device-title")
                yield Stacked(id="device-memory")
                yield Static(id="device-live")
                yield Static(id="device-facts")

    def on_mount(self) -> None:
        """Show the frame at once; the files are read behind it."""
        self.query_one("#devices").border_title = "What have you got?"
        self.query_one("#device-right").border_title = "The device"
        self.query_one(VimList).loading = True
        self._load()
        self.set_interval(_LIVE_S, self._live)

    @work(thread=True, exclusive=True, group="load")
    def _load(self) -> None:
        try:
            self.post_message(Loaded(self.services.targets(), self.services.known_machine()))
        except Exception as error:
            self._failed(error)

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
        """The devices whose name, summary or kind hold every word, by kind."""
        devices = self.query_one(VimList)
        devices.clear_options()
        wanted = words.casefold().split()
        rows = [(HERE, "this machine here localhost", "here")]
        rows += [
            (one.name, f"{one.name} {one.summary} {one.kind}".casefold(), one.kind)
            for one in sorted(self._targets, key=lambda one: (one.kind, one.name))
        ]
        options: list[Option] = []
        last = ""
        for name, text, kind in rows:
            if not all(word in text for word in wanted):
                continue
            if kind not in (last, "here"):
                options.append(
                    Option(Content.styled(f"─ {kind} ", "$foreground-muted"), disabled=True)
                )
            last = kind
            options.append(Option(name, id=name))
        devices.add_options(options)
        if devices.option_count:
            devices.action_first()
        else:
            for name in ("#device-memory", "#device-live"):
                self.query_one(name).display = False
            self.query_one("#device-facts", Static).update("")
            self.query_one("#device-title", Static).update(
                Content.assemble(
                    ("Nothing of that name. ", "bold"),
                    "Enter reads a path that ends in .toml as a device file.",
                )
            )

    def _highlighted(self) -> Target | None:
        """The target under the cursor; this machine only once it is measured."""
        option = self.query_one(VimList).highlighted_option
        if option is None or option.id == HERE:
            return self._here
        return next(one for one in self._targets if one.name == option.id)

    @on(OptionList.OptionHighlighted)
    def _describe(self) -> None:
        target = self._highlighted()
        option = self.query_one(VimList).highlighted_option
        here = option is not None and option.id == HERE
        self.query_one("#device-problem", Problem).clear()
        title = target.summary if target is not None else "This machine, not measured yet"
        self.query_one("#device-title", Static).update(Content.styled(title, "bold"))
        self.query_one("#device-live").display = here
        self.query_one("#device-memory").display = target is not None or here
        if here:
            self._live()
        if target is None:
            self.query_one("#device-facts", Static).update(
                Content.assemble(
                    ("Enter", "bold $text-accent"),
                    " measures it: memory bandwidth and compute, with the installed engines' own "
                    "kernels, in under ten seconds.",
                )
            )
            return
        if not here:
            pieces = zip(describe.memory_parts(target), _SIGNS, strict=True)
            self.query_one(Stacked).show(
                [Part(label, size, sign, style) for (label, size), (sign, style) in pieces]
            )
        self._facts(describe.device_rows(target), target.device.sources)

    def _facts(self, rows: list[tuple[str, str]], sources: dict[str, str]) -> None:
        parts: list[tuple[str, str]] = []
        for label, text in rows:
            parts += [(f"{label:<13}", "$foreground-muted"), (f"{text}\n", "")]
        if sources:
            parts.append(("\nWhere the numbers come from\n", "bold"))
        for key, text in sources.items():
            parts += [(f"{key}  ", "$text-accent"), (f"{text}\n", "$foreground-muted")]
        self.query_one("#device-facts", Static).update(Content.assemble(*parts))

    def _live(self) -> None:
        """Memory of this machine as it is now, while it is highlighted."""
        option = self.query_one(VimList).highlighted_option
        if self.app.screen is not self or option is None or option.id != HERE:
            return
        total, available = self.services.memory()
        parts = (
            ("free for a model", available),
            ("taken by others", 0),
            ("in use now", total - available),
        )
        self.query_one(Stacked).show(
            [Part(label, size, *sign) for (label, size), sign in zip(parts, _SIGNS, strict=True)]
        )
        self.query_one("#device-live", Static).update(
            Content.assemble(
                ("live: ", "$foreground-muted"),
                f"{human_bytes(available)} of {human_bytes(total)} free",
            )
        )

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
            self.post_message(Measured(self.services.read_target(path)))
        except Exception as error:
            self._failed(error)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        target = self._highlighted()
        if target is None:
            self.action_measure()
        else:
            self._go_on(target)

    def _go_on(self, target: Target) -> None:
        from tui.screens.need import NeedScreen

        self.app.push_screen(NeedScreen(Ask(target)))

    def action_measure(self) -> None:
        """Measure this machine, once at a time."""
        if self._measuring:
            return
        self._measuring = True
        self.query_one("#device-title", Static).update(
            Content.styled("Measuring this machine …", "bold")
        )
        self.query_one("#device-facts", Static).update("")
        self.query_one("#device-facts").loading = True
        self._measure()

    @work(thread=True, exclusive=True, group="measure")
    def _measure(self) -> None:
        worker = get_current_worker()
        notes: Generator[str, None, Target] = self.services.measure_machine()
        try:
            while not worker.is_cancelled:
                self.post_message(Said(next(notes)))
        except StopIteration as stop:
            self._here = stop.value
            self.post_message(Measured(stop.value))
        except Exception as error:
            self._failed(error)
        finally:
            notes.close()

    @on(Said)
    def _said(self, message: Said) -> None:
        self.query_one("#device-title", Static).update(
            Content.assemble(("Measuring this machine … ", "bold"), message.text)
        )

    @on(Measured)
    def _measured(self, message: Measured) -> None:
        self._measuring = False
        self.query_one("#device-facts").loading = False
        self._go_on(message.target)

    @on(Failed)
    def _show(self, message: Failed) -> None:
        self._measuring = False
        self.query_one(VimList).loading = False
        self.query_one("#device-facts").loading = False
        self.query_one("#device-problem", Problem).show(message.error.message, message.error.hint)

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
