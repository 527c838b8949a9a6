"""Style sheets whose sources are parsed once.

Textual parses the sheets of all widgets again for every screen with a sheet of its own and for
every theme: what it keeps of them is bound to one Stylesheet, and to 64 sources.
"""

from __future__ import annotations

from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.css.types import CSSLocation

_PARSED: dict[tuple[object, ...], list[RuleSet]] = {}
"""The rules of a source with the variables of a theme; nobody changes them once they are parsed."""


class ParsedOnce(Stylesheet):
    """For all applications of this process together."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._theme = tuple(sorted(self._variables.items()))

    def set_variables(self, variables: dict[str, str]) -> None:
        """See Stylesheet."""
        super().set_variables(variables)
        self._theme = tuple(sorted(variables.items()))

    def reparse(self) -> None:
        """The rules of all sources with the variables as they are now. Raises as Stylesheet: then
        the rules stay those from before."""
        self._invalid_css = set()
        self.parse()

    def _parse_rules(
        self,
        css: str,
        read_from: CSSLocation,
        is_default_rules: bool = False,
        tie_breaker: int = 0,
        scope: str = "",
    ) -> list[RuleSet]:
        key = (self._theme, css, read_from, is_default_rules, tie_breaker, scope)
        if key not in _PARSED:
            _PARSED[key] = super()._parse_rules(
                css, read_from, is_default_rules, tie_breaker, scope
            )
        return _PARSED[key]
