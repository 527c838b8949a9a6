"""What a quantized cache loses when it is full: one artifact twice over the same tokens, its cache
once in the packaged type and once in 16 bits.

The ordinary pieces of the gate are short, and what a quantized cache does grows with what is in it:
whole answers can be broken that no short text shows (github.com/ggml-org/llama.cpp, issue 23044).
It takes no reference, so the context is filled as far as a build has time for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.chat.profile import Profile
from packager.chat.speech import of_folder
from packager.checkpoint.template import render_apart, split
from packager.errors import PackError
from packager.json_values import JsonObject, at
from packager.process import resolve
from packager.quality import text as texts
from packager.quality.parity_corpus import CONVERSATIONS
from packager.quality.text import Text
from packager.quality.thresholds import limits
from packager.records import QualityVerdict
from packager.records.quality import CacheQuality
from packager.runtime import Report
from packager.session import Session

if TYPE_CHECKING:
    from packager.checkpoint import Checkpoint

VERSION = 1
"""Raised when the same artifact would give other figures."""

MOST_TOKENS = texts.FURTHEST
"""Tokens that the cache is filled with at most: two prefills of them are a minute on two cores for
a model of 600 million parameters."""

_COMPARED = 256
"""Predictions at the end of the context that are compared: their logits are kept in between, 156 MB
for a vocabulary of 151,936."""

_CALL = "a tool's answer"
"""The conversation that stands at the end of the context: its call of a tool is compared too."""

RULES = ("kl_mean", "top1")


def compare(
    report: Report,
    asked: JsonObject,
    artifact: str,
    settings: JsonObject,
    source: Checkpoint,
    ids: Sequence[int],
) -> JsonObject:
    """`cache`, the figures of `asked`, as `judged` takes them. `asked` has `session`, `against`
    (the cache type of 16 bits) and `grade`, the class of limits that the packaged type is held to;
    `settings` its `kv` and the `context`. `ids` are what `full` gave."""
    # Late: numpy, for the child that computes.
    import numpy as np

    from packager.quality.metrics import Comparison

    make = resolve(at(asked, "session", str))
    last = max(0, len(ids) - _COMPARED)
    report.note(f"the cache in {settings['kv']} and in {asked['against']}, {len(ids)} tokens in it")

    def end_of(kv: str) -> Iterator[tuple[int, Any]]:
        model: Session = make(artifact, {**settings, "kv": kv})
        try:
            start = 0
            for block in model.logits(ids):
                skipped = max(0, last - start)
                if skipped < len(block):
                    yield start + skipped, block[skipped:]
                start += len(block)
                report.progress(start, len(ids), "tokens")
        finally:
            model.close()

    wanted = np.concatenate([np.array(block) for _, block in end_of(at(asked, "against", str))])
    lost = Comparison()
    for start, block in end_of(at(settings, "kv", str)):
        end = min(start + len(block), len(ids) - 1)
        if end > start:
            lost.add(
                wanted[start - last : end - last], block[: end - start], ids[start + 1 : end + 1]
            )
    figures = lost.figures().as_dict()
    kept = {name: figures[name] for name in ("tokens", "broken", "kl_mean", "kl_p99", "top1")}
    kinds = {"kv": settings["kv"], "against": asked["against"], "grade": asked["grade"]}
    return {"cache": {**kept, **kinds, "context": len(ids)}}


def full(
    source: Checkpoint, gate_text: Text, encode: Any, context: int, profile: Profile, log: Path
) -> list[int]:
    """Token ids that fill the context, as far as the gate's text goes and MOST_TOKENS: the text,
    then a conversation with a call of a tool, where the chat template takes one."""
    most = min(context, MOST_TOKENS, source.shape.context)
    call = encode(_conversation(source, profile, log))[-most // 2 :]
    whole = "\n".join(part.text for part in gate_text.parts)
    text = encode(whole[: texts.READ_PER_TOKEN * most])
    return [*text[: most - len(call)], *call]


def _conversation(source: Checkpoint, profile: Profile, log: Path) -> str:
    template = of_folder(source.folder, profile).template
    if template is None:
        return ""
    messages, variables = split(CONVERSATIONS[_CALL])
    try:
        return render_apart(template, messages, log, **variables)
    except PackError:
        # A template that takes no tools: the text alone fills the context.
        return ""


def judged(facts: JsonObject) -> tuple[CacheQuality | None, tuple[QualityVerdict, ...]]:
    """The figures among a comparison's `facts` and their rows; none where the cache was not
    compared. A prediction that is not a number misses all of them."""
    if not facts.get("cache"):
        return None, ()
    quality = CacheQuality.from_json(facts["cache"])
    own = limits(quality.grade)
    if own is None:
        return quality, ()
    allowed = asdict(own)
    verdicts = []
    for rule in RULES:
        measured, at_least = getattr(quality, rule), rule == "top1"
        close = measured is not None and (
            measured >= allowed[rule] if at_least else measured <= allowed[rule]
        )
        verdicts.append(
            QualityVerdict(
                rule=f"cache_{rule}",
                limit=allowed[rule],
                measured=measured,
                at_least=at_least,
                passed=close and not quality.broken,
            )
        )
    return quality, tuple(verdicts)


def sentence(found: CacheQuality) -> str:
    """What the cache loses, as papers say it."""
    if found.kl_mean is None or found.kl_p99 is None or found.top1 is None:
        return f"A cache of the type {found.kv} gives predictions that are not numbers."
    return (
        f"With {found.context} tokens in it a cache of the type {found.kv} is {found.kl_mean:.4f} "
        f"nats from one of {found.against} (P99 {found.kl_p99:.4f}), same top token "
        f"{found.top1:.1%}, on {found.tokens} predictions."
    )
