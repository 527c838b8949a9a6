"""What the workers of the device screen tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.lab.seen import Seen


class Loaded(Message):
    """The targets are read, and this machine where it was measured before."""

    def __init__(self, targets: tuple[Target, ...], here: Target | None) -> None:
        super().__init__()
        self.targets, self.here = targets, here


class Answered(Message):
    """The machines of the lab have answered."""

    def __init__(self, machines: tuple[Seen, ...]) -> None:
        super().__init__()
        self.machines = machines


class Said(Message):
    """A sentence of the measurement that runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Measured(Message):
    """This machine as a target; None where the measurement was cancelled."""

    def __init__(self, target: Target | None) -> None:
        super().__init__()
        self.target = target


class Read(Message):
    """A device file that was named."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
