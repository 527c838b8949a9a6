"""A choice on a line of steps: `‹ 4,096 tokens ›` with a track, moved by arrows, h and l, digits'
ends, or the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


class Slider(Widget, can_focus=True):
    """One of `steps`, pairs of a value and how it reads. Posts Moved when the value changes by
    hand."""

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
            "right,l,plus", "move(1)", "More", id="slider.more", tooltip="One step up", show=False
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
    ) -> None:
        """`room` are the cells of the label and of the value, so that tracks below each other line
        up."""
        super().__init__(id=id)
        self._label_room, self._value_room = room
        self.label = label
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

    def show(self, steps: Sequence[tuple[Any, str]], value: Any) -> None:
        """Take other steps and stand at `value`; says nothing, as no hand moved it."""
        self._steps = list(steps)
        self.set_reactive(Slider.position, self._place(value))
        self.refresh()

    def _place(self, value: Any) -> int:
        return next((index for index, (step, _) in enumerate(self._steps) if step == value), 0)

    def render(self) -> RenderResult:
        """Label, track with the knob, value; the arrows show that it can be moved."""
        track = max(0, self.content_size.width - self._label_room - self._value_room)
        last = max(1, len(self._steps) - 1)
        knob = round(self.position * max(0, track - 1) / last)
        line = "━" * knob + "●" + "─" * max(0, track - knob - 1) if track > 4 else ""
        arrows = ("‹", "›") if self.has_focus else (" ", " ")
        return Content.assemble(
            (self.label.ljust(self._label_room), "bold" if self.has_focus else ""),
            (f"{line} " if line else "", "$primary" if self.has_focus else "$foreground-muted"),
            (arrows[0], "bold $accent"),
            f" {self.text} ",
            (arrows[1], "bold $accent"),
        )

    def action_move(self, steps: int) -> None:
        """So many steps up or down, as far as there are any."""
        self._go(self.position + steps)

    def action_end(self, index: int) -> None:
        """To the first step (0) or the last (-1)."""
        self._go(index % len(self._steps))

    def on_click(self, event: events.Click) -> None:
        """A click on the left half of the rest of the line is a step down, on the right half a step
        up."""
        offset = event.get_content_offset(self)
        if offset is not None and offset.x > self._label_room:
            self.action_move(
                1 if offset.x > (self._label_room + self.content_size.width) // 2 else -1
            )

    def _go(self, index: int) -> None:
        index = min(len(self._steps) - 1, max(0, index))
        if index != self.position:
            self.position = index
            self.post_message(self.Moved(self, self.value))
