"""The languages of the answers, as a line of the need: names or codes behind commas, completed
while they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.suggester import Suggester

from packager.need.languages import codes, languages
from tui.widgets.text_line import TextLine

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
        completed = next(
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
            if completed is None
            else f"{before}{comma}{last[: len(last) - len(word)]}{word}{completed[len(word) :]}"
        )


class LanguageLine(TextLine):
    """The languages by name, codes among them taken as well."""

    def __init__(self, wanted: Sequence[str], usual: Sequence[str]) -> None:
        """`wanted` and `usual`, what goes without saying, are codes; none of them is an empty
        field."""
        super().__init__(
            "Languages",
            "languages",
            _words(wanted),
            example=_NOTHING_SAID,
            suggester=_Completed(),
            usual=_words(usual),
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages that are written there. Raises PackError for one that is not known."""
        return codes(word for word in self.field.value.split(",") if word.strip())

    def show_codes(self, wanted: Sequence[str], usual: Sequence[str]) -> None:
        """Write codes by their names."""
        self.show(_words(wanted), _words(usual))


def _words(wanted: Sequence[str]) -> str:
    names = {known.code: known.name for known in languages()} if wanted else {}
    return ", ".join(names.get(code, code) for code in wanted)
