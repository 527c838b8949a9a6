"""The models that can draft for another one, as the plan offers them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from textual.pilot import Pilot

from packager.plan.drafts import Proposal
from packager.plan.plan import Plan
from packager.predict.memory import Drafting
from packager.units import human_bytes
from tests.support import tui_data as data
from tests.support.tui_helpers import drive, screen, text_of, until
from tui.ask import Ask
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.widgets.slider import Slider


def test_the_plan_offers_the_models_that_can_draft_and_counts_what_they_take() -> None:
    draft = Proposal(data.CHOSEN, Drafting(weights=400_000_000, kv_cache=50_000_000), 0.3)
    value = f"draft:{data.CHOSEN.variant.name}"

    def planned(_: Any, ask: Ask, *more: Any) -> Plan:
        if ask.profile.speculate != value:
            return data.PLAN
        prints = replace(data.CHOSEN.footprint, drafting=draft.drafting)
        return replace(data.PLAN, chosen=replace(data.CHOSEN, footprint=prints))

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        choice = plan.query_one("#plan-draft", Slider)
        await until(pilot, lambda: choice.display, "the line with the drafts")
        assert "drafting" not in text_of(pilot)
        choice.focus()
        await pilot.press("end")
        await until(pilot, lambda: "drafting" in text_of(pilot), "what the draft takes")
        assert choice.value == value and f"--speculate {value}" in plan.command
        assert "450 MB" in choice.text
        # Every figure of memory counts it or says that it does not.
        held = human_bytes(replace(data.CHOSEN.footprint, drafting=draft.drafting).peak)
        assert text_of(pilot).count(held) == 2, "at the peak, and in the package"
        assert "when it is full, without drafting" in text_of(pilot)
        await pilot.press("home")
        await until(pilot, lambda: "drafting" not in text_of(pilot), "the plan without")
        assert "--speculate" not in plan.command
        # Back in the need, the choice stands as it was made.
        asked = replace(data.ASK, profile=replace(data.ASK.profile, speculate=value))
        pilot.app.push_screen(NeedScreen(asked))
        need = await screen(pilot, NeedScreen)
        assert need.query_one("#speculate", Slider).value == value

    outlook = replace(data.OUTLOOK, drafts=(draft,))
    drive(walk, data.services(plan=planned, outlook=lambda *_: outlook), size=(200, 50))
