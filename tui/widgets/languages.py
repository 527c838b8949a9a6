"""The languages of the answers, as a line of the need: names or codes behind commas, completed
while they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input, Label

from packager.need.languages import codes, languages

if TYPE_CHECKING:
    from collections.abc import Sequence


_NOTHING_SAID = "English; others: German, fr, ..."


class _Completed(Suggester):
    """The first language whose name begins with the last word."""

    def __init__(self) -> None:
        super().__init__(use_cache=True, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        before, comma, last = value.rpartition(",")
        word = last.lstrip()
        if not word:
            return None
        found = next(
            (
                known.name
                for known in languages()
                if known.name.casefold().startswith(word.casefold())
            ),
            None,
        )
        # What was typed stays as it was typed, so that the rest can be shown behind it.
        return (
            None
            if found is None
            else f"{before}{comma}{last[: len(last) - len(word)]}{word}{found[len(word) :]}"
        )


class LanguageLine(Horizontal):
    """A label as wide as those of the sliders above, and the text."""

    DEFAULT_CSS = """
    LanguageLine { height: 1; }
    LanguageLine Label { width: 13; }
    LanguageLine Input { width: 1fr; }
    LanguageLine:focus-within Label { text-style: bold; }
    """

    def __init__(self, wanted: Sequence[str] | None, *, id: str | None = None) -> None:
        """`wanted` are codes; None or none of them is shown as nothing said."""
        super().__init__(id=id)
        self._wanted = tuple(wanted or ())

    def compose(self) -> ComposeResult:
        """Label and text field."""
        yield Label("Languages")
        yield Input(
            _words(self._wanted),
            placeholder=_NOTHING_SAID,
            suggester=_Completed(),
            id="languages",
            compact=True,
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages that are written there. Raises PackError for one that is not known."""
        return codes(word for word in self.query_one(Input).value.split(",") if word.strip())

    def show(self, wanted: Sequence[str] | None) -> None:
        """Write these codes by their names."""
        self.query_one(Input).value = _words(wanted or ())


def _words(wanted: Sequence[str]) -> str:
    names = {known.code: known.name for known in languages()} if wanted else {}
    return ", ".join(names.get(code, code) for code in wanted)
