"""Rules about speed: the rate of an answer and the wait for its first token, with their ranges."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from packager.need.usecases import UseCase, answer_tokens, thinking_tokens
from packager.need.workload import Workload
from packager.predict.forecast import Forecast
from packager.select.candidate import Reason
from packager.units import human_rate

if TYPE_CHECKING:
    from packager.catalog import Variant

QUERY_TOKENS = 32
"""A query with its instruction, as packager.measure.retrieval times it."""


def waiting(forecast: Forecast, variant: Variant, case: UseCase) -> Forecast:
    """The forecast with the thinking before an answer in its first token, for a variant that always
    thinks.

    Not where the use case wants thinking, which is then shown as it comes.
    """
    if variant.thinking != "always" or case.modes[0] == "thinking":
        return forecast
    tokens = 1000 * thinking_tokens()
    return replace(
        forecast,
        ttft_ms=round(forecast.ttft_ms + tokens / forecast.decode_tps, 3),
        ttft_low_ms=round(forecast.ttft_low_ms + tokens / forecast.high, 3),
        ttft_high_ms=round(forecast.ttft_high_ms + tokens / forecast.low, 3),
    )


def machine_seconds(forecast: Forecast, variant: Variant, case: UseCase, prompt: int) -> float:
    """What a usual answer takes of the machine's time: its prompt with a picture or sound, which
    are read for it alone, and its tokens, those of thinking before it too, at the rate of all
    sequences together. What becomes a vector or a score is read alone."""
    reading = prompt / forecast.prefill_tps
    if forecast.encode is not None:
        reading += forecast.encode.value / 1000
    if case.task != "generate":
        return reading
    thinks = variant.thinking == "always" or (
        variant.thinking == "switch" and case.modes[0] == "thinking"
    )
    tokens = answer_tokens() + (thinking_tokens() if thinks else 0)
    return reading + tokens / forecast.aggregate_tps


def of_speed(forecast: Forecast, workload: Workload) -> Iterator[Reason]:
    """Rules about rates and waiting that not even the better end of the forecast's range meets."""
    yield from decode(forecast, workload, forecast.high)
    yield from first_token(forecast, workload, forecast.ttft_low_ms)
    yield from _of_texts(forecast, workload, best=True)


def may_miss(
    forecast: Forecast, workload: Workload, surely: Collection[Reason]
) -> Iterator[Reason]:
    """Those that the forecast misses while its range reaches them: how far off it is, and between
    what it lies. `surely` are those of `of_speed`."""
    missed = (
        *decode(forecast, workload, forecast.decode_tps),
        *first_token(forecast, workload, forecast.ttft_ms),
        *_of_texts(forecast, workload, best=False),
    )
    rules = {reason.rule for reason in surely}
    reasons = [reason for reason in missed if reason.rule not in rules]
    if not reasons:
        return
    texts, query = forecast.documents_per_second(workload.prompt), forecast.text_ms(QUERY_TOKENS)
    ranges = {
        "documents": f"between {human_rate(texts.low)} and {human_rate(texts.high)}",
        "query": f"between {query.low:.0f} and {query.high:.0f} ms",
        "decode": f"between {human_rate(forecast.low)} and {human_rate(forecast.high)}",
        "ttft": f"between {forecast.ttft_low_ms:.0f} and {forecast.ttft_high_ms:.0f} ms",
    }
    for reason in reasons:
        yield replace(reason, has=f"{reason.has}, {ranges[reason.rule]}")


def decode(forecast: Forecast, workload: Workload, rate: float) -> Iterator[Reason]:
    """Answers must come at the rate asked for; `rate` is what counts as the rate that there is."""
    floor = workload.min_decode_tps
    if floor is not None and rate < floor:
        yield Reason(
            "decode",
            f"{human_rate(floor, 6)} tok/s",
            f"{human_rate(forecast.decode_tps)} tok/s",
            floor,
            forecast.decode_tps,
        )


def first_token(forecast: Forecast, workload: Workload, wait: float) -> Iterator[Reason]:
    """An answer to the typical prompt must begin in the time allowed; `wait` is what counts as the
    time that it takes."""
    limit = workload.max_ttft_ms
    if limit is not None and wait > limit:
        has = f"{forecast.ttft_ms:.0f} ms for {workload.prompt} tokens"
        yield Reason("ttft", f"{limit:.0f} ms", has, limit, forecast.ttft_ms)


def _of_texts(forecast: Forecast, workload: Workload, *, best: bool) -> Iterator[Reason]:
    """Vectors and scores must come at the rate asked for, and a query's vector in the time allowed;
    what counts is the better end of the range where `best`, else the forecast itself."""
    least, longest = workload.documents_per_second, workload.query_ms
    if least is not None:
        rate = forecast.documents_per_second(workload.prompt)
        if (rate.high if best else rate.value) < least:
            has = f"{human_rate(rate.value)}/s"
            needs = f"{human_rate(least, 6)} documents of {workload.prompt} tokens a second"
            yield Reason("documents", needs, has, least, rate.value)
    if longest is not None:
        wait = forecast.text_ms(QUERY_TOKENS)
        if (wait.low if best else wait.value) > longest:
            has = f"{wait.value:.0f} ms for {QUERY_TOKENS} tokens"
            yield Reason("query", f"{human_rate(longest, 6)} ms", has, longest, wait.value)
