"""What there is to say for an export: the place, pieces, a signature, what the format takes
besides, and what must be agreed to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from packager.files import expanded
from tui import leaving
from tui.widgets.paths import PathSuggester
from tui.widgets.slider import Check, Choice, Slider

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.shipping.export import Format

_ROOM = (13, 24)


class ExportForm(VerticalScroll, can_focus=False):
    """The lines; an order is made of them."""

    def __init__(self, package: Package, formats: Sequence[Format]) -> None:
        super().__init__(id="export-form")
        self._package = package
        self._settings = tuple(dict.fromkeys(name for form in formats for name in form.takes))
        self._licence = leaving.licence(package)

    def compose(self) -> ComposeResult:
        """A line for each."""
        yield from _line("To", Input(id="export-to", compact=True, suggester=PathSuggester()))
        yield Choice("Pieces", leaving.SIZES, leaving.WHOLE, room=_ROOM, id="export-pieces")
        size = Input(placeholder="such as 1500M or 1.9GiB", id="export-size", compact=True)
        yield from _line("Size", size)
        key = Input(
            placeholder="a private key's file; empty for none",
            id="export-key",
            compact=True,
            suggester=PathSuggester(),
        )
        yield from _line("Sign with", key)
        for name in self._settings:
            example = leaving.EXAMPLES.get(name, "")
            field = Input(placeholder=example, id=f"export-{name}", compact=True)
            yield from _line(name.replace("_", " ").capitalize(), field)
        if self._licence:
            steps = [(None, ""), (self._licence[0], f"I agree to {self._licence[0]}")]
            yield Check("Licence", steps, None, room=_ROOM, id="export-licence")
        if leaving.is_dummy(self._package):
            words = [(None, ""), ("yes", "ship random weights all the same")]
            yield Check("Weights", words, None, room=_ROOM, id="export-dummy")

    def on_mount(self) -> None:
        """Whose export it is."""
        self.border_title = Content(self._package.manifest.name)

    def kept(self, chosen: Format) -> leaving.Form:
        """What is filled in now, so that a way back and forth forgets nothing."""
        fields = {str(field.id): field.value for field in self.query(Input)}
        choices = {str(field.id): field.value for field in self.query(Slider)}
        return leaving.Form(chosen.name, fields, choices)

    def fill(self, form: leaving.Form) -> None:
        """What was filled in before."""
        for field in self.query(Input):
            field.value = form.fields.get(str(field.id), field.value)
        for slider in self.query(Slider):
            slider.choose(form.choices.get(str(slider.id)))

    def order(self, chosen: Format, otherwise: Path) -> leaving.Order:
        """What is asked for in a format; `otherwise` is where it goes if no place is written."""
        written, key = self._text("#export-to"), self._text("#export-key")
        return leaving.Order(
            self._package.path,
            chosen.name,
            expanded(written).absolute() if written else otherwise,
            self._limit() if chosen.cuts else leaving.WHOLE,
            expanded(key) if key else None,
            self._said("#export-licence"),
            self._said("#export-dummy") is not None,
            {name: text for name in chosen.takes if (text := self._text(f"#export-{name}"))},
        )

    def choose(self, chosen: Format, before: Path, now: Path) -> None:
        """Show what a format takes. The place keeps a name that a person wrote, and follows from
        `before` to `now` where it was our own."""
        to = self.query_one("#export-to", Input)
        if to.value in ("", str(before)):
            with to.prevent(Input.Changed):
                to.value = str(now)
        self.query_one("#export-pieces").display = chosen.cuts
        for name in self._settings:
            self.query_one(f"#export-{name}-line").display = name in chosen.takes

    def ask_size(self, chosen: Format) -> None:
        """Show the line for a size where another one than those offered is wanted."""
        other = chosen.cuts and self.query_one("#export-pieces", Slider).value == leaving.OTHER
        self.query_one("#export-size-line").display = other

    def _limit(self) -> str:
        chosen = str(self.query_one("#export-pieces", Slider).value)
        return self._text("#export-size") if chosen == leaving.OTHER else chosen

    def _text(self, selector: str) -> str:
        return self.query_one(selector, Input).value.strip()

    def _said(self, selector: str) -> str | None:
        return next((slider.value for slider in self.query(selector).results(Slider)), None)


def _line(label: str, field: Input) -> Iterator[Widget]:
    with Horizontal(classes="export-line", id=f"{field.id}-line"):
        yield Static(label)
        yield field
