"""Predicted beside measured, one row per figure: the same rows in the terminal, in a package's
README and on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from packager.report.budgets import quantity
from packager.report.evidence import on_device

_PREDICTED = {
    "artifact_bytes": ("artifact_bytes",),
    "peak_memory_bytes": ("footprint", "peak"),
    "ttft_ms": ("forecast", "ttft_ms"),
    "prefill_tps": ("forecast", "prefill_tps"),
    "decode_tps": ("forecast", "decode_tps"),
}
"""Figures of a measurement that are predicted, and where in the manifest's `predicted`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, None where it is not known; `main` for those that a short table shows,
    `comparable` where both are of one machine."""

    label: str
    unit: str
    predicted: float | None
    measured: float | None
    main: bool = False
    comparable: bool = True

    @property
    def error_percent(self) -> float | None:
        """How far the prediction lies above what was measured; None where the two are of different
        machines."""
        if self.predicted is None or not self.measured or not self.comparable:
            return None
        return 100 * (self.predicted / self.measured - 1)

    def texts(self) -> tuple[str, str, str]:
        """Predicted, measured and error as people read them, empty where there is none."""
        before, now = (
            "" if value is None else shown(value, self.unit)
            for value in (self.predicted, self.measured)
        )
        return before, now, "" if self.error_percent is None else f"{self.error_percent:+.0f} %"


def shown(value: float, unit: str) -> str:
    """A number with its unit; joules are small."""
    return f"{value:.3g} J" if unit == "J" else quantity(value, unit)


def rows(data: dict[str, Any]) -> list[Row]:
    """The rows of a manifest; what is neither predicted nor measured is left out."""
    measured = data.get("measured") or {}
    energy = measured.get("energy") or {}
    prompt, filled = measured.get("prompt_tokens"), measured.get("full_context_tokens")
    known = {**measured, **energy, "artifact_bytes": data.get("artifact_bytes")}
    table: list[tuple[str, str, str, bool]] = [
        ("model files", "B", "artifact_bytes", True),
        ("peak memory", "B", "peak_memory_bytes", True),
        ("GPU memory", "B", "gpu_memory_bytes", True),
        ("steady memory", "B", "steady_memory_bytes", False),
        ("proportional memory", "B", "proportional_memory_bytes", False),
        (f"first token, {prompt} tokens" if prompt else "first token", "ms", "ttft_ms", True),
        ("first token, P95", "ms", "ttft_ms_p95", False),
        ("first token, P99", "ms", "ttft_ms_p99", False),
        ("prefill", "tok/s", "prefill_tps", True),
        ("prefill, prompt of 128", "tok/s", "prefill_128_tps", False),
        ("prefill, prompt of 512", "tok/s", "prefill_512_tps", False),
        ("decode", "tok/s", "decode_tps", True),
        ("decode, empty context", "tok/s", "decode_empty_tps", False),
        (
            f"decode at {filled} tokens of context" if filled else "decode, full context",
            "tok/s",
            "decode_full_tps",
            False,
        ),
        ("token, median", "ms", "token_ms_median", True),
        ("token, P95", "ms", "token_ms_p95", True),
        ("token, P99", "ms", "token_ms_p99", False),
        ("energy per token", "J", "joules_per_token", True),
        ("energy per prompt", "J", "joules_per_prompt", False),
        ("load", "s", "load_s", True),
        ("load, cold", "s", "load_cold_s", False),
    ]
    there = on_device(measured)
    # The files are the same on every machine; what was measured elsewhere is no check of a
    # prediction for the device.
    found = [
        Row(
            label,
            unit,
            _predicted(data, name),
            known.get(name),
            main,
            there or name == "artifact_bytes",
        )
        for label, unit, name, main in table
    ]
    return [row for row in found if row.predicted is not None or row.measured is not None]


def errors_percent(data: dict[str, Any]) -> dict[str, float | None]:
    """How far every prediction of a manifest lies above what was measured, in percent; None where
    one of the two is missing."""
    measured = {**(data.get("measured") or {}), "artifact_bytes": data.get("artifact_bytes")}
    found = {
        name: Row("", "", _predicted(data, name), measured.get(name)).error_percent
        for name in _PREDICTED
    }
    return {name: None if error is None else round(error, 2) for name, error in found.items()}


def _predicted(data: dict[str, Any], name: str) -> float | None:
    value: Any = (data.get("predicted") or {}) if name in _PREDICTED else None
    for key in _PREDICTED.get(name, ()):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def noise(measured: dict[str, Any]) -> str:
    """Why a measurement is noisy, as one sentence without its end; empty where it is clean."""
    if not measured.get("noisy"):
        return ""
    because = "; ".join(
        measured.get("noisy_because")
        or ["other programs used the processor, or the trials lie far apart"]
    )
    tries = max((measured.get("attempts") or {"": 1}).values(), default=1)
    return f"noisy ({because}{f'; the best of {tries} attempts' if tries > 1 else ''})"
