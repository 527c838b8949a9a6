"""What kind of value each field of a manifest has that anything reads, so that a manifest from
outside cannot surprise a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Kind = Callable[[Any], bool] | dict[str, Any] | list[Any]
"""A test of one value, an object by its fields, or a list by the one kind of its items."""


def text(value: Any) -> bool:
    """A text that does to a terminal nothing but show itself."""
    return isinstance(value, str) and value.isprintable()


def number(value: Any) -> bool:
    """A finite number of a size that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def tokens(value: Any) -> bool:
    """A number of tokens that an engine's 32 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


_WINDOW: Kind = dict.fromkeys(
    ("at_s", "decode_tps", "other_cpu_cores", "cpu_mhz", "temperature_c"), number
)

_MEASUREMENT: Kind = {
    **dict.fromkeys(("load_s", "load_cold_s", "ttft_ms", "ttft_ms_p95", "ttft_ms_p99"), number),
    **dict.fromkeys(
        ("prefill_tps", "prefill_128_tps", "prefill_512_tps", "prefill_full_tps"), number
    ),
    **dict.fromkeys(
        ("decode_tps", "decode_empty_tps", "decode_full_tps", "full_context_tokens"), number
    ),
    **dict.fromkeys(("token_ms_median", "token_ms_p95", "token_ms_p99", "cpu_mhz"), number),
    **dict.fromkeys(
        ("peak_memory_bytes", "steady_memory_bytes", "proportional_memory_bytes"), number
    ),
    **dict.fromkeys(("other_cpu_cores", "spread", "ttft_spread", "threads"), number),
    "energy": {"source": text, "joules_per_token": number, "joules_per_prompt": number},
    "sustained": {
        **dict.fromkeys(("seconds", "first_tps", "last_tps", "ratio", "temperature_c_max"), number),
        **dict.fromkeys(("throttled", "noisy"), flag),
        "windows": [_WINDOW],
    },
    "thread_search": {
        **dict.fromkeys(("threads", "other_cpu_cores"), number),
        "candidates": [
            dict.fromkeys(("threads", "prefill_tps", "token_ms", "answer_s", "trials"), number)
        ],
        "noisy": flag,
    },
    "attempts": dict.fromkeys(("answers", "rates", "full context"), number),
    "noisy_because": [text],
    "left_out": [text],
    "prompt_tokens": tokens,
    "token_ms": [[number]],
    "noisy": flag,
    "measured_at": text,
    "gpu_memory_bytes": number,
    "runs_on": text,
    "place": {"on_device": flag, "why": text},
    "machine": {
        "processor": text,
        "architecture": text,
        "cores": number,
        "memory_bytes": number,
        "system": text,
    },
}

_VERDICTS: Kind = [
    {
        "rule": text,
        "limit": number,
        "measured": number,
        "unit": text,
        "passed": flag,
        "enforced": flag,
    }
]
_FIGURES = (
    "kl_mean",
    "kl_p95",
    "kl_max",
    "top1",
    "perplexity",
    "reference_perplexity",
    "perplexity_ratio",
)
QUALITY: Kind = {
    "skipped": text,
    **dict.fromkeys((*_FIGURES, "broken", "seconds"), number),
    "tokens": tokens,
    "parts": [{"name": text, "tokens": tokens, **dict.fromkeys(_FIGURES, number)}],
    "text": {"name": text, "sha256": text},
    "limits": {"grade": text},
    "verdicts": [
        {"rule": text, "limit": number, "measured": number, "at_least": flag, "passed": flag}
    ],
    "parity": {
        **dict.fromkeys(
            ("texts", "tokens", "control_tokens", "conversations", "stopped_after"), number
        ),
        "ends": [number],
        "notes": [text],
        "findings": [text],
    },
    **dict.fromkeys(("passed", "loss_allowed"), flag),
}

_TRIED: dict[str, Kind] = {
    **dict.fromkeys(("passed", "total"), number),
    "passes": {name: dict.fromkeys(("passed", "total"), number) for name in ("baseline", "stress")},
    "failures": dict.fromkeys(
        ("wrong_answer", "lost_fact", "format", "tool_misuse", "wrong_stop"), number
    ),
}

_BEHAVIOUR: Kind = {
    **_TRIED,
    **dict.fromkeys(("set", "set_sha256", "tried_at"), text),
    **dict.fromkeys(("seconds", "new_tokens", "prompt_tokens"), number),
    "tasks": [
        {
            "id": text,
            "pass": text,
            "passed": flag,
            "failures": [{"turn": number, "kind": text, "why": text}],
        }
    ],
    "left_out": [{"id": text, "why": text}],
    "neighbours": {name: {**_TRIED, "name": text} for name in ("smaller", "larger")},
}

SHAPE: dict[str, Kind] = {
    "name": text,
    "created": text,
    "target": text,
    "device": {
        **dict.fromkeys(("kind", "isa", "runs_on", "gpu", "npu"), text),
        **dict.fromkeys(("cores", "memory_bytes", "gpu_memory_bytes"), number),
        "known_by": [text],
    },
    "workload": {"context": tokens, "prompt": tokens, "use_case": text, "languages": [text]},
    "variant": {"repo_id": text, "revision": text, "license": text, "spdx": text},
    "source": {"kind": text, "location": text},
    "recipe": {"id": text, "kv": text},
    "runtime": {"name": text, "version": text},
    "files": [],
    "artifact_bytes": number,
    "offload": {"gpu_layers": tokens, "all_layers": tokens},
    "predicted": {
        "footprint": {"total": number, "peak": number},
        "forecast": {"decode_tps": number, "prefill_tps": number, "ttft_ms": number},
        "artifact_bytes": number,
    },
    "errors_percent": dict.fromkeys(
        ("artifact_bytes", "peak_memory_bytes", "ttft_ms", "prefill_tps", "decode_tps"), number
    ),
    "measured": _MEASUREMENT,
    "not_measured": text,
    "measurements": [_MEASUREMENT],
    "quality": QUALITY,
    "behaviour": _BEHAVIOUR,
    "verdicts": _VERDICTS,
    "alternatives": [
        {
            "runtime": {"name": text, "version": text},
            **dict.fromkeys(("recipe", "not_measured", "reason"), text),
            "artifact_bytes": number,
            "predicted": {"artifact_bytes": number},
            "measured": _MEASUREMENT,
            "quality": QUALITY,
            "verdicts": _VERDICTS,
        }
    ],
    "why": {"sentence": text},
    "build_key": text,
    "content_sha256": text,
    "tools": {},
    "sampling": dict.fromkeys(
        ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"), number
    ),
}

REQUIRED = (
    *("name", "files", "runtime", "recipe", "variant", "source"),
    *("runtime.name", "recipe.id", "variant.repo_id"),
)
_WHOLE = ("verdicts",)
"""Lists whose rows have every field."""
_OPEN = ("measured", "passed")
"""Fields of such a row that are null while nobody knows."""


def misfit(data: dict[str, Any]) -> str | None:
    """The first field that is missing or of the wrong kind, as `measured.ttft_ms`; None when there
    is none. Null counts as absent."""
    found = _misfit(data, SHAPE)
    return found or next((field for field in REQUIRED if _absent(data, field)), None)


def _absent(data: Any, field: str) -> bool:
    for key in field.split("."):
        data = (data or {}).get(key)
    return data is None


def _misfit(value: Any, kind: Kind, where: str = "", whole: bool = False) -> str | None:
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return where
        for key, part in kind.items():
            inner = f"{where}.{key}" if where else key
            if value.get(key) is None:
                found = inner if whole and not (key in _OPEN and key in value) else None
            else:
                found = _misfit(value[key], part, inner, key in _WHOLE)
            if found:
                return found
        return None
    if isinstance(kind, list):
        if not isinstance(value, list):
            return where
        rows = (
            _misfit(row, part, f"{where}[{index}]", whole)
            for part in kind
            for index, row in enumerate(value)
        )
        return next((found for found in rows if found), None)
    return None if kind(value) else where
