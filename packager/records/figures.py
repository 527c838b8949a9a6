"""Every figure of a package by its name in JSON: label, unit, which direction is better, and where
it is shown. The tables of README, card, terminal and screen all come from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["less", "more"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    `main`: short tables show it. `compared`: `compare` has a row for it, `always` even where no
    package has a value. `anywhere`: it is the same on every machine, so that figures of two
    machines may be ranked. `again`: `bench` shows it beside the manifest's. `predicted`: where in
    the manifest's `predicted` its forecast stands. `of_the_context`: memory that holds the cache of
    the whole context.
    """

    name: str
    label: str
    unit: str
    better: Better = "less"
    main: bool = False
    compared: bool = False
    always: bool = False
    anywhere: bool = False
    again: bool = False
    predicted: tuple[str, ...] = ()
    of_the_context: bool = False

    @property
    def direction(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.better == "more" else -1


MEASURED: tuple[Figure, ...] = (
    Figure(
        "artifact_bytes",
        "model files",
        "B",
        main=True,
        compared=True,
        always=True,
        anywhere=True,
        predicted=("artifact_bytes",),
    ),
    Figure(
        "peak_memory_bytes",
        "peak memory",
        "B",
        main=True,
        compared=True,
        always=True,
        again=True,
        predicted=("footprint", "peak_alone"),
        of_the_context=True,
    ),
    Figure("gpu_memory_bytes", "GPU memory", "B", main=True, compared=True, of_the_context=True),
    Figure(
        "steady_memory_bytes",
        "steady memory",
        "B",
        compared=True,
        always=True,
        of_the_context=True,
    ),
    Figure(
        "text_peak_memory_bytes",
        "peak memory before a picture or a sound",
        "B",
        again=True,
        of_the_context=True,
    ),
    Figure("proportional_memory_bytes", "proportional memory", "B", again=True),
    Figure(
        "ttft_ms",
        "first token",
        "ms",
        main=True,
        compared=True,
        always=True,
        again=True,
        predicted=("forecast", "ttft_ms"),
    ),
    Figure("ttft_ms_p95", "first token, P95", "ms"),
    Figure("ttft_ms_p99", "first token, P99", "ms"),
    Figure(
        "prefill_tps",
        "prefill",
        "tok/s",
        "more",
        main=True,
        compared=True,
        always=True,
        again=True,
        predicted=("forecast", "prefill_tps"),
    ),
    Figure(
        "image_ttft_ms",
        "first token with a picture",
        "ms",
        main=True,
        compared=True,
        again=True,
        predicted=("forecast", "ttft_ms"),
    ),
    Figure("image_pair_ttft_ms", "first token with two pictures", "ms", compared=True, again=True),
    Figure(
        "audio_ttft_ms",
        "first word of a sound",
        "ms",
        main=True,
        compared=True,
        again=True,
        predicted=("forecast", "ttft_ms"),
    ),
    Figure(
        "audio_seconds_per_second",
        "sound written down",
        "s/s",
        "more",
        main=True,
        compared=True,
        again=True,
    ),
    Figure("prefill_128_tps", "prefill, prompt of 128", "tok/s", "more", again=True),
    Figure("prefill_512_tps", "prefill, prompt of 512", "tok/s", "more", again=True),
    Figure(
        "decode_tps",
        "decode",
        "tok/s",
        "more",
        main=True,
        compared=True,
        always=True,
        again=True,
        predicted=("forecast", "decode_tps"),
    ),
    Figure("decode_empty_tps", "decode, empty context", "tok/s", "more", again=True),
    Figure("decode_full_tps", "decode, full context", "tok/s", "more", again=True),
    Figure(
        "image_decode_tps", "decode after a picture", "tok/s", "more", compared=True, again=True
    ),
    Figure(
        "image_encode_256_ms",
        "encode a picture of 256 tokens",
        "ms",
        compared=True,
        again=True,
        predicted=("forecast", "encode_ms"),
    ),
    Figure(
        "image_encode_1024_ms",
        "encode a picture of 1,024 tokens",
        "ms",
        main=True,
        compared=True,
        again=True,
        predicted=("forecast", "encode_ms"),
    ),
    Figure(
        "image_encode_4096_ms",
        "encode a picture of 4,096 tokens",
        "ms",
        compared=True,
        again=True,
        predicted=("forecast", "encode_ms"),
    ),
    Figure("word_error_percent", "word errors", "%", main=True, compared=True, again=True),
    Figure(
        "audio_encode_ms",
        "encode a sound",
        "ms",
        main=True,
        compared=True,
        again=True,
        predicted=("forecast", "encode_ms"),
    ),
    Figure("documents_128_dps", "documents of 128 tokens", "/s", "more", compared=True, again=True),
    Figure(
        "documents_512_dps",
        "documents of 512 tokens",
        "/s",
        "more",
        main=True,
        compared=True,
        again=True,
    ),
    Figure(
        "documents_2048_dps", "documents of 2,048 tokens", "/s", "more", compared=True, again=True
    ),
    Figure("query_ms", "query", "ms", main=True, compared=True, again=True),
    Figure("query_ms_p95", "query, P95", "ms", again=True),
    Figure(
        "token_ms_median", "token, median", "ms", main=True, compared=True, always=True, again=True
    ),
    Figure("token_ms_p95", "token, P95", "ms", main=True, compared=True, always=True, again=True),
    Figure("token_ms_p99", "token, P99", "ms", again=True),
    Figure("joules_per_token", "energy per token", "J", main=True),
    Figure("joules_per_prompt", "energy per prompt", "J"),
    Figure("load_s", "load", "s", main=True, compared=True, always=True, again=True),
    Figure("image_load_s", "load of the image encoder", "s", again=True),
    Figure("audio_load_s", "load of the audio encoder", "s", again=True),
    Figure("load_cold_s", "load, cold", "s"),
)
"""Figures of a measurement, and the size of what was measured, in the order in which they are
shown."""

DERIVED: tuple[Figure, ...] = (
    Figure("kl_mean", "divergence", "nats", compared=True, anywhere=True),
    Figure("tasks_passed", "tasks passed", "%", "more", compared=True, anywhere=True),
    Figure("cost_per_million_tokens", "cost of 1M tokens", "", compared=True),
    Figure("cost_per_successful_task", "cost of a task", "", compared=True),
)
"""Figures that follow from quality, behaviour and prices."""

BY_NAME = {figure.name: figure for figure in (*MEASURED, *DERIVED)}
