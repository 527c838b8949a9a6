"""What a device file may hold: every key with its type, its unit and the range outside which it is
a slip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from packager.device.target import BACK_ENDS
from packager.need.workload import PREFERENCES
from packager.units import human_bytes

KINDS = ("laptop", "mini-pc", "server", "single-board", "phone", "gpu", "jetson", "riscv")
ARCHITECTURES = ("x86_64", "aarch64", "riscv64")
EXTENSIONS = (
    *(
        "sse4_2",
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avx_vnni",
        "avx512",
        "avx512_bf16",
        "avx512_fp16",
        "avx512_vnni",
        "amx_int8",
        "amx_bf16",
    ),
    *("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
    *("rvv", "zvfh", "ime"),
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number between `low` and `high`, in `unit`; `whole` numbers refuse fractions."""

    low: float
    high: float
    unit: str
    whole: bool = True
    required: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A text; one of `choices` where there are any."""

    choices: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A list of texts; not empty where it is required."""

    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts or numbers with keys of the author's choice."""

    values: type


Rule = Number | Word | Words | Table

_TB = 10**12
_MEMORY = Number(2**26, 64 * _TB, "bytes")
_RATE = Number(1e8, 1e14, "bytes per second", whole=False)
_FLOPS = Number(1e9, 1e17, "operations per second", whole=False)

TOP: dict[str, Rule] = {
    "name": Word(required=True),
    "summary": Word(required=True),
    "kind": Word(KINDS, required=True),
    "aliases": Words(),
}
DEVICE: dict[str, Rule] = {
    "memory_bytes": Number(2**26, 64 * _TB, "bytes", required=True),
    "reserve_bytes": Number(0, 64 * _TB, "bytes", required=True),
    "process_cap_bytes": _MEMORY,
    "isa": Words(required=True),
    "cpu": Word(),
    "cores": Number(1, 4096, "cores", required=True),
    "runs_on": Word(("cpu", "gpu", "npu")),
    "bandwidth": Number(1e8, 1e14, "bytes per second", whole=False, required=True),
    "compute": Number(1e9, 1e17, "operations per second", whole=False, required=True),
    "operation_seconds": Number(1e-9, 0.1, "seconds", whole=False),
    "confidence": Word(("measured", "same-class", "estimated"), required=True),
    "storage_bytes": Number(0, 10_000 * _TB, "bytes"),
    "storage_bandwidth": Number(1e6, 1e12, "bytes per second", whole=False),
    "gpu": Word(),
    "gpu_memory_bytes": _MEMORY,
    "gpu_reserve_bytes": Number(0, 64 * _TB, "bytes"),
    "gpus": Number(1, 64, "GPUs"),
    "host_bandwidth": _RATE,
    "host_compute": _FLOPS,
    "link_bandwidth": _RATE,
    "npu": Word(),
    "npu_ops": _FLOPS,
    "known_by": Words(),
    "backend": Word(BACK_ENDS),
    "disturbed": Number(0, 1, "share of the processors", whole=False),
}
TARGET: dict[str, Rule] = {"runtimes": Words(required=True), "recipes": Words()}
WORKLOAD: dict[str, Rule] = {
    "use_case": Word(),
    "context": Number(16, 2**24, "tokens"),
    "prompt": Number(1, 2**24, "tokens"),
    "min_decode_tps": Number(0.01, 1e5, "tokens per second", whole=False),
    "max_ttft_ms": Number(1, 1e8, "milliseconds", whole=False),
    "max_artifact_bytes": Number(10**6, 10_000 * _TB, "bytes"),
    "max_memory_bytes": Number(10**6, 64 * _TB, "bytes"),
    "min_scores": Table(float),
    "modality": Words(),
    "licenses": Words(),
    "languages": Words(),
    "prefer": Word(PREFERENCES),
    "parallel": Number(1, 4096, "sequences"),
    "dimension": Number(1, 2**24, "numbers"),
    "documents_per_second": Number(0.001, 1e6, "documents per second", whole=False),
    "query_ms": Number(1, 1e9, "milliseconds", whole=False),
    "max_image_tokens": Number(8, 4096, "tokens"),
}
SECTIONS: dict[str, dict[str, Rule]] = {"device": DEVICE, "target": TARGET, "workload": WORKLOAD}
SOURCED = tuple(key for key, rule in DEVICE.items() if isinstance(rule, Number))
"""Facts that need a source each. A workload is a wish of the file's author: it needs none."""

