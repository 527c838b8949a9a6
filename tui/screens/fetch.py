"""A converted model comes from the hub: how far it is, and a cancel that ends the download."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from packager.errors import PackError, from_foreign
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.sources.hub_file import HubFile
    from tui.app import PackApp
    from tui.ask import BuildOptions, FileOfHub


class Far(Message):
    """So many bytes are here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, Far)


class Here(Message):
    """The file, why there is none, or None where it was cancelled."""

    def __init__(self, answer: HubFile | PackError | None) -> None:
        super().__init__()
        self.answer = answer


class FetchScreen(ModalScreen["HubFile | PackError | None"]):
    """Answers with the file, the error, or None where the person gave up."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="fetch.cancel", tooltip="End the download"),
    ]

    def __init__(self, wanted: FileOfHub, options: BuildOptions) -> None:
        super().__init__()
        self._wanted, self._options = wanted, options
        self._cancel = threading.Event()

    def compose(self) -> ComposeResult:
        """What comes, how far it is, and the way out."""
        with Vertical(classes="dialog"):
            yield Static(f"Fetching {self._wanted.name}", id="question", markup=False)
            yield Static(
                f"from {self._wanted.repo_id} on the hub, into its cache. What has come stays "
                "there: the same question goes on where it ended.",
                id="fetch-what",
                markup=False,
            )
            yield Static("asking the hub …", id="fetch-far", markup=False)
            with Horizontal():
                yield Button("Cancel (Esc)", id="cancel", compact=True)

    def on_mount(self) -> None:
        """Begin."""
        self.query_one(Button).focus()
        self._fetch()

    def on_unmount(self) -> None:
        """However it goes, the download goes with it."""
        self._cancel.set()

    @property
    def _pack(self) -> PackApp:
        from tui.app import PackApp

        assert isinstance(self.app, PackApp)
        return self.app

    @work(thread=True, exclusive=True, group="hub")
    def _fetch(self) -> None:
        from packager.process import Progress

        wanted, options = self._wanted, self._options
        answer: HubFile | PackError | None = None
        try:
            events = self._pack.services.hub_file(
                wanted.repo_id, wanted.name, options.revision, options.offline
            )
            try:
                while not self._cancel.is_set():
                    event = next(events)
                    if isinstance(event, Progress):
                        total = "" if event.total is None else f" of {human_bytes(event.total)}"
                        self.post_message(Far(f"{human_bytes(event.done)}{total}"))
            except StopIteration as stop:
                answer = stop.value
            finally:
                events.close()
        except Exception as error:
            answer = from_foreign(error)
            if answer is None:
                raise
        self.post_message(Here(answer))

    @on(Far)
    def _far(self, message: Far) -> None:
        self.query_one("#fetch-far", Static).update(message.text)

    @on(Here)
    def _here(self, message: Here) -> None:
        self.dismiss(message.answer)

    @on(Button.Pressed)
    def action_cancel(self) -> None:
        """The worker ends at its next event, and with it the download."""
        self._cancel.set()
        self.query_one("#fetch-far", Static).update("stopping …")
