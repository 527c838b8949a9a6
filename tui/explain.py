"""A candidate, a plan and a forecast in words and signs: pairs of text and style for the
screens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.need.usecases import use_case
from packager.package.sampling import KEYS
from packager.units import human_bytes, human_count
from tui.bars import span
from tui.describe import CONFIDENCE, comes_in, floors, made
from tui.describe import reason as of_limit
from tui.table import rate, task, wait

if TYPE_CHECKING:
    from packager.chat.profile import Profile
    from packager.device.target import Target
    from packager.need.workload import Workload
    from packager.predict.forecast import Forecast
    from packager.predict.memory import Footprint
    from packager.predict.offload import Split
    from packager.select import Candidate, Reason
    from packager.select.misses import Miss
    from packager.select.steps import Step
    from tui.ask import Ask

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


def case(base: Workload, target: Target, unserved: frozenset[str]) -> Parts:
    """What a use case is, what it asks and why, and whether anything serves it."""
    known = use_case(base.use_case)
    parts: Parts = [(f"{known.name}: ", "bold"), (f"{known.summary}\n", "")]
    if known.name in unserved:
        parts.append(
            (
                "! No runtime builds the encoder that it needs: nothing fits, on any device.\n",
                "$text-warning",
            )
        )
    parts += [(f"• {sentence}\n", "") for sentence in floors(known)]
    parts.append((comes_in(base), ""))
    if target.workload.use_case == known.name:
        parts.append((f"{target.name} is meant for it by default.", "$foreground-muted"))
    return parts


def limit(field: str, ask: Ask, base: Workload) -> Parts:
    """Why a limit is what it is."""
    own = getattr(ask.wish, field) is not None
    return [*([("Set by you. ", "bold $text-accent")] if own else []), (of_limit(field, base), "")]


def miss(near_miss: Miss) -> Parts:
    """What would fit, and with which one change; in colours that are seen on the row of a cursor as
    well."""
    return [
        ("→ ", "bold"),
        (near_miss.then.label, "bold"),
        (f"  with {near_miss.change}  ", ""),
        (near_miss.flag, "italic"),
    ]


def candidate(shown: Candidate) -> Parts:
    """The verdict with every reason, notes, scores and figures."""
    text, style = _VERDICTS[shown.verdict]
    parts: Parts = [(f"{shown.label}  ", "bold"), (f"{text}\n", style)]
    for reason in shown.reasons:
        parts += [
            ("• ", "$text-error"),
            (f"{reason.rule}: ", "bold"),
            (f"{why_not(reason, task(shown))}\n", ""),
        ]
    for reason in shown.may_miss:
        parts += [
            ("~ ", "$text-warning"),
            (f"may miss {reason.rule}: ", "bold"),
            (f"needs {reason.needs}, has {reason.has}\n", ""),
        ]
    parts += [(f"! {note}\n", "$text-warning") for note in shown.notes]
    if shown.sized:
        prints = shown.footprint
        parts += [
            ("memory  ", "$foreground-muted"),
            (f"{human_bytes(prints.peak)} peak = {_sum(prints)}\n", ""),
            *_split(shown),
            ("speed   ", "$foreground-muted"),
            (f"{_speed(shown)}, {CONFIDENCE[shown.forecast.confidence]}\n", ""),
        ]
    if shown.scores:
        published = ", ".join(f"{name} {value:g}" for name, value in shown.scores.items())
        mean = (
            ""
            if shown.quality is None
            else f"; score {shown.quality:.1f} is the mean of those that the use case compares"
        )
        parts += [
            ("scores  ", "$foreground-muted"),
            (f"{published}{mean}, of the unquantized model\n", ""),
        ]
    variant = shown.variant
    size = human_count(variant.params_total) if variant.params_total else "size not stated"
    parts += [
        ("model   ", "$foreground-muted"),
        (f"{size}, {variant.license or 'licence not stated'}, {variant.kind}", ""),
    ]
    if shown.sized:
        parts.append((f", {shown.bits_per_weight:.2f} bits per weight", ""))
    return parts


def _speed(shown: Candidate) -> str:
    """The rates in words: of an answer, or of one text where no answer is given."""
    known, what = shown.forecast, task(shown)
    if what == "generate":
        encoder = f" (encoder {wait(known.encode.value)})" if known.encode else ""
        return (
            f"{rate(known.decode_tps)} tok/s ({rate(known.low)}–{rate(known.high)}), "
            f"first token {wait(known.ttft_ms)}{encoder}"
        )
    return (
        f"{made(what)} {wait(known.ttft_ms)} "
        f"({wait(known.ttft_low_ms)}–{wait(known.ttft_high_ms)}), "
        f"reads {rate(known.prefill_tps)} tok/s"
    )


def why_not(reason: Reason, what: str = "generate") -> str:
    """A rule that is not met, as people say it; `what` is the task of the candidate."""
    if reason.rule == "runtime":
        return reason.has
    if reason.rule == "tuning":
        return f"{reason.has}; needs {reason.needs}"
    if reason.rule == "ttft" and reason.has_value is not None and reason.needs_value is not None:
        prompt = reason.has.partition(" for ")[2]
        first = "first token after " if what == "generate" else f"{made(what)} after "
        tokens = f" ({prompt} of prompt)" if what == "generate" else f" ({prompt})"
        return (
            f"{first}{wait(reason.has_value)}, limit "
            f"{wait(reason.needs_value)}{tokens if prompt else ''}"
        )
    return f"needs {reason.needs}, has {reason.has}"


def layers(split: Split) -> str:
    """How much of a model a GPU's own memory takes."""
    return "the whole model" if split.whole else f"{split.gpu_layers} of {split.all_layers} layers"


