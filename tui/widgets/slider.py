"""Choices on one line: a slider for what slides and takes typed numbers, a row of alternatives, and
a box to tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from packager.errors import PackError

_OWN: Any = object()
MARK = "•"
"""Stands behind the label of what was changed by hand."""
_TYPED = frozenset("0123456789., abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/")


class Slider(Widget, can_focus=True):
    """One of `steps`, pairs of a value and how it reads. Posts Moved when the value changes by
    hand.

    With `parse`, digits begin to type a value of one's own: Enter takes it, Esc leaves it. `parse`
    raises PackError or ValueError for what is no value; `read` says how a typed value reads; `unit`
    is what a bare number means.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "left,h,minus",
            "move(-1)",
            "Less",
            id="slider.less",
            tooltip="One step down",
            show=False,
        ),
        Binding(
            "right,l,plus",
            "move(1)",
            "More",
            id="slider.more",
            tooltip="One step up; digits type a value",
            show=False,
        ),
        Binding(
            "home,circumflex_accent",
            "end(0)",
            "Least",
            id="slider.least",
            tooltip="The lowest step",
            show=False,
        ),
        Binding(
            "end,dollar_sign",
            "end(-1)",
            "Most",
            id="slider.most",
            tooltip="The highest step",
            show=False,
        ),
    ]
    position = reactive(0)
    typed = reactive("")

    class Moved(Message):
        """The slider stands at another value."""

        def __init__(self, slider: Slider, value: Any) -> None:
            super().__init__()
            self.slider, self.value = slider, value

        @property
        def control(self) -> Slider:
            """The slider, for `@on` with a selector."""
            return self.slider

    def __init__(
        self,
        label: str,
        steps: Sequence[tuple[Any, str]],
        value: Any,
        *,
        room: tuple[int, int] = (13, 22),
        id: str | None = None,
        parse: Callable[[str], Any] | None = None,
        read: Callable[[Any], str] = str,
        unit: str = "",
        usual: Any = _OWN,
    ) -> None:
        """`room` are the cells of the label and of the value, so that tracks below each other line
        up.

        `usual` is the value where nothing was said, if that is not the one it begins with.
        """
        super().__init__(id=id)
        self._label_room, self._value_room = room
        self.label = label
        self._parse, self._read, self._unit = parse, read, unit
        self._usual = value if usual is _OWN else usual
        self._steps: list[tuple[Any, str]] = list(steps)
        self.set_reactive(Slider.position, self._place(value))

    @property
    def value(self) -> Any:
        """The value it stands at."""
        return self._steps[self.position][0]

    @property
    def text(self) -> str:
        """How that reads."""
        return self._steps[self.position][1]

    @property
    def changed(self) -> bool:
        """Whether it stands elsewhere than it would by itself."""
        return bool(self.value != self._usual)

    def show(self, steps: Sequence[tuple[Any, str]], value: Any, usual: Any = _OWN) -> None:
        """Take other steps and stand at `value`; says nothing, as no hand moved it."""
        self._steps = list(steps)
        self._usual = value if usual is _OWN else usual
        self.set_reactive(Slider.position, self._place(value))
        self.set_reactive(Slider.typed, "")
        self.refresh()

    def choose(self, value: object) -> None:
        """Stand at `value`, where it is one of the steps; says nothing, as no hand moved it."""
        position = next(
            (index for index, (step, _) in enumerate(self._steps) if step == value), None
        )
        if position is not None:
            self.set_reactive(Slider.position, position)
            self.refresh()

    def _place(self, value: Any) -> int:
        position = next(
            (index for index, (step, _) in enumerate(self._steps) if step == value), None
        )
        if position is not None:
            return position
        return self._insert(value) if self._parse is not None and value is not None else 0

    def _insert(self, value: Any) -> int:
        """A place for a value that is none of the steps, between its neighbours."""
        position = next(
            (
                index
                for index, (step, _) in enumerate(self._steps)
                if step is not None and step > value
            ),
            len(self._steps),
        )
        self._steps.insert(position, (value, self._read(value)))
        return position

    def _labelled(self) -> tuple[str, str]:
        text = f"{self.label} {MARK}" if self.changed else self.label
        return text.ljust(self._label_room)[: self._label_room], "bold" if self.has_focus else ""

    def render(self) -> RenderResult:
        """Label, track with the knob, value; the arrows show that it can be moved."""
        track = self._track
        last = max(1, len(self._steps) - 1)
        knob = round(self.position * max(0, track - 1) / last)
        line = "━" * knob + "●" + "─" * max(0, track - knob - 1) if track > 4 else ""
        arrows = ("‹", "›") if self.has_focus else (" ", " ")
        shown = f"{self.typed}▏{self._unit}" if self.typed else self.text
        return Content.assemble(
            self._labelled(),
            (f"{line} " if line else "", "$primary" if self.has_focus else "$foreground-muted"),
            (arrows[0], "bold $text-accent"),
            (f" {shown} ", "bold" if self.typed else ""),
            (arrows[1], "bold $text-accent"),
        )

    @property
    def _track(self) -> int:
        return max(0, self.content_size.width - self._label_room - self._value_room)

    def on_key(self, event: events.Key) -> None:
        """Digits begin a value of one's own; until Enter or Esc everything belongs to it."""
        character = event.character or ""
        if not self.typed and (self._parse is None or not character.isdigit()):
            return
        if event.key == "enter":
            self._take()
        elif event.key == "escape":
            self.typed = ""
        elif event.key == "backspace":
            self.typed = self.typed[:-1]
        elif character in _TYPED and character:
            self.typed += character
        elif event.key in ("tab", "shift+tab", "up", "down"):
            # Leaving takes what stands there, as a field of a form does.
            self._take()
            return
        else:
            return
        event.stop()
        event.prevent_default()

    def on_blur(self) -> None:
        """The mouse leads away from a value that is half typed."""
        if self.typed:
            self._take()

    def _take(self) -> None:
        assert self._parse is not None
        text, self.typed = self.typed, ""
        try:
            value = self._parse(text)
        except (PackError, ValueError) as error:
            self.notify(
                f"{error}".partition("\n")[0], title=f"{self.label}: {text}", severity="warning"
            )
            return
        if value != self.value:
            self.position = self._place(value)
            self.refresh()
            self.post_message(self.Moved(self, self.value))

    def action_move(self, steps: int) -> None:
        """So many steps up or down, as far as there are any."""
        self._go(self.position + steps)

    def action_end(self, index: int) -> None:
        """To the first step (0) or the last (-1)."""
        self._go(index % len(self._steps))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """The knob goes to the pointer, and follows it until the button is let go."""
        self.focus()
        if self._follow(event):
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow a drag."""
        if self.app.mouse_captured is self:
            self._follow(event)

    def on_mouse_up(self) -> None:
        """The drag is over."""
        self.release_mouse()

    def _follow(self, event: events.MouseEvent) -> bool:
        """Stand where the pointer is on the track; beside it, one step towards that side."""
        x, track = int(event.x) - self.gutter.left - self._label_room, self._track
        if x < 0:
            return False
        if track > 4 and x < track:
            self._go(round(x * (len(self._steps) - 1) / max(1, track - 1)))
            return True
        if isinstance(event, events.MouseDown):
            middle = track + (self.content_size.width - self._label_room - track) // 2
            self.action_move(1 if x > middle else -1)
        return False

    def _go(self, index: int) -> None:
        index = min(len(self._steps) - 1, max(0, index))
        self.typed = ""
        if index != self.position:
            self.position = index
            self.post_message(self.Moved(self, self.value))


class Choice(Slider):
    """One of a few alternatives, all of them in sight: `(•) smallest  ( ) quality`. Where they do
    not fit, the chosen one and how many."""

    def render(self) -> RenderResult:
        """The alternatives, the chosen one marked by its sign, not by colour alone."""
        parts: list[tuple[str, str]] = [self._labelled()]
        words = self._words
        if not words:
            arrows = ("‹", "›") if self.has_focus else (" ", " ")
            parts += [
                (arrows[0], "bold $text-accent"),
                (f" {self.text} ", ""),
                (arrows[1], "bold $text-accent"),
            ]
            parts.append((f"  {self.position + 1} of {len(self._steps)}", "$foreground-muted"))
            return Content.assemble(*parts)
        chosen_style = "bold $text-accent" if self.has_focus else "bold"
        for index, word in enumerate(words):
            parts.append((word, chosen_style if index == self.position else "$foreground-muted"))
        return Content.assemble(*parts)

    @property
    def _words(self) -> list[str]:
        """What each alternative is drawn as, in the widest form that has room; empty where none
        has."""
        texts = [text for _, text in self._steps]
        forms = (
            [
                f"({'•' if index == self.position else ' '}) {text}  "
                for index, text in enumerate(texts)
            ],
            [
                f"[{text}] " if index == self.position else f" {text}  "
                for index, text in enumerate(texts)
            ],
        )
        room = self.content_size.width - self._label_room
        return next((form for form in forms if sum(map(len, form)) - 2 <= room), [])

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """A click chooses what it hits."""
        self.focus()
        at = int(event.x) - self.gutter.left - self._label_room
        if at < 0:
            return
        words = self._words
        if not words:
            self._go((self.position + 1) % len(self._steps))
            return
        for index, word in enumerate(words):
            at -= len(word)
            if at < 0:
                self._go(index)
                return


class Check(Slider):
    """A box to tick; `steps` are the value and the words for "no" and for "yes"."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space",
            "tick",
            "Tick",
            id="check.toggle",
            tooltip="Tick or untick the box",
        ),
    ]

    def render(self) -> RenderResult:
        """The box and what it agrees to."""
        style = "bold $text-accent" if self.has_focus else ""
        return Content.assemble(
            self._labelled(), (f"[{'x' if self.position else ' '}] {self._steps[1][1]}", style)
        )

    def action_tick(self) -> None:
        """Yes for no, no for yes."""
        self._go(1 - self.position)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """A click ticks."""
        self.focus()
        self.action_tick()
