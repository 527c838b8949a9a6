"""Where the weights come from, as lines of the need: a hub, a converted model, random ones or own
files, and adapters that are merged into them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from packager.errors import PackError, usage
from packager.files import expanded
from tui.ask import SOURCES, FileOfHub, specs
from tui.widgets.paths import PathSuggester
from tui.widgets.slider import Choice, Slider
from tui.widgets.text_line import TextLine

if TYPE_CHECKING:
    from tui.ask import Ask

_HUB_FILE = "hub-file"
_SOURCES = (
    (
        "hub",
        "hub",
        "The chosen variant's weights are fetched from the Hugging Face hub, pinned to a full "
        "commit.",
    ),
    (
        "modelscope",
        "ModelScope",
        "The chosen variant's weights are fetched from ModelScope, where Qwen publishes them as "
        "well; every file is compared with the digest that is listed there.",
    ),
    (
        _HUB_FILE,
        "as is (hub)",
        "A model that somebody else converted, from a repository of the hub: a .gguf file, or a "
        "folder for OpenVINO or ONNX Runtime with a slash after it (./ is the repository itself). "
        "It is fetched on the way on, recognised by its shape, and taken as it is.",
    ),
    (
        "dummy",
        "random",
        "Random weights of the true shape: size, speed and memory are real, answers mean nothing.",
    ),
    (
        "folder",
        "own files",
        "A folder, a hub snapshot or what save_pretrained wrote: its own checkpoint is packaged. "
        "Or a .gguf file, or a folder for OpenVINO or ONNX Runtime, which is taken as it is.",
    ),
)
_ADAPTERS = (
    "LoRA adapters that are merged into the weights while they are converted: the folder that PEFT "
    "saved one into, or OWNER/NAME@REVISION on the hub. :0.5 after it scales it; several have a "
    "space between them. With weights from the hub the base is the one that the adapter names."
)


class OwnModel(Vertical):
    """The choice, the path or the names that it asks for, and the adapters."""

    DEFAULT_CSS = """
    OwnModel { height: auto; }
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(id="own-model")
        named = _HUB_FILE if ask.hub_file is not None else ask.weights
        self._kind = named if named in (*SOURCES, _HUB_FILE) else "folder"
        self._folder = "" if self._kind != "folder" else ask.weights
        self._taken = ask.hub_file
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
            placeholder="path of the checkpoint's folder or of a .gguf, → completes it",
            suggester=PathSuggester(),
            id="weights-folder",
            compact=True,
        )
        folder.display = self._kind == "folder"
        yield folder
        taken = self._taken
        for label, name, text, example in (
            ("  repository", "hub-repository", taken and taken.repo_id, "OWNER/NAME"),
            ("  file", "hub-file", taken and taken.name, "NAME-Q4_K_M.gguf or FOLDER/"),
        ):
            line = TextLine(label, name, text or "", example=example, usual=text or "")
            line.display = self._kind == _HUB_FILE
            yield line
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
        for name in ("hub-repository", "hub-file"):
            self.query_one(f"#{name}-line").display = event.value == _HUB_FILE
        if event.value == "folder":
            folder.focus()

    def explain(self, focused: object) -> str:
        """What the focused line means; empty where it is none of these."""
        if isinstance(focused, Slider) and focused.id == "weights":
            return next(text for key, _, text in _SOURCES if key == focused.value)
        if isinstance(focused, Input) and focused.id == "lora":
            return _ADAPTERS
        return ""

    def standing(self, ask: Ask) -> Ask:
        """The ask with what stands here, nothing of it checked."""
        kind, lora = self.query_one("#weights", Slider).value, self._text("lora")
        folder = self._text("weights-folder") or "hub"
        weights = {_HUB_FILE: "hub", "folder": folder}.get(kind, kind)
        hub_file = self._named(ask) if kind == _HUB_FILE else None
        try:
            adapters = specs(lora)
        except PackError:
            adapters = (lora,)
        return replace(ask, weights=weights, hub_file=hub_file, lora=adapters)

    def into(self, ask: Ask) -> Ask:
        """The ask with what stands here. Raises PackError (usage) for a folder that is none, a file
        that none can be, or a quote that does not end."""
        kind = self.query_one("#weights", Slider).value
        lora = specs(self.query_one("#lora", Input).value)
        if kind == _HUB_FILE:
            return replace(ask, weights="hub", lora=lora, hub_file=self._file_of_hub(ask))
        if kind != "folder":
            return replace(ask, weights=kind, lora=lora, hub_file=None)
        text = self.query_one("#weights-folder", Input).value.strip()
        folder = expanded(text)
        converted = folder.is_file() and folder.suffix.casefold() == ".gguf"
        if not text or not (folder.is_dir() or converted):
            message = f"There is no folder {text!r}." if text else "Enter a folder."
            raise usage(
                message, "--weights takes the path of a checkpoint's folder, or of a .gguf file."
            )
        return replace(ask, weights=str(folder), lora=lora, hub_file=None)

    def _file_of_hub(self, ask: Ask) -> FileOfHub:
        """The file that is named, as it was fetched before where it is still the same."""
        from packager.sources.hub_file import check_name

        named = self._named(ask)
        check_name(named.repo_id, named.name)
        return named

    def _named(self, ask: Ask) -> FileOfHub:
        repo_id, name = (self._text(field) for field in ("hub-repository", "hub-file"))
        named, known = FileOfHub(repo_id, name, revision=ask.options.revision), self._taken
        return known if known is not None and replace(known, file=None) == named else named

    def _text(self, field: str) -> str:
        return self.query_one(f"#{field}", Input).value.strip()

    def fetched(self, taken: FileOfHub) -> None:
        """Remember a file, so that it is fetched once."""
        self._taken = taken
