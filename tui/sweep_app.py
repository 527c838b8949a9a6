"""The terminal interface that begins with a sweep: `qwen-pack sweep --tui`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.app import PackApp
from tui.screens.sweep import Job, SweepScreen

if TYPE_CHECKING:
    from textual.screen import Screen

    from tui.services import Services
    from tui.settings import Settings
    from tui.sweep import Sweep


class SweepApp(PackApp):
    """Shows a sweep; with a state of it nothing is started."""

    def __init__(
        self,
        services: Services,
        job: Job,
        settings: Settings | None = None,
        state: Sweep | None = None,
    ) -> None:
        super().__init__(services, settings)
        self._job, self._state = job, state
        self.outcome: Sweep | None = None
        """The sweep as it stood at its end."""

    def first_screen(self) -> Screen[None]:
        """The sweep."""
        return SweepScreen(self._job, self._state, self._ended)

    def _ended(self, sweep: Sweep) -> None:
        self.outcome = sweep
