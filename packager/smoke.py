"""The smoke benchmark: one loaded model, fresh prompts, greedy decoding, every token's time kept.

`measure` is a job for a child process; the session class of the runtime reaches it by its dotted name.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from packager.errors import ExitCode, PackError, bad_input
from packager.machine import describe_machine
from packager.process import peak_resident_bytes, resident_bytes, resolve
from packager.runtime import Report, Session

VERSION = 3
"""Raised when the same artifact would give other figures: cached measurements of older versions are not used."""

NEW_TOKENS = 64
REPEATS = 3

_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Half a core taken by others, or a fifth between the fastest and the slowest trial, moves a median further than
# the figures are meant to be read: beyond either the measurement is marked noisy.
_BUSY_CORES = 0.5
_WIDE_SPREAD = 0.2


@dataclass(frozen=True, slots=True)
class Trial:
    """One answer: seconds to the first token, and seconds between the tokens after it."""

    ttft_s: float
    gaps_s: tuple[float, ...]
    tokens: tuple[int, ...]


def measure(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    seed: int = 1,
) -> dict[str, Any]:
    """Measure a model; see `summary` for the fields.

    The first prompt is answered twice to see that greedy decoding repeats itself; every other prompt is new,
    so no prefix cache can shorten the time to the first token. Times hold the engine's own work only.
    """
    make = resolve(session)  # which imports the engine: no part of loading a model
    busy_before = _other_cpu_seconds()
    started = time.monotonic()
    loading = time.perf_counter()
    model: Session = make(artifact, settings)
    load_s = time.perf_counter() - loading
    report.note(f"loaded in {load_s:.1f} s")
    total = repeats + 2
    try:
        prompts = [prompt_ids(model, prompt_tokens, seed + number) for number in range(repeats + 1)]
        _trial(model, prompts[0][: max(1, prompt_tokens // 8)], 4)
        report.progress(1, total, "answers")
        trials = []
        for number, prompt in enumerate(prompts[1:], 1):
            trials.append(_trial(model, prompt, new_tokens))
            report.progress(number + 1, total, "answers")
        again = _trial(model, prompts[1], new_tokens)
        report.progress(total, total, "answers")
        steady = resident_bytes()
    finally:
        model.close()
    if again.tokens != trials[0].tokens:
        raise PackError(
            "Greedy decoding gave two different answers to one prompt.", "The engine or the artifact is broken.", ExitCode.BUDGET
        )
    elapsed = time.monotonic() - started
    busy_after = _other_cpu_seconds()
    others = None if busy_before is None or busy_after is None else max(0.0, busy_after - busy_before) / elapsed
    figures = summary(trials, prompt_tokens, new_tokens)
    return {
        "load_s": load_s,
        **figures,
        "peak_memory_bytes": peak_resident_bytes(),
        "steady_memory_bytes": steady,
        "deterministic": True,
        "threads": getattr(model, "threads", settings.get("threads")),
        "machine": describe_machine(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "other_cpu_cores": others,
        "noisy": figures["spread"] > _WIDE_SPREAD or (others or 0.0) > _BUSY_CORES,
    }


def summary(trials: list[Trial], prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """What the trials say: medians over trials for rates, over all tokens for latencies.

    `prefill_tps` divides the prompt by the whole time to the first token, so it holds one decoding step too.
    `token_ms` keeps every time between two tokens, one list per trial.
    `spread` is the distance between the fastest and the slowest trial's decode rate, as part of the median.
    """
    gaps = sorted(gap for trial in trials for gap in trial.gaps_s)
    decode = [len(trial.gaps_s) / sum(trial.gaps_s) for trial in trials]
    ttft = statistics.median(trial.ttft_s for trial in trials)
    median = statistics.median(decode)
    return {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "repeats": len(trials),
        "ttft_ms": ttft * 1000,
        "prefill_tps": prompt_tokens / ttft,
        "decode_tps": median,
        "token_ms_median": statistics.median(gaps) * 1000,
        "token_ms_p95": percentile(gaps, 0.95) * 1000,
        "token_ms": [[round(gap * 1000, 3) for gap in trial.gaps_s] for trial in trials],
        "spread": (max(decode) - min(decode)) / median,
    }


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def prompt_ids(model: Session, count: int, seed: int) -> list[int]:
    """Exactly `count` token ids of made-up words, another text for every seed from the first word on."""
    words = random.Random(seed)
    ids: list[int] = []
    while len(ids) < count:
        text = " ".join("".join(words.choices(_LETTERS, k=words.randint(2, 9))) for _ in range(count))
        more = model.encode(text)
        if not more:
            raise bad_input(
                "The tokenizer of the artifact makes no tokens of words.", "Build it again from a checkpoint with its own tokenizer."
            )
        ids += more
    return ids[:count]


def _trial(model: Session, prompt: list[int], new_tokens: int) -> Trial:
    stamps: list[float] = []
    tokens: list[int] = []

    def on_token(token: int) -> None:
        stamps.append(time.perf_counter())
        tokens.append(token)

    start = time.perf_counter()
    model.generate(prompt, new_tokens, on_token, stop=False)
    if len(tokens) != new_tokens:
        raise bad_input(f"The engine returned {len(tokens)} tokens instead of {new_tokens}.", "The artifact is broken: build it again.")
    return Trial(stamps[0] - start, tuple(b - a for a, b in itertools.pairwise(stamps)), tuple(tokens))


def _other_cpu_seconds() -> float | None:
    """Processor seconds that everybody but this process has used since the machine started; None where nobody tells."""
    try:
        with open("/proc/stat") as stat:
            busy = busy_ticks(stat.readline())
    except (OSError, ValueError, IndexError):
        return None
    own = os.times()
    return busy / os.sysconf("SC_CLK_TCK") - own.user - own.system


def busy_ticks(line: str) -> int:
    """Ticks in which the cores of a `cpu` line of Linux's /proc/stat were not free for us.

    user, nice, system, irq, softirq, and steal: the time in which the host of a virtual machine ran other guests on
    them. Not idle and iowait; guest and guest_nice are counted in user and nice already. Source: proc_stat(5).
    """
    fields = [int(field) for field in line.split()[1:]]
    return sum(fields[index] for index in (0, 1, 2, 5, 6, 7))
