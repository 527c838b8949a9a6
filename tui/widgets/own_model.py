"""Where the weights come from, as lines of the need: the hub, random ones or a folder, and adapters
that are merged into them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from packager.errors import usage
from packager.files import expanded
from tui.ask import specs
from tui.widgets.paths import PathSuggester
from tui.widgets.slider import Choice, Slider
from tui.widgets.text_line import TextLine

if TYPE_CHECKING:
    from tui.ask import Ask

_SOURCES = (
    (
        "hub",
        "the hub",
        "The chosen variant's weights are fetched from the Hugging Face hub, pinned to a full "
        "commit.",
    ),
    (
        "dummy",
        "random (dummy)",
        "Random weights of the true shape: size, speed and memory are real, answers mean nothing.",
    ),
    (
        "folder",
        "a folder",
        "A hub snapshot, or what save_pretrained wrote: its own checkpoint is packaged.",
    ),
)
_ADAPTERS = (
    "LoRA adapters that are merged into the weights while they are converted: the folder that PEFT "
    "saved one into, or OWNER/NAME@REVISION on the hub. :0.5 after it scales it; several have a "
    "space between them. With weights from the hub the base is the one that the adapter names."
)


class OwnModel(Vertical):
    """The choice, the path of the folder where one was chosen, and the adapters."""

    DEFAULT_CSS = """
    OwnModel { height: auto; }
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(id="own-model")
        self._kind = ask.weights if ask.weights in ("hub", "dummy") else "folder"
        self._folder = "" if self._kind != "folder" else ask.weights
        self._lora = " ".join(ask.lora)

    def compose(self) -> ComposeResult:
        """The lines."""
        yield Choice(
            "Weights",
            [(key, text) for key, text, _ in _SOURCES],
            self._kind,
            id="weights",
            usual="hub",
        )
        folder = Input(
            self._folder,
            placeholder="path of the checkpoint's folder, → completes it",
            suggester=PathSuggester(folders=True),
            id="weights-folder",
            compact=True,
        )
        folder.display = self._kind == "folder"
        yield folder
        yield TextLine(
            "Adapters",
            "lora",
            self._lora,
            example="LoRA folder or OWNER/NAME, merged in",
            suggester=PathSuggester(folders=True),
        )

    @on(Slider.Moved, "#weights")
    def _chosen(self, event: Slider.Moved) -> None:
        folder = self.query_one("#weights-folder", Input)
        folder.display = event.value == "folder"
        if event.value == "folder":
            folder.focus()

    def explain(self, focused: object) -> str:
        """What the focused line means; empty where it is none of these."""
        if isinstance(focused, Slider) and focused.id == "weights":
            return next(text for key, _, text in _SOURCES if key == focused.value)
        if isinstance(focused, Input) and focused.id == "lora":
            return _ADAPTERS
        return ""

    def into(self, ask: Ask) -> Ask:
        """The ask with what stands here. Raises PackError (usage) for a folder that is none, or a
        quote that does not end."""
        kind = self.query_one("#weights", Slider).value
        lora = specs(self.query_one("#lora", Input).value)
        if kind != "folder":
            return replace(ask, weights=kind, lora=lora)
        text = self.query_one("#weights-folder", Input).value.strip()
        folder = expanded(text)
        converted = folder.is_file() and folder.suffix.casefold() == ".gguf"
        if not text or not (folder.is_dir() or converted):
            message = f"There is no folder {text!r}." if text else "Enter a folder."
            raise usage(
                message, "--weights takes the path of a checkpoint's folder, or of a .gguf file."
            )
        return replace(ask, weights=str(folder), lora=lora)
