"""A candidate, a plan and a forecast in words and signs: pairs of text and style for the
screens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.units import human_bytes, human_count
from tui.bars import span
from tui.describe import CONFIDENCE
from tui.table import rate, wait

if TYPE_CHECKING:
    from packager.predict.forecast import Forecast
    from packager.predict.memory import Footprint
    from packager.predict.offload import Split
    from packager.select import Candidate, Miss, Reason, Step

Parts = list[tuple[str, str]]
FOOTPRINT = (
    ("weights", "█", "$primary"),
    ("kv_cache", "▓", "$accent"),
    ("compute", "▒", "$success"),
    ("overhead", "░", "$foreground-muted"),
)
_VERDICTS = {
    "chosen": ("★ chosen", "bold $text-success"),
    "fits": ("✓ fits", "$text-success"),
    "may miss": ("~ may miss", "$text-warning"),
    "rejected": ("✗ rejected", "bold $text-error"),
}


def miss(one: Miss) -> Parts:
    """What would fit, and with which one change."""
    return [
        ("→ ", "$text-success"),
        (one.then.label, "bold"),
        (f"  with {one.change}  ", ""),
        (one.flag, "$foreground-muted"),
    ]


def candidate(one: Candidate) -> Parts:
    """The verdict with every reason, notes, scores and figures."""
    text, style = _VERDICTS[one.verdict]
    parts: Parts = [(f"{one.label}  ", "bold"), (f"{text}\n", style)]
    for reason in one.reasons:
        parts += [("• ", "$text-error"), (f"{reason.rule}: ", "bold"), (f"{why_not(reason)}\n", "")]
    for reason in one.may_miss:
        parts += [
            ("~ ", "$text-warning"),
            (f"may miss {reason.rule}: ", "bold"),
            (f"needs {reason.needs}, has {reason.has}\n", ""),
        ]
    parts += [(f"! {note}\n", "$text-warning") for note in one.notes]
    if one.sized:
        prints = one.footprint
        parts += [
            ("memory  ", "$foreground-muted"),
            (f"{human_bytes(prints.peak)} peak = {_sum(prints)}\n", ""),
            *_split(one),
            ("speed   ", "$foreground-muted"),
            (
                f"{rate(one.forecast.decode_tps)} tok/s "
                f"({rate(one.forecast.low)}–{rate(one.forecast.high)}), ",
                "",
            ),
            (
                f"first token {wait(one.forecast.ttft_ms)}, "
                f"{CONFIDENCE[one.forecast.confidence]}\n",
                "",
            ),
        ]
    if one.scores:
        published = ", ".join(f"{name} {value:g}" for name, value in one.scores.items())
        mean = (
            ""
            if one.quality is None
            else f"; score {one.quality:.1f} is the mean of those that the use case compares"
        )
        parts += [
            ("scores  ", "$foreground-muted"),
            (f"{published}{mean}, of the unquantized model\n", ""),
        ]
    variant = one.variant
    size = human_count(variant.params_total) if variant.params_total else "size not stated"
    parts += [
        ("model   ", "$foreground-muted"),
        (f"{size}, {variant.license or 'licence not stated'}, {variant.kind}", ""),
    ]
    if one.sized:
        parts.append((f", {one.bits_per_weight:.2f} bits per weight", ""))
    return parts


def why_not(reason: Reason) -> str:
    """A rule that is not met, as people say it."""
    if reason.rule == "runtime":
        return reason.has
    if reason.rule == "tuning":
        return f"{reason.has}; needs {reason.needs}"
    if reason.rule == "ttft" and reason.has_value is not None and reason.needs_value is not None:
        prompt = reason.has.partition(" for ")[2]
        return (
            f"first token after {wait(reason.has_value)}, limit "
            f"{wait(reason.needs_value)}{f' ({prompt} of prompt)' if prompt else ''}"
        )
    return f"needs {reason.needs}, has {reason.has}"


def layers(split: Split) -> str:
    """How much of a model a GPU's own memory takes."""
    return "the whole model" if split.whole else f"{split.gpu_layers} of {split.all_layers} layers"


def _split(one: Candidate) -> Parts:
    if one.split is None:
        return []
    return [
        ("gpu     ", "$foreground-muted"),
        (
            f"{layers(one.split)} there, {human_bytes(one.split.host.peak)} in the system's "
            "memory\n",
            "",
        ),
    ]


def _sum(prints: Footprint) -> str:
    pieces = [
        ("weights", prints.weights),
        ("cache", prints.kv_cache),
        ("compute", prints.compute),
        ("overhead", prints.overhead),
    ]
    text = " + ".join(f"{name} {human_bytes(size)}" for name, size in pieces if size)
    return text if prints.total >= prints.peak else f"{text}; loading takes more"


def forecast(one: Forecast, prompt: int, floor: float | None, width: int) -> Parts:
    """The decode rate with its range on a scale, prefill, first token, and how sure that is."""
    top = max(one.high, floor or 0) * 1.1
    parts: Parts = [
        ("decode       ", "$foreground-muted"),
        (f"{rate(one.decode_tps)} tok/s", "bold"),
        (f"  from {rate(one.low)} to {rate(one.high)}\n", ""),
        (f"{span(one.low, one.decode_tps, one.high, top, width)}\n", "$primary"),
    ]
    if floor:
        column = min(width - 1, round(floor / top * (width - 1)))
        parts.append(
            (
                f"{' ' * column}▲ min. {floor:g}\n"
                if column < width - 12
                else f"{' ' * (column - 10)}min. {floor:g} ▲\n",
                "$text-warning",
            )
        )
    return [
        *parts,
        ("first token  ", "$foreground-muted"),
        (f"{wait(one.ttft_ms)}", "bold"),
        (f"  after {prompt:,} tokens\n", ""),
        ("prefill      ", "$foreground-muted"),
        (f"{rate(one.prefill_tps)} tok/s\n", ""),
        ("confidence   ", "$foreground-muted"),
        (CONFIDENCE[one.confidence], ""),
    ]


def step(one: Step) -> Parts:
    """A neighbour of the choice: what it costs and gains."""
    arrow, style = (
        ("▼ smaller", "$text-success") if one.direction == "down" else ("▲ larger", "$text-warning")
    )
    fits = "" if one.candidate.passes else "  ✗ " + "; ".join(map(str, one.candidate.reasons))
    scores = "".join(
        f", {name} {_plus_or_minus(f'{value:+g}')}" for name, value in one.scores.items()
    )
    return [
        (f"{arrow}  ", style),
        (f"{one.candidate.label}  ", "bold"),
        (
            f"{_signed(one.memory_bytes)} memory, {_plus_or_minus(f'{one.decode_tps:+.1f}')} "
            f"tok/s{scores}",
            "",
        ),
        (f"{fits}\n", "$text-error"),
    ]


def _plus_or_minus(text: str) -> str:
    """One minus sign for all numbers of a line."""
    return text.replace("-", "−")


def _signed(size: int) -> str:
    return f"{'+' if size >= 0 else '−'}{human_bytes(abs(size))}"
