"""Timed answers of one loaded model: greedy decoding of fresh prompts, every token's time kept."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packager.errors import bad_input
from packager.measure.gauges.energy import Meter
from packager.records import Measurement
from packager.session import Session, Stamped

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Trial:
    """One answer: seconds to the first token, and seconds between the tokens after it; joules where
    a meter counted them."""

    ttft_s: float
    gaps_s: tuple[float, ...]
    tokens: tuple[int, ...]
    prompt_j: float = 0.0
    decode_j: float = 0.0


def answer(
    model: Session, prompt: Sequence[int], new_tokens: int, meter: Meter | None = None
) -> Trial:
    """Answer one prompt with exactly `new_tokens` tokens. Times hold the engine's own work only."""
    stamps: list[float] = []
    tokens: list[int] = []
    joules: list[float] = []

    own = model if isinstance(model, Stamped) else None

    def on_token(token: int) -> None:
        stamps.append(own.stamp() if own else time.perf_counter())
        tokens.append(token)
        if meter is not None and len(stamps) == 1:
            joules.append(meter.joules())

    before = meter.joules() if meter else 0.0
    start = time.perf_counter()
    model.generate(prompt, new_tokens, on_token, stop=False)
    if own:
        start = own.began()
    if len(tokens) != new_tokens:
        raise bad_input(
            f"The engine returned {len(tokens)} tokens instead of {new_tokens}.",
            "The artifact is broken: build it again.",
        )
    spent = (joules[0] - before, meter.joules() - joules[0]) if meter else (0.0, 0.0)
    return Trial(
        stamps[0] - start,
        tuple(b - a for a, b in itertools.pairwise(stamps)),
        tuple(tokens),
        *spent,
    )


def summary(trials: list[Trial], prompt_tokens: int, new_tokens: int) -> Measurement:
    """What the trials say: medians over trials for rates, over all tokens for latencies.

    The first token comes out of the prefill itself, so `prefill_tps` is the prompt over the time to
    the first token. `token_ms` keeps every time between two tokens, one list per trial. `spread` is
    the distance between the upper and the lower quartile of the trials' decode rates as part of
    their median, `ttft_spread` the same of the first tokens.
    """
    gaps = sorted(gap for trial in trials for gap in trial.gaps_s)
    decode = sorted(len(trial.gaps_s) / sum(trial.gaps_s) for trial in trials)
    first = sorted(trial.ttft_s for trial in trials)
    ttft = statistics.median(first)
    return Measurement(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=len(trials),
        ttft_ms=ttft * 1000,
        ttft_ms_p95=percentile(first, 0.95) * 1000,
        ttft_ms_p99=percentile(first, 0.99) * 1000,
        prefill_tps=prompt_tokens / ttft,
        decode_tps=statistics.median(decode),
        token_ms_median=statistics.median(gaps) * 1000,
        token_ms_p95=percentile(gaps, 0.95) * 1000,
        token_ms_p99=percentile(gaps, 0.99) * 1000,
        token_ms=tuple(tuple(round(gap * 1000, 3) for gap in trial.gaps_s) for trial in trials),
        spread=quartile_spread(decode),
        ttft_spread=quartile_spread(first),
    )


def quartile_spread(ordered: list[float]) -> float:
    """The distance between the quartiles as part of the median: one hiccup among five does not move
    it, as it does not move the median."""
    return (percentile(ordered, 0.75) - percentile(ordered, 0.25)) / statistics.median(ordered)


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def prompt_ids(model: Session, count: int, seed: int) -> list[int]:
    """Exactly `count` token ids of made-up words, another text for every seed from the first word
    on."""
    return words_of(model.encode, count, seed)


def words_of(encode: Callable[[str], list[int]], count: int, seed: int) -> list[int]:
    """The same by a function from text to ids. Raises PackError (bad input) for one that makes
    none."""
    words = random.Random(seed)
    ids: list[int] = []
    while len(ids) < count:
        text = " ".join(
            "".join(words.choices(_LETTERS, k=words.randint(2, 9))) for _ in range(count)
        )
        more = encode(text)
        if not more:
            raise bad_input(
                "The tokenizer of the artifact turns words into no tokens.",
                "Build it again from a checkpoint with its own tokenizer.",
            )
        ids += more
    return ids[:count]