def _split(shown: Candidate) -> Parts:
    if shown.split is None:
        return []
    return [
        ("gpu     ", "$foreground-muted"),
        (
            f"{layers(shown.split)} there, {human_bytes(shown.split.host.peak)} in the system's "
            "memory\n",
            "",
        ),
    ]


def footprint(prints: Footprint) -> list[tuple[str, int, str, str]]:
    """The parts of a footprint as a bar shows them: name, bytes, sign and style."""
    rows = [
        (name.replace("_", " "), int(getattr(prints, name)), sign, style)
        for name, sign, style in FOOTPRINT
    ]
    if prints.drafting:
        rows.append(("drafting", prints.drafting.total, "◆", "$warning"))
    if prints.peak > prints.total:
        rows.append(("only while loading", prints.peak - prints.total, "▚", "$secondary"))
    return rows


def _sum(prints: Footprint) -> str:
    pieces = [
        ("weights", prints.weights),
        ("cache", prints.kv_cache),
        ("compute", prints.compute),
        ("overhead", prints.overhead),
        ("drafting", prints.drafting.total if prints.drafting else 0),
    ]
    text = " + ".join(f"{name} {human_bytes(size)}" for name, size in pieces if size)
    return text if prints.total >= prints.peak else f"{text}; loading takes more"


def one_text(
    prediction: Forecast, what: str, prompt: int, limit: float | None, width: int
) -> Parts:
    """The wait for one text or pair with its range on a scale, the rate of reading, and how sure
    that is; `what` is a task without an answer, `limit` in milliseconds."""
    low, middle, high = prediction.ttft_low_ms, prediction.ttft_ms, prediction.ttft_high_ms
    top = max(high, limit or 0) * 1.1
    parts: Parts = [
        (f"{made(what)}  ", "$foreground-muted"),
        (wait(middle), "bold"),
        (f"  from {wait(low)} to {wait(high)}, {prompt:,} tokens\n", ""),
        (f"{span(low, middle, high, top, width)}\n", "$primary"),
    ]
    if limit:
        column = min(width - 1, round(limit / top * (width - 1)))
        mark = f"limit {wait(limit)} ▲"
        parts.append((f"{mark:>{max(len(mark), column + 1)}}\n", "$text-warning"))
    return [
        *parts,
        ("reading      ", "$foreground-muted"),
        (f"{rate(prediction.prefill_tps)} tok/s\n", ""),
        ("confidence   ", "$foreground-muted"),
        (CONFIDENCE[prediction.confidence], ""),
    ]


