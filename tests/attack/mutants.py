"""Mutants read in forked workers: bounded in memory, stopped where they hang, every outcome
counted."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType

from packager.errors import PackError
from packager.process import peak_resident_bytes
from tests.attack.inputs import KINDS, Kind, Wrong

HANG_S = 10.0
"""Longer than this none may take, and least of all its CPU."""
MEMORY_BYTES = 1 << 30
"""More than this none may take beside what the worker itself has."""
_BATCH = 100
_SHOWN = 60


class Hang(BaseException):
    """The alarm: no `except Exception` on the way stops it."""


@dataclass
class Tally:
    """What became of the mutants, by outcome; `cases` are the first that should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    peak_bytes: int = 0
    cases: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """The other's in one sum with this."""
        self.counts += other.counts
        self.kinds += other.kinds
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = other.slowest_s, other.slowest
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.cases = [*self.cases, *other.cases][:_SHOWN]


@dataclass(frozen=True)
class Batch:
    """Mutants `start` to `start + count` of a kind under a seed."""

    kind: int
    start: int
    count: int
    seed: int


def batches(total: int, seed: int, kinds: Sequence[Kind] = KINDS) -> list[Batch]:
    """`total` mutants over all kinds, by their cost, in an order that follows from the seed."""
    weights = [1 / kind.cost for kind in kinds]
    made: list[Batch] = []
    for number, weight in enumerate(weights):
        left, start = max(3, round(total * weight / sum(weights))), 0
        while left:
            size = min(_BATCH if kinds[number].cost < 50 else 5, left)
            made.append(Batch(number, start, size, seed))
            start, left = start + size, left - size
    random.Random(seed).shuffle(made)
    return made


def attack(
    total: int,
    seed: int,
    workers: int = 2,
    kinds: Sequence[Kind] = KINDS,
    until: float | None = None,
) -> Tally:
    """Read `total` mutants in `workers` processes at a time; what has not begun at the moment
    `until` (of time.monotonic) is left out."""
    tally, waiting = Tally(), batches(total, seed, kinds)
    import_readers()
    with tempfile.TemporaryDirectory(prefix="qwen-pack-attack-") as folder:
        running: dict[int, tuple[Batch, Path]] = {}
        while waiting or running:
            while (
                waiting and len(running) < workers and (until is None or time.monotonic() < until)
            ):
                batch = waiting.pop()
                place = Path(tempfile.mkdtemp(dir=folder))
                running[_fork(batch, kinds[batch.kind], place)] = (batch, place)
            if not running:
                break
            pid, status = _ended(list(running))
            batch, place = running.pop(pid)
            tally.add(_outcome(batch, kinds[batch.kind], place, status))
            shutil.rmtree(place, ignore_errors=True)
    return tally


def _ended(pids: Sequence[int]) -> tuple[int, int]:
    """The first of these children that has ended, and its status; others are for who started
    them."""
    while True:
        for pid in pids:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return ended, status
        time.sleep(0.002)


def import_readers() -> None:
    """Before the workers are forked, which each would have to."""
    for name in (
        "PIL.Image",
        "fsspec",
        "huggingface_hub.hf_api",
        "jinja2",
        "tokenizers",
        "zstandard",
        "packager.quality.parity",
        "packager.pictures.decode",
        "packager.pipeline.shared_cache",
        "packager.report.compare",
        "packager.shipping.registry",
        "packager.sources.hub_listing",
        "packager.sweep.matrix",
        "targets.devices.device_file",
        "targets.gguf.imatrix",
        "targets.gguf.model_card",
        "targets.gguf.tokenizer",
        "tui.settings",
    ):
        import_module(name)


def _fork(batch: Batch, kind: Kind, place: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _limit()
        tally = _read(batch, kind, place)
        (place / "result").write_text(
            json.dumps(
                [tally.counts, tally.slowest_s, tally.slowest, tally.peak_bytes, tally.cases]
            )
        )
        code = 0
    except BaseException:
        (place / "died").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _limit() -> None:
    with open("/proc/self/statm") as status:
        mapped = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _alarm)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang


def _read(batch: Batch, kind: Kind, place: Path) -> Tally:
    tally = Tally()
    inside = place / "around" / "room"
    inside.mkdir(parents=True)
    seed = kind.seed(inside)
    known = _names(place / "around", inside)
    before = peak_resident_bytes()
    for number in range(batch.start, batch.start + batch.count):
        label = f"{kind.name} {batch.seed}:{number}"
        data = kind.mutant(random.Random(f"{batch.seed} {kind.name} {number}"), seed)
        (place / "now").write_text(label)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, HANG_S * 3)
        outcome, detail = _outcome_of(kind, inside, data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.process_time() - started
        if took > tally.slowest_s:
            tally.slowest_s, tally.slowest = took, label
        if took > HANG_S:
            outcome, detail = "hangs", f"{took:.1f} s"
        if _names(place / "around", inside) != known:
            outcome, detail = "files outside", "a file beside the folder"
            known = _names(place / "around", inside)
        if (inside / "in").exists():
            left = [path.name for path in (inside / "in").iterdir() if path.name[0] == "."]
            if left:
                outcome, detail = "leftovers", left[0]
            shutil.rmtree(inside / "in")
        tally.counts[outcome] += 1
        if outcome not in ("accepted", "refused"):
            tally.cases.append(f"{label}: {outcome}: {detail}")
    tally.peak_bytes = peak_resident_bytes() - before
    return tally


def _outcome_of(kind: Kind, folder: Path, data: bytes) -> tuple[str, str]:
    try:
        kind.read(folder, data)
    except PackError as error:
        return ("refused", "") if error.exit_code != 1 else ("tracebacks", str(error))
    except Hang:
        return "hangs", "did not end"
    except MemoryError:
        return "over memory", "memory ran out"
    except Wrong as error:
        return "wrong packages", str(error)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return "tracebacks", f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return "accepted", ""


def _names(folder: Path, inside: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path != inside}


def _outcome(batch: Batch, kind: Kind, place: Path, status: int) -> Tally:
    if (place / "result").exists():
        counts, slowest_s, slowest, peak, cases = json.loads((place / "result").read_text())
        tally = Tally(Counter(counts), Counter(), slowest_s, slowest, peak, cases)
    else:
        tally = Tally(Counter({"tracebacks": batch.count}))
        now = (place / "now").read_text() if (place / "now").exists() else kind.name
        died = (
            (place / "died").read_text()[-500:] if (place / "died").exists() else f"status {status}"
        )
        tally.cases = [f"{now}: the worker died: {died}"]
    tally.kinds[kind.name] = sum(tally.counts.values())
    if tally.peak_bytes > MEMORY_BYTES:
        tally.counts["over memory"] += 1
        tally.cases.append(f"{kind.name} {batch.seed}:{batch.start}: {tally.peak_bytes} bytes")
    return tally
