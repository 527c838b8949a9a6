"""`python -m tests.attack`: the whole campaign, and its figures as one JSON object at the end."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.attack import kills, mutants
from tests.attack.commands import ground
from tests.attack.inputs import KINDS
from tests.attack.servers import SERVERS
from tests.attack.tabs import soak_tabs

_BAD = ("tracebacks", "hangs", "over memory", "wrong packages", "leftovers", "files outside")
_BAD_RUNS = ("tracebacks", "wrong packages", "leftovers", "wrong exit codes", "next runs that fail")


def main() -> int:
    """Exit code 0 where nothing was found, 4 where something was."""
    flags = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--mutants", type=int, default=30_000)
    flags.add_argument("--answers", type=int, default=600, help="of hubs and registries")
    flags.add_argument("--kills", type=int, default=300)
    flags.add_argument("--limits", type=int, default=60, help="full disks, low memory, few files")
    flags.add_argument("--soak", type=int, default=100, help="rounds of fit, verify and run")
    flags.add_argument("--tabs", type=int, default=60, help="of the served interface")
    flags.add_argument("--minutes", type=float, default=60, help="nothing new begins after so many")
    asked = flags.parse_args()
    began = time.monotonic()
    until = began + asked.minutes * 60
    figures: dict[str, Any] = {"schema": "qwen-pack/attack/1", "seed": asked.seed}
    workers = os.cpu_count() or 2
    if asked.mutants:
        _say(f"{asked.mutants} mutants of {len(KINDS)} kinds")
        figures["mutants"] = _mutants(
            mutants.attack(asked.mutants, asked.seed, workers, until=until)
        )
    if asked.answers:
        _say(f"{asked.answers} answers of hubs and registries")
        answers = mutants.attack(asked.answers, asked.seed, workers, SERVERS, until)
        figures["answers"] = _mutants(answers)
    if asked.tabs:
        _say(f"{asked.tabs} tabs")
        with tempfile.TemporaryDirectory(prefix="qwen-pack-attack-") as cache:
            tabs = soak_tabs(asked.tabs, Path(cache))
        figures["tabs"] = {**asdict(tabs), "passed": not tabs.grew}
    if asked.kills or asked.limits or asked.soak:
        folder = Path(tempfile.mkdtemp(prefix="qwen-pack-attack-"))
        try:
            with ground(folder) as place:
                _say(f"{asked.kills} kills, {asked.limits} runs short of something")
                found = kills.attack(place, asked.kills, asked.limits, asked.seed, until)
                figures["kills"] = _kills(found)
                if asked.soak:
                    _say(f"{asked.soak} rounds of fit, verify and run")
                    figures["soak"] = _soak(place.package, place.cache, asked.soak)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    figures["seconds"] = round(time.monotonic() - began, 1)
    figures["passed"] = all(
        part.get("passed", True) for part in figures.values() if isinstance(part, dict)
    )
    print(json.dumps(figures, indent=2))
    return 0 if figures["passed"] else 4


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _mutants(tally: mutants.Tally) -> dict[str, Any]:
    return {
        "read": sum(tally.kinds.values()),
        "kinds": dict(sorted(tally.kinds.items())),
        **{name: tally.counts[name] for name in ("accepted", "refused", *_BAD)},
        "slowest_cpu_s": round(tally.slowest_s, 3),
        "slowest": tally.slowest,
        "peak_memory_bytes": tally.peak_bytes,
        "cases": tally.cases,
        "passed": not any(tally.counts[name] for name in _BAD),
    }


def _kills(result: kills.Result) -> dict[str, Any]:
    return {
        "commands": sum(result.ended.values()),
        "ended": dict(sorted(result.ended.items())),
        **{name: result.counts[name] for name in _BAD_RUNS},
        "cases": result.cases,
        "passed": not any(result.counts[name] for name in _BAD_RUNS),
    }


def _soak(package: Path, cache: Path, rounds: int) -> dict[str, Any]:
    """In a process of its own, whose memory is that of the commands alone."""
    code = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path; "
        "from tests.attack.soak import soak; found = soak(Path(sys.argv[1]), int(sys.argv[2])); "
        "print(json.dumps({**asdict(found), 'passed': not found.grew}))"
    )
    with tempfile.TemporaryDirectory(prefix="qwen-pack-soak-") as scratch:
        done = subprocess.run(
            [sys.executable, "-c", code, str(package), str(rounds)],
            env={
                **os.environ,
                "QWEN_PACK_CACHE": str(cache),
                "TMPDIR": scratch,
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return {"passed": False, "cases": [done.stderr[-2000:]]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
