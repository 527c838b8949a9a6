"""How fast the terminal interface answers: first paint, keys while a build runs, typing into the
filter of 1,000 candidates, and what a key costs on a raw terminal.

    python benchmarks/tui_latency.py [--starts 7] [--keys 200]
    python benchmarks/tui_latency.py --raw [--before PYTHON]

`--raw` measures the raw terminal alone: bytes and CPU time, which a busy machine does not change
much. `--before` names the interpreter of another installation, whose figures then stand beside.

First paint is a fresh process on a pseudo terminal, from exec to the first frame with words in it.
Keys and filter run in one process without a terminal: from the key to the screen being up to date
again (every message that followed from it processed and drawn). The build is a real one, of random
weights in the true shape of Qwen3-0.6B, whose engine takes all cores. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pty
import select
import signal
import statistics
import struct
import sys
import tempfile
import time
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from packager.cli.tui import services
from tests.support.raw_terminal import RawTerminal
from tui.app import PackApp
from tui.ask import Ask
from tui.core import Found, find
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.plan import PlanScreen

BARS = {
    "first_paint_s": 0.6,
    "key_p95_ms": 50.0,
    "filter_p95_ms": 50.0,
    "device_arrow_bytes": 4096,
    "idle_bytes_per_s": 200,
}
LEAST_CANDIDATES = 1000
RAW_KEYS = 8


def first_paint() -> float:
    """Seconds from the start of a fresh process to the first frame that names the first step."""
    started = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        os.execv(sys.executable, [sys.executable, "-m", "packager.cli", "tui"])
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    seen = b""
    try:
        while b"1 Device" not in seen:
            if not select.select([terminal], [], [], 30)[0]:
                raise SystemExit(f"no first paint: {seen[-500:]!r}")
            seen += os.read(terminal, 65536)
        return time.perf_counter() - started
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


async def press(pilot: Any, key: str) -> float:
    """Milliseconds from a key to the screen being up to date."""
    started = time.perf_counter()
    app = pilot.app
    await pilot._wait_for_screen()
    app.simulate_key(key)
    await pilot._wait_for_screen()
    done = asyncio.Event()
    # Runs once everything that waits before it is done and the frame is out.
    app.screen.call_after_refresh(done.set)
    await done.wait()
    return (time.perf_counter() - started) * 1000


async def keys_during_a_build(folder: Path, count: int) -> tuple[list[float], str]:
    """Latencies of keys on the table of candidates while a build runs below it, and how far the
    build was at the end."""
    app = PackApp(replace(services(), folder=folder))
    async with app.run_test(size=(120, 36)) as pilot:
        ask = Ask(app.services.read_target("cpu-gguf"), weights="dummy")
        app.push_screen(CandidatesScreen(ask))
        while not isinstance(app.screen, CandidatesScreen) or app.screen.found is None:
            await pilot.pause(0.05)
        found = app.screen.found
        candidate = next(
            one
            for one in found.candidates
            if one.variant.name == "Qwen3-0.6B" and one.recipe.id == "gguf:Q4_K_M"
        )
        app.push_screen(PlanScreen(found, candidate))
        while not isinstance(app.screen, PlanScreen) or app.screen.checked is None:
            await pilot.pause(0.05)
        build = BuildScreen(app.screen.checked.plan, "")
        await app.push_screen(build)
        while build.progress.running is None:
            await pilot.pause(0.02)
        # The table on top of the running build: the busiest of the screens, while events keep
        # coming below.
        table = CandidatesScreen(ask)
        await app.push_screen(table)
        while table.found is None:
            await pilot.pause(0.05)
        await pilot.pause(0.3)
        times = []
        for index in range(count):
            if not build.progress.busy:
                break
            times.append(await press(pilot, "k" if index // 20 % 2 else "j"))
        stage = build.progress.running.name if build.progress.running else build.progress.state
        build.action_cancel()
        while build.progress.busy:
            await pilot.pause(0.05)
        return times, stage


async def typing() -> tuple[list[float], int, float]:
    """Latencies of letters typed into the filter, the number of candidates, and seconds their
    computation took."""
    given = services()
    answers: list[Found] = []

    def widened(services: Any, ask: Ask) -> Found:
        """The real answer, repeated under other names where the catalogue has fewer than a
        thousand."""
        found = find(services, ask)
        answers.append(found)
        rows = found.candidates
        while len(rows) < LEAST_CANDIDATES:
            rows += found.candidates
        return replace(found, candidates=rows)

    app = PackApp(replace(given, find=widened))
    async with app.run_test(size=(120, 36)) as pilot:
        app.push_screen(CandidatesScreen(Ask(given.read_target("laptop-cpu"))))
        while not isinstance(app.screen, CandidatesScreen) or app.screen.found is None:
            await pilot.pause(0.05)
        rows = len(app.screen.found.candidates)
        await pilot.press("slash")
        times = []
        for word in ("qwen3 4b q4_k", "openvino int8", "memory", "instruct gguf"):
            letters = [
                "space" if letter == " " else letter if letter.isalnum() else "underscore"
                for letter in word
            ]
            times += [await press(pilot, key) for key in (*letters, *["backspace"] * len(word))]
        return times, rows, answers[0].seconds


def on_a_raw_terminal(python: str = sys.executable) -> dict[str, Any]:
    """Bytes of the first screen, bytes (median) and CPU milliseconds (mean) of an arrow on Device,
    of Tab on Need and of an arrow on Candidates, idle bytes a second; of the installation of that
    interpreter."""
    with tempfile.TemporaryDirectory() as folder, RawTerminal(python=python) as terminal:
        os.environ["QWEN_PACK_CACHE"] = folder
        terminal.until("1 Device")
        terminal.read()
        start = len(terminal.seen)
        presses = {}
        # The first arrow leaves this machine, whose picture is another one.
        terminal.press("j")
        presses["device_arrow"] = [terminal.press("j") for _ in range(RAW_KEYS)]
        idle = terminal.idle(5)
        terminal.press("\r")
        presses["need_tab"] = [terminal.press("\t") for _ in range(RAW_KEYS)]
        terminal.press("\x1b[Z" * RAW_KEYS)
        terminal.press("n")
        terminal.until("variant")
        terminal.read(quiet_s=1.5)
        presses["candidates_arrow"] = [terminal.press("j") for _ in range(RAW_KEYS)]
    found = {"first_screen_bytes": start, "idle_bytes_per_s": round(idle)}
    for name, each in presses.items():
        found[f"{name}_bytes"] = round(statistics.median(count for count, _ in each))
        found[f"{name}_cpu_ms"] = round(statistics.mean(spent for _, spent in each))
    return found


def print_raw(figures: dict[str, Any], head: str = "") -> None:
    """A line per key of the raw terminal."""
    if head:
        print(head)
    bar = BARS["device_arrow_bytes"]
    for name, title, limit in (
        ("device_arrow", "arrow on Device", f"bar {bar} B, "),
        ("need_tab", "Tab on Need", ""),
        ("candidates_arrow", "arrow on Candidates", ""),
    ):
        count, spent = figures[f"{name}_bytes"], figures[f"{name}_cpu_ms"]
        print(f"{title:<20} {count:6.0f} B    {limit}{spent} ms of CPU time")
    print(f"first screen         {figures['first_screen_bytes']:6.0f} B")
    print(
        f"idle                 {figures['idle_bytes_per_s']:6.0f} B/s  bar "
        f"{BARS['idle_bytes_per_s']} B/s"
    )


def raw_alone(before: str | None) -> None:
    """The figures of the raw terminal alone, beside those of another installation where there is
    one; the last line is one JSON object."""
    found = {"after": on_a_raw_terminal()}
    if before:
        found = {"before": on_a_raw_terminal(before), **found}
    for name, figures in found.items():
        print_raw(figures, name if before else "")
    print(json.dumps({"benchmark": "tui_latency", **found}))


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--raw", action="store_true", help="the raw terminal alone")
    parser.add_argument("--before", metavar="PYTHON", help="interpreter of another installation")
    given = parser.parse_args()
    if given.raw:
        raw_alone(given.before)
        return
    first_paint()  # warms the file cache and the byte code
    paints = [first_paint() for _ in range(given.starts)]
    letters, rows, seconds = asyncio.run(typing())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QWEN_PACK_CACHE"] = f"{folder}/cache"
        keys, stage = asyncio.run(keys_during_a_build(Path(folder), given.keys))
    figures = {
        "first_paint_s": round(statistics.median(paints), 3),
        "key_median_ms": round(statistics.median(keys), 1),
        "key_p95_ms": round(p95(keys), 1),
        "filter_median_ms": round(statistics.median(letters), 1),
        "filter_p95_ms": round(p95(letters), 1),
        **on_a_raw_terminal(),
    }
    print(
        f"first paint          {figures['first_paint_s']:6.3f} s    bar {BARS['first_paint_s']} s, "
        f"median of {given.starts} starts"
    )
    print(
        f"key during a build   {figures['key_p95_ms']:6.1f} ms   bar {BARS['key_p95_ms']:.0f} ms, "
        f"P95 of {len(keys)} keys, up to {stage}"
    )
    print(
        f"letter in the filter {figures['filter_p95_ms']:6.1f} ms   bar "
        f"{BARS['filter_p95_ms']:.0f} ms, P95 over {rows} candidates"
    )
    print(f"candidates computed  {seconds:6.3f} s    behind the screen")
    print_raw(figures)
    load = os.getloadavg()[0]
    passed = all(figures[name] <= bar for name, bar in BARS.items())
    print(
        json.dumps(
            {
                "benchmark": "tui_latency",
                **figures,
                "keys": len(keys),
                "candidates": rows,
                "candidates_s": round(seconds, 3),
                "load_1min": round(load, 2),
                "bars": BARS,
                "passed": passed,
            }
        )
    )


if __name__ == "__main__":
    main()
