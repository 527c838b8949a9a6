"""How a plan drafts tokens, as a line: with the models that can draft for what is planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packager.shape import heads
from packager.units import human_bytes
from tui.widgets.profile_lines import SPECULATE
from tui.widgets.slider import Choice

if TYPE_CHECKING:
    from packager.plan.drafts import Proposal
    from packager.plan.plan import Plan


class DraftChoice(Choice):
    """Hidden until there is a model that can draft, or one was named."""

    def __init__(self) -> None:
        super().__init__("Speculate", list(SPECULATE), None, id="plan-draft", usual=None)
        self.display = False

    def offer(self, drafts: Sequence[Proposal], stands: str | None, plan: Plan) -> None:
        """Show the ways that need no other model, and each proposed one with what it takes in
        memory; `stands` is what was chosen, whatever that is."""
        shape = plan.chosen.variant.shape
        own = shape is not None and heads.may_have(shape)
        steps: list[tuple[str | None, str]] = [
            (value, text) for value, text in SPECULATE if value != "mtp" or own or stands == value
        ]
        for draft in drafts:
            name, size = draft.candidate.variant.name, human_bytes(draft.memory_bytes)
            steps.append((f"draft:{name}", f"{name}, {size}"))
        if stands not in [value for value, _ in steps]:
            steps.append((stands, str(stands).removeprefix("draft:")))
        self.show(steps, stands, None)
        self.display = bool(drafts) or str(stands).startswith("draft:")