def profile(known: Profile) -> str:
    """How a model is to behave, in one line; empty where nothing is fixed."""
    parts = []
    if known.thinking in ("on", "off"):
        budget = f", at most {known.thinking_budget:,} tokens" if known.thinking_budget else ""
        parts.append(f"thinking {known.thinking}{budget}")
    if known.system_prompt is not None:
        parts.append(f"a system prompt of {len(known.system_prompt):,} characters")
    if known.tools:
        parts.append(f"{len(known.tools)} tool{'' if len(known.tools) == 1 else 's'}")
    # Texts of a manifest are foreign: only words that are known reach the terminal.
    parts += [f"{name} {known.sampling[name]:g}" for name in KEYS if name in known.sampling]
    return ", ".join(parts)


def forecast(prediction: Forecast, prompt: int, floor: float | None, width: int) -> Parts:
    """The decode rate with its range on a scale, prefill, first token, and how sure that is."""
    top = max(prediction.high, floor or 0) * 1.1
    parts: Parts = [
        ("decode       ", "$foreground-muted"),
        (f"{rate(prediction.decode_tps)} tok/s", "bold"),
        (f"  from {rate(prediction.low)} to {rate(prediction.high)}\n", ""),
        (
            f"{span(prediction.low, prediction.decode_tps, prediction.high, top, width)}\n",
            "$primary",
        ),
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
        (f"{wait(prediction.ttft_ms)}", "bold"),
        (f"  after {prompt:,} tokens\n", ""),
        *_encoder(prediction),
        ("prefill      ", "$foreground-muted"),
        (f"{rate(prediction.prefill_tps)} tok/s\n", ""),
        ("confidence   ", "$foreground-muted"),
        (CONFIDENCE[prediction.confidence], ""),
    ]


def _encoder(prediction: Forecast) -> Parts:
    """What the encoder of a picture or sound takes of the first token."""
    if prediction.encode is None:
        return []
    low, high = wait(prediction.encode.low), wait(prediction.encode.high)
    return [
        ("  encoder    ", "$foreground-muted"),
        (f"{wait(prediction.encode.value)} of it  from {low} to {high}\n", ""),
    ]


def step(shown: Step) -> Parts:
    """A neighbour of the choice: what it costs and gains."""
    arrow, style = (
        ("▼ smaller", "$text-success")
        if shown.direction == "down"
        else ("▲ larger", "$text-warning")
    )
    fits = "" if shown.candidate.passes else "  ✗ " + "; ".join(map(str, shown.candidate.reasons))
    scores = "".join(
        f", {name} {_plus_or_minus(f'{value:+g}')}" for name, value in shown.scores.items()
    )
    # A rate of answers means nothing where none is given.
    answers = task(shown.candidate) == "generate"
    faster = f", {_plus_or_minus(f'{shown.decode_tps:+.1f}')} tok/s" if answers else ""
    return [
        (f"{arrow}  ", style),
        (f"{shown.candidate.label}  ", "bold"),
        (f"{_signed(shown.memory_bytes)} memory{faster}{scores}", ""),
        (f"{fits}\n", "$text-error"),
    ]


def _plus_or_minus(text: str) -> str:
    """One minus sign for all numbers of a line."""
    return text.replace("-", "−")


def _signed(size: int) -> str:
    return f"{'+' if size >= 0 else '−'}{human_bytes(abs(size))}"