_SCALES = {
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_GIGA, _TERA = 10**9, 10**12
_RATE_SCALES = {
    "gbps": _GIGA,
    "gb_s": _GIGA,
    "gbs": _GIGA,
    "gflops": _GIGA,
    "gflop_s": _GIGA,
    "tflops": _TERA,
    "tflop_s": _TERA,
    "tops": _TERA,
}


def complaint(rule: Rule, value: Any) -> str | None:
    """What is wrong with a value, as the rest of a sentence that begins with its key; None when
    nothing is."""
    match rule:
        case Number():
            return _number(rule, value)
        case Word():
            if not isinstance(value, str) or not value.strip():
                return f"is {_shown(value)}, but a text belongs there."
            if rule.choices and value not in rule.choices:
                from packager.names import did_you_mean

                return (
                    f"is {value!r}, but must be one of "
                    f"{', '.join(rule.choices)}.{did_you_mean(value, rule.choices)}"
                )
        case Words():
            if not isinstance(value, list) or not all(
                isinstance(item, str) and item for item in value
            ):
                return f"is {_shown(value)}, but a list of texts belongs there."
            if rule.required and not value:
                return "is empty, but needs at least one entry."
            twice = next((item for at, item in enumerate(value) if item in value[:at]), None)
            if twice is not None:
                return f"names {_shown(twice)} twice: leave one of the two out."
        case Table():
            kinds = (int, float) if rule.values is float else (rule.values,)
            if not isinstance(value, dict) or not all(
                isinstance(item, kinds) and not isinstance(item, bool) for item in value.values()
            ):
                return (
                    f"is {_shown(value)}, but a table of "
                    f"{'numbers' if rule.values is float else 'texts'} belongs there."
                )
    return None


def _number(rule: Number, value: Any) -> str | None:
    """The same for a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {_shown(value)}, but a number of {rule.unit} belongs there."
    if value != value or value in (float("inf"), float("-inf")):
        return f"is {value}, but a finite number of {rule.unit} belongs there."
    if rule.whole and value != int(value):
        return f"is {value}, but a whole number of {rule.unit} belongs there."
    if value < 0:
        return f"is {_shown(value)}: it cannot be negative."
    if value < rule.low:
        return (
            f"is {_shown(value)}, which is too small: it counts {rule.unit}, from "
            f"{_bound(rule.low, rule.unit)} up."
        )
    if value > rule.high:
        return (
            f"is {_shown(value)}, which is too large: it counts {rule.unit}, up to "
            f"{_bound(rule.high, rule.unit)}."
        )
    return None


def other_unit(key: str, value: Any, known: dict[str, Rule]) -> str | None:
    """For a key that spells its unit, like `memory_gb = 16`: the key and the number in the unit we
    use."""
    for scales, suffix in ((_SCALES, "_bytes"), (_RATE_SCALES, "")):
        for unit, scale in scales.items():
            stem = key.casefold().removesuffix("_" + unit)
            if stem != key.casefold() and stem + suffix in known:
                example = (
                    f" = {int(value * scale)}"
                    if isinstance(value, int | float) and 0 < value < 1e9
                    else ""
                )
                rule = known[stem + suffix]
                return (
                    f"is not a key: {stem + suffix} counts "
                    f"{rule.unit if isinstance(rule, Number) else ''}; write "
                    f"{stem + suffix}{example}."
                )
    return None


def _bound(value: float, unit: str) -> str:
    return human_bytes(value) if unit == "bytes" else f"{value:g}"


def _shown(value: Any) -> str:
    """The value as the file has it, cut where it is long."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
