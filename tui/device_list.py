"""The list of devices without a screen: by kind, with the memory that one model may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets.option_list import Option

from tui.icons import KINDS, order

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.lab.seen import Seen


LAB = "lab "
"""What the ids of machines begin with; no device has a space in its name."""


def lab_rows(machines: Sequence[Seen], words: str, room: int) -> list[Option]:
    """The machines of the lab whose name, address or devices hold every word, in `room` cells."""
    wanted = words.casefold().split()
    options: list[Option] = []
    for row in machines:
        text = f"{row.name} {row.address} {row.device} {' '.join(row.targets)} lab".casefold()
        if not all(word in text for word in wanted):
            continue
        memory = f"{(row.memory_bytes or 0) / 1e9:.3g} GB" if row.reached else "no answer"
        label = row.label
        most = room - len(memory) - 2
        label = label if len(label) <= most else label[: most - 1] + "…"
        gap = " " * max(1, room - len(label) - len(memory) - 1)
        options.append(Option(Content(f"{label}{gap}{memory}"), id=f"{LAB}{row.address}"))
    if options:
        head = Content.styled("─ Machines of the lab ", "$foreground-muted")
        options.insert(0, Option(head, disabled=True))
    return options


def rows(targets: Sequence[Target], words: str, room: int) -> list[Option]:
    """The devices whose name, summary or kind hold every word, in `room` cells, below the name of
    their kind."""
    wanted = words.casefold().split()
    options: list[Option] = []
    last = ""
    for one in sorted(targets, key=lambda one: (order(one.kind), one.kind, one.name)):
        text = f"{one.name} {one.summary} {one.kind}".casefold()
        if not all(word in text for word in wanted):
            continue
        if one.kind != last:
            head = Content.styled(f"─ {KINDS.get(one.kind, one.kind)} ", "$foreground-muted")
            options.append(Option(head, disabled=True))
            last = one.kind
        memory = f"{one.device.all_available_bytes / 1e9:.3g} GB"
        gap = " " * max(1, room - len(one.name) - len(memory) - 1)
        options.append(Option(Content(f"{one.name}{gap}{memory}"), id=one.name))
    return options
