"""Pictures of the terminal interface for the README and the documentation, from a real build with
the real catalogue.

    python benchmarks/tui_pictures.py [--weights DIR] [--out docs/pictures]

Without --weights the checkpoint is random weights of a small Qwen3 shape, so the figures on the
result are real for that shape and mean nothing for a published variant; the pictures of device,
need, candidates and plan show the catalogue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from packager.cli.tui import services
from packager.device.target import Target
from tests.support.make_checkpoint import write_tiny
from tui.app import PackApp
from tui.ask import Ask
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.device import DeviceScreen
from tui.screens.need import NeedScreen
from tui.screens.plan import PlanScreen
from tui.services import Services

SIZE = (120, 34)


async def walk(app: PackApp, weights: Path, out: Path, scratch: Path) -> list[str]:
    """Device, need, candidates and plan of the catalogue; build, result and export of the
    checkpoint."""
    taken: list[str] = []

    def take(name: str) -> None:
        # Of the same length, as every text in the picture has its width beside it.
        stand_in = "/home/me/qwen-pack-work".ljust(len(str(scratch)), "-")[: len(str(scratch))]
        drawn = app.export_screenshot(title="qwen-pack tui").replace(str(scratch), stand_in)
        (out / f"{name}.svg").write_text(drawn, encoding="utf-8")
        taken.append(name)

    async with app.run_test(size=SIZE) as pilot:

        async def until(condition: Callable[[], Any]) -> Any:
            while not (value := condition()):
                await pilot.pause(0.05)
            await pilot.pause()
            return value

        device = app.screen
        await until(lambda: isinstance(app.screen, DeviceScreen) and app.screen._targets)
        device = app.screen
        assert isinstance(device, DeviceScreen)
        await pilot.press("slash", *"laptop", "enter", "j", "j")
        take("device")
        target = app.services.read_target("laptop-cpu")
        app.push_screen(NeedScreen(Ask(target)))
        await until(lambda: isinstance(app.screen, NeedScreen))
        await pilot.press("tab", "tab", "tab")
        take("need")
        table = CandidatesScreen(Ask(target))
        app.push_screen(table)
        found = await until(lambda: table.found)
        await pilot.press("j", "j")
        take("candidates")
        await pilot.press("p")
        await until(lambda: type(app.screen).__name__ == "ParetoScreen")
        take("pareto")
        await pilot.press("escape")
        plan = PlanScreen(found, found.chosen)
        app.push_screen(plan)
        await until(lambda: plan.checked or list(plan.query(".problem.-shown")))
        take("plan")

        # What is built is measured here, so it is predicted for this machine.
        own = CandidatesScreen(
            Ask(this_machine(app.services), weights=str(weights)).wishing(context=512)
        )
        app.push_screen(own)
        found = await until(lambda: own.found)
        candidate = next(one for one in found.candidates if one.recipe.id == "gguf:Q4_K_M")
        plan = PlanScreen(found, candidate)
        app.push_screen(plan)
        await until(lambda: plan.checked)
        build = BuildScreen(plan.checked.plan, plan.command) if plan.checked else None
        assert build is not None
        app.push_screen(build)
        await until(
            lambda: (
                (
                    build.progress.running
                    and build.progress.running.name == "convert"
                    and (build.progress.running.share or 0) > 0.4
                )
                or not build.progress.busy
            )
        )
        take("build")
        await until(lambda: type(app.screen).__name__ == "ResultScreen" or build.progress.failure)
        if build.progress.failure:
            raise SystemExit(f"the build failed: {build.progress.failure}")
        await pilot.pause(0.2)
        take("result")
        await pilot.press("e")
        await until(lambda: type(app.screen).__name__ == "ExportScreen")
        await pilot.press("j")
        app.screen.query_one("#export-licence").focus()
        await pilot.press("l", "w")
        await until(
            lambda: (
                getattr(app.screen, "exported", None) or list(app.screen.query(".problem.-shown"))
            )
        )
        take("export")
    return taken


def this_machine(known: Services) -> Target:
    """This machine as a target, measured."""
    work = known.measure_machine()
    while True:
        try:
            next(work)
        except StopIteration as end:
            target: Target = end.value
            return target


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, help="a checkpoint's folder")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qwen-pack-") as folder:
        os.environ["QWEN_PACK_CACHE"] = f"{folder}/cache"
        weights = given.weights or write_tiny(
            Path(folder) / "qwen3-small",
            layers=8,
            hidden=512,
            heads=8,
            kv_heads=4,
            head_dim=64,
            intermediate=1536,
            vocab=151936,
        )
        app = PackApp(replace(services(), folder=Path(folder) / "packages"))
        taken = asyncio.run(walk(app, weights, given.out, Path(folder)))
    print(json.dumps({"pictures": [f"{name}.svg" for name in taken], "out": str(given.out)}))


if __name__ == "__main__":
    main()
