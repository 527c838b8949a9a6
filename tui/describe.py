"""Devices and workloads in words: what the screens print, made from the core's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packager.errors import usage
from packager.need.languages import bare_word, in_words, language, unproven
from packager.need.languages import floor as language_floor
from packager.need.usecases import UseCase, use_case
from packager.shape.whisper import SECONDS
from packager.units import human_bytes, parse_bytes

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.need.workload import Workload

CONFIDENCE = {
    "measured": "measured on this device",
    "same-class": "measured on the same device class",
    "estimated": "estimated from the data sheet",
}
_MB = 10**6
_STEPS: dict[str, Sequence[float]] = {
    "context": [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144],
    "prompt": [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 16384, 32768],
    "min_decode_tps": [0, 1, 2, 4, 6, 8, 10, 15, 20, 30, 50, 100],
    "max_ttft_ms": [250, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 300000, 600000],
    "max_artifact_bytes": [
        size * _MB for size in (250, 500, 1000, 1500, 2000, 4000, 8000, 16000, 32000)
    ],
    "max_memory_bytes": [
        size * _MB
        for size in (500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000, 16000, 24000, 48000)
    ],
    "documents_per_second": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500],
    "query_ms": [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000],
    "dimension": [32, 64, 128, 256, 512, 768, 1024, 2048, 4096],
    "max_image_tokens": [64, 128, 256, 512, 1024, 2048, 4096],
    "max_audio_seconds": [5, 10, 20, 30, 60, 120, 300, 600, 1200],
}
PREFERENCES = (
    ("smallest", "the smallest that passes every rule"),
    ("quality", "the highest published scores"),
    ("speed", "the fastest"),
    ("balanced", "the best balance of quality, speed and memory"),
    ("cost", "the cheapest answers"),
)


def steps(field: str, base: Any) -> list[tuple[Any, str]]:
    """The steps of a slider for a field of Workload, with `base` (what holds where nothing is said)
    among them."""
    if field == "prefer":
        return [(name, name) for name, _ in PREFERENCES]
    values: list[Any] = sorted({*_STEPS[field], *([] if base is None else [base])})
    return [
        *([(None, quantity(field, None))] if base is None else []),
        *((value, quantity(field, value)) for value in values),
    ]


def parsed(field: str, text: str) -> int | float:
    """A typed limit as the field takes it; a bare number is in `UNITS`. Raises PackError (usage)
    for what is none."""
    try:
        value = _number(field, text.strip().replace(",", "").casefold())
    except (ValueError, OverflowError):
        raise usage(
            f"{text.strip()!r} is not a valid value.", f"Write a number of{UNITS[field]}."
        ) from None
    low, high = _BOUNDS[field]
    if not low <= value <= high:
        raise usage(
            f"{quantity(field, value)} is not between {quantity(field, low)} and "
            f"{quantity(field, high)}."
        )
    return value


def _number(field: str, word: str) -> int | float:
    if field == "dimension":
        return int(word.removesuffix("numbers"))
    if field in ("context", "prompt", "max_image_tokens"):
        digits = word.removesuffix("tokens").strip()
        return int(digits.removesuffix("k")) * (1024 if digits.endswith("k") else 1)
    if field == "min_decode_tps":
        return float(word.removesuffix("tok/s").strip())
    if field == "documents_per_second":
        return float(word.removesuffix("/s").strip())
    if field == "max_audio_seconds":
        return int(word.removesuffix("s").strip())
    if field in ("max_ttft_ms", "query_ms"):
        # A wait for a text is typed in seconds, the much shorter one for a query in ms.
        bare = 1000 if field == "max_ttft_ms" or word.endswith("s") else 1
        if word.endswith("ms"):
            return float(word.removesuffix("ms"))
        return bare * float(word.removesuffix("s").strip())
    return round(float(word) * _MB) if word.replace(".", "").isdigit() else parse_bytes(word)


_BOUNDS: dict[str, tuple[float, float]] = {
    "context": (16, 2**24),
    "prompt": (1, 2**24),
    "min_decode_tps": (0, 1e6),
    "max_ttft_ms": (1, 1e9),
    "max_artifact_bytes": (_MB, 64e6 * _MB),
    "max_memory_bytes": (_MB, 64e6 * _MB),
    "dimension": (1, 2**24),
    "documents_per_second": (0.001, 1e6),
    "query_ms": (1, 1e9),
    "max_image_tokens": (8, 4096),
    "max_audio_seconds": (1, 1200),
}
"""What the command line takes as well."""
UNITS = {
    "context": " tokens",
    "prompt": " tokens",
    "min_decode_tps": " tok/s",
    "max_ttft_ms": " s",
    "max_artifact_bytes": " MB",
    "max_memory_bytes": " MB",
    "dimension": " numbers",
    "documents_per_second": " /s",
    "query_ms": " ms",
    "max_image_tokens": " tokens",
    "max_audio_seconds": " s",
}
"""What a bare number means that is typed for a limit."""


def quantity(field: str, value: float | None) -> str:
    """A limit of a workload as people read it."""
    if value is None:
        return "all numbers" if field == "dimension" else "no limit"
    if field in ("context", "prompt", "dimension", "max_image_tokens"):
        return f"{value:,.0f}{UNITS[field]}"
    if field == "min_decode_tps":
        return f"{value:g} tok/s" if value else "any rate"
    if field == "max_audio_seconds":
        return f"{value:,.0f} s of sound"
    if field == "documents_per_second":
        return f"{value:g} /s"
    if field in ("max_ttft_ms", "query_ms"):
        return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:g} s"
    return human_bytes(value)


def reason(field: str, base: Workload) -> str:
    """Why a field has the value it has when nothing is said, with the source where the use case
    states one."""
    case = use_case(base.use_case)
    own = {
        "context": case.context,
        "prompt": case.prompt,
        "min_decode_tps": case.min_decode_tps,
        "max_ttft_ms": case.max_ttft_ms,
        "max_image_tokens": case.max_image_tokens,
        "max_audio_seconds": case.max_audio_seconds,
    }
    limit = own.get(field)
    if limit is not None:
        value = quantity(field, limit.value)
        return f"{base.use_case} asks {value}: {limit.reason} ({limit.source})."
    texts = {
        "context": "Tokens of prompt and answer together.",
        "prompt": "Tokens of a typical prompt, for the time to the first token.",
        "min_decode_tps": (
            f"{base.use_case} sets no least rate: its tokens are not read one by one."
        ),
        "max_ttft_ms": f"{base.use_case} sets no limit on the wait for the first token.",
        "max_artifact_bytes": "Largest size of the model files: for app stores, OTA updates and "
        "small flash.",
        "max_memory_bytes": "Most memory one model may take, below what the device has.",
        "prefer": "; ".join(f"{name}: {text}" for name, text in PREFERENCES) + ".",
        "max_image_tokens": "What one picture may take of the context: larger ones are made "
        "smaller.",
        "max_audio_seconds": "The longest sound that is taken at once. To write down what is said, "
        "longer ones are cut into pieces; Qwen2-Audio, which is asked about a sound, takes up to "
        f"{SECONDS} s and refuses longer ones.",
        "documents_per_second": "Least rate at which texts as long as the prompt become vectors or "
        "scores.",
        "query_ms": "The longest that a query may take to become a vector.",
        "dimension": "Numbers of a vector that are kept, the first so many (Matryoshka): fewer "
        "make a smaller index and a search that finds a little less.",
    }
    return texts[field]


def made(task: str) -> str:
    """What a model of a task gives at a time: packager.shape.TASKS."""
    return {"embed": "vector of a text", "rerank": "score of a pair"}.get(task, "first token")


def floors(case: UseCase) -> list[str]:
    """The published scores a use case asks for, one sentence each."""
    rows = []
    for floor in case.floors:
        wanted = " or ".join(f"{name} ≥ {least:g}" for name, least in floor.any_of)
        rows.append(f"{wanted}: {floor.reason} ({floor.source}).")
    return rows or ["No published score is asked for."]


def comes_in(workload: Workload) -> str:
    """What is given to the model besides text, a sentence for each; empty where nothing is."""
    parts = []
    if workload.pictures:
        parts.append(
            f"Pictures come in, each up to {workload.max_image_tokens:,} tokens of the context; "
            "the vision tower is built with the model.\n"
        )
    if workload.sound:
        parts.append(
            f"Sound comes in, up to {workload.max_audio_seconds:,} s at once; the audio encoder is "
            "built with the model.\n"
        )
    return "".join(parts)


def purpose(workload: Workload) -> str:
    """What it is for, and in which languages."""
    return f"{workload.use_case}{in_words(workload.languages)}"


def spoken(wanted: Sequence[str]) -> list[str]:
    """What languages ask of a model, line by line; without any, what can be said here."""
    rows: list[str] = []
    for code in wanted:
        floor, name = language_floor(code), language(code).name
        if floor is not None:
            if not rows:
                bar = (
                    "the first of its scores that is published must reach "
                    f"{floor.any_of[0][1]:g}, {floor.reason}"
                )
                rows.append(f"The publisher must name each (where it lists any), and {bar}.")
            rows.append(f"• {name}: {', else '.join(test for test, _ in floor.any_of)}")
    if bare := [code for code in wanted if unproven(code)]:
        rows.append(bare_word(bare))
    return rows or [
        "Languages that answers are needed in, besides English: names or codes of ISO 639, "
        "separated by commas, → completes one."
    ]


def sureness(target: Target) -> str:
    """How the speed of a device is known."""
    share = target.device.disturbed
    if share:
        return (
            f"measured on this device, disturbed: other programs took {share:.0%} of the processors"
        )
    return CONFIDENCE[target.device.confidence]


def disturbance(target: Target) -> str:
    """What to know where the rates of a device are those of a disturbed measurement; empty where
    they are not."""
    share = target.device.disturbed
    return (
        f"disturbed: other programs took {share:.0%} of the processors, so it is faster than this"
        if share
        else ""
    )


def device_rows(target: Target, absent: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The facts of a device, label and text; `absent` says of runtimes whose engine is not
    installed here what to do."""
    device, missing = target.device, absent or {}
    runs = {
        "cpu": device.cpu or "its processor",
        "gpu": device.gpu or "its GPU",
        "npu": device.npu or "its NPU",
    }[device.runs_on]
    if target.kind == "phone" and device.runs_on == "cpu":
        runs = f"{runs} (CPU only: its GPU and NPU are not used)"
    names = [
        f"{name} (not installed here)" if name in missing else name for name in target.runtimes
    ]
    rows = [
        ("runs on", runs),
        ("cores", str(device.cores)),
        ("instructions", device.isa),
        ("bandwidth", f"{device.bandwidth / 1e9:.3g} GB/s"),
        ("compute", f"{device.compute / 1e9:,.0f} GFLOP/s"),
        ("speed is", sureness(target)),
        (
            "storage",
            human_bytes(device.storage_bytes) if device.storage_bytes is not None else "not stated",
        ),
        ("runtimes", ", ".join(names)),
    ]
    return [(label, text) for label, text in rows if text]


def memory_parts(target: Target) -> list[tuple[str, int]]:
    """The memory where the model runs, in pieces: for a model, beyond the cap of one process, the
    system's reserve."""
    device = target.device
    own_gpu = device.runs_on == "gpu" and device.gpu_memory_bytes is not None
    total = (
        device.gpu_memory_bytes * device.gpus
        if own_gpu and device.gpu_memory_bytes is not None
        else device.memory_bytes
    )
    reserve = device.gpu_reserve_bytes * device.gpus if own_gpu else device.reserve_bytes
    usable = device.all_available_bytes
    beyond = max(0, total - reserve - usable)
    return [
        ("for one model", usable),
        ("beyond the cap of one process", beyond),
        ("reserve of the system", min(reserve, total - usable - beyond)),
    ]
