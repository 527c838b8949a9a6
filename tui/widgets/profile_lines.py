"""How the model is to behave, as lines of the need: thinking, system prompt, tools, sampling, and
what makes it answer sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from packager.errors import PackError, usage
from packager.files import expanded
from tui.ask import DeploymentProfile
from tui.widgets.paths import PathSuggester
from tui.widgets.slider import Check, Choice, Slider
from tui.widgets.text_line import TextLine

if TYPE_CHECKING:
    from textual.widget import Widget

_BUDGET = "budget"
_THINKING = ((None, "as it is"), ("on", "on"), ("off", "off"), (_BUDGET, "budget"))
_BUDGETS = (128, 256, 512, 1024, 2048, 4096, 8192)
_USUAL_BUDGET = 512
SPECULATE = ((None, "off"), ("auto", "auto"), ("lookup", "lookup"), ("mtp", "mtp"))
"""The ways to draft that need no other model, and their words."""
_TEXTS = {
    "thinking": (
        "Whether the model thinks before it answers, fixed for every request: the package, its "
        "exports and its server all follow it. As it is: each request decides, if the model can do "
        "both."
    ),
    "thinking-budget": (
        "Tokens of thought after which a server ends the thinking and lets the model answer."
    ),
    "system_prompt": "A text file: the system prompt of every conversation that has none.",
    "tools": "A JSON list of functions in OpenAI's form, for every conversation that has none.",
    "sampling": (
        "Sampling over the checkpoint's own: temperature, top_k, top_p, min_p, "
        "repetition_penalty, with commas between several."
    ),
    "warm": (
        "The state after the system prompt and the tools is kept in the package: no chat computes "
        "them twice, and the first token comes sooner. Space ticks it."
    ),
    "speculate": (
        "Tokens are drafted, and the model checks them at once: lookup takes them from the text so "
        "far, mtp from the model's own heads, auto tries what there is. It is measured here, and "
        "packaged only where it pays. The plan proposes models that can draft."
    ),
}
_EXAMPLES = {
    "system_prompt": ("System text", "a text file, → completes it"),
    "tools": ("Tools", "a JSON file, → completes it"),
    "sampling": ("Sampling", "temperature=0.7,top_p=0.8"),
}
_FILES = ("system_prompt", "tools")


class ProfileLines(Vertical):
    """The lines; shown only for what answers in words."""

    DEFAULT_CSS = """
    ProfileLines { height: auto; }
    """

    def __init__(self, profile: DeploymentProfile) -> None:
        super().__init__(id="profile")
        self._profile = profile

    def compose(self) -> ComposeResult:
        """Thinking with its budget, a field for each text, then what makes it answer sooner."""
        word, _, number = (self._profile.thinking or "").partition(":")
        yield Choice("Thinking", list(_THINKING), word or None, id="thinking", usual=None)
        budget = Slider(
            "  tokens",
            [(tokens, f"{tokens:,} tokens") for tokens in _BUDGETS],
            int(number or _USUAL_BUDGET),
            id="thinking-budget",
            parse=_tokens,
            read="{:,} tokens".format,
            unit=" tokens",
        )
        budget.display = word == _BUDGET
        yield budget
        for name, (label, example) in _EXAMPLES.items():
            yield TextLine(
                label,
                name.replace("_", "-"),
                getattr(self._profile, name) or "",
                example=example,
                suggester=PathSuggester() if name in _FILES else None,
            )
        yield Check(
            "Warm start",
            [(False, "no"), (True, "keep the state of prompt and tools")],
            self._profile.warm,
            id="warm",
            usual=False,
        )
        stands = self._profile.speculate
        ways: list[tuple[str | None, str]] = list(SPECULATE)
        if stands not in [value for value, _ in ways]:
            ways.append((stands, str(stands)))
        yield Choice("Speculate", ways, stands, id="speculate", usual=None)

    @on(Slider.Moved, "#thinking")
    def _chosen(self, event: Slider.Moved) -> None:
        self.query_one("#thinking-budget").display = event.value == _BUDGET

    def explain(self, focused: Widget | None) -> str:
        """What the focused line means; empty where it is none of these."""
        name = "" if focused is None or focused.id is None else focused.id
        return _TEXTS.get(name.replace("system-prompt", "system_prompt"), "")

    @property
    def value(self) -> DeploymentProfile:
        """What stands here, nothing of it checked; paths as the command line can take them from
        anywhere."""
        thinking = self.query_one("#thinking", Slider).value
        if thinking == _BUDGET:
            thinking = f"{_BUDGET}:{self.query_one('#thinking-budget', Slider).value}"
        return DeploymentProfile(
            *(thinking, self._file("system-prompt"), self._file("tools"), self._text("sampling")),
            warm=self.query_one("#warm", Slider).value,
            speculate=self.query_one("#speculate", Slider).value,
        )

    def _text(self, name: str) -> str | None:
        return self.query_one(f"#{name}", Input).value.strip() or None

    def _file(self, name: str) -> str | None:
        text = self._text(name)
        return None if text is None else str(expanded(text))

    def checked(self) -> DeploymentProfile:
        """The same, its files read once. Raises PackError with the focus on the line that is
        wrong."""
        value = self.value
        for name in _EXAMPLES:
            try:
                DeploymentProfile(**{name: getattr(value, name)}).read()
            except PackError:
                self.query_one(f"#{name.replace('_', '-')}", Input).focus()
                raise
        return value

    def reset(self) -> None:
        """As the checkpoint has it."""
        self.query_one("#thinking", Slider).show(list(_THINKING), None)
        self.query_one("#thinking-budget").display = False
        self.query_one("#warm", Slider).choose(False)
        self.query_one("#speculate", Slider).show(list(SPECULATE), None)
        for line in self.query(TextLine):
            line.show("")


def _tokens(text: str) -> int:
    """A typed budget. Raises PackError (usage) for what is none."""
    digits = text.casefold().removesuffix("tokens").replace(",", "").strip()
    if not digits.isdecimal() or len(digits) > 7 or not int(digits):
        raise usage(f"{text.strip()!r} is not a valid number of tokens.")
    return int(digits)
