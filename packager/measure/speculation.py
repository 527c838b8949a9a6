"""Speculation with a verdict: what it costs to check drafted tokens on this machine, how many of
them have to be right for that to pay, and how many are.

One step takes what is drafted and the token before it through the model at once, keeps the drafted
tokens that the model would have said itself, and the token that it says behind them. Source of the
arithmetic: Leviathan et al., Fast Inference from Transformers via Speculative Decoding (2023),
theorems 3.8 and 3.11; there a check costs what a token costs, here it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from packager.errors import usage
from packager.json_values import JsonObject, at

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.runtime import Report
    from packager.session import Session

VERSION = 4
"""Raised when the same artifact would give other figures."""

WIDTHS = (1, 2, 3, 4, 6, 8)
"""Drafted tokens of a step that are measured."""

NGRAM = 3
"""Tokens that must have stood together before, for what followed them then to be drafted."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds on one machine: of a decoded token, of drafting one, of checking so many drafted
    tokens in one step."""

    decode_ms: float
    draft_ms: float
    check_ms: Mapping[int, float]

    def step_ms(self, drafted: int) -> float:
        """A step with so many drafted tokens."""
        return self.check_ms[drafted] + drafted * self.draft_ms

    def speed_up(self, acceptance: float, drafted: int) -> float:
        """Times as fast as without, where each drafted token is right with that probability."""
        return said(acceptance, drafted) * self.decode_ms / self.step_ms(drafted)

    def break_even(self, drafted: int) -> float | None:
        """The least acceptance that is not slower than decoding; None where even 1 is."""
        if self.speed_up(1.0, drafted) < 1:
            return None
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if self.speed_up(middle, drafted) >= 1:
                high = middle
            else:
                low = middle
        return high

    def best(self, acceptance: float) -> int:
        """The number of drafted tokens that is fastest at that acceptance."""
        return max(self.check_ms, key=lambda drafted: self.speed_up(acceptance, drafted))


def said(acceptance: float, drafted: int) -> float:
    """Tokens of a step on average: those that are right one after another, and the model's own."""
    return float(sum(acceptance**number for number in range(drafted + 1)))


@dataclass(frozen=True, slots=True)
class Speculated:
    """An answer, and how it came about; `held` are the tokens of prompt and answer that the cache
    holds."""

    tokens: list[int]
    steps: int
    drafted: int
    accepted: int
    held: int = 0


Drafter = Callable[[Sequence[int]], Sequence[int]]
"""From all tokens so far to those that may follow; none where nothing is drafted."""

Proposer = Callable[[Sequence[int], int], Sequence[int]]
"""As a Drafter, with the most tokens that are wanted: what an engine brings itself."""


@runtime_checkable
class Speculates(Protocol):
    """What a Session has besides where its engine can check several tokens at once and take back
    those that were wrong."""

    def proposer(self, asked: JsonObject) -> Proposer:
        """What drafts, as `asked` says (see `way`), where that is more than a look at the prompt.
        It is freed with the session. Raises PackError: usage for a draft of another
        vocabulary."""

    def check_ms(self, prompt: Sequence[int], count: int) -> float:
        """Milliseconds of a step with `count` tokens behind a prompt, all of them answered; one
        token is plain decoding."""

    def logits_after(
        self, prompt: Sequence[int], tokens: Sequence[int], at_once: int
    ) -> NDArray[np.float32]:
        """See packager.measure.parting.Steps."""

    def speculate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        draft: Drafter,
        on_token: Callable[[int], None] = lambda _: None,
        *,
        stop: bool = True,
    ) -> Speculated:
        """As `Session.generate`, with what `draft` proposes checked in every step."""


def way(how: str, artifact: str | None = None, widest: int = WIDTHS[-1]) -> JsonObject:
    """What a session is told of how tokens are drafted, as `speculation` of its settings: `how`
    (`lookup`, `draft` with the `artifact` of that model, `mtp`), and `rollback`, how many tokens
    may have to be taken back at once."""
    return {"how": how, "rollback": widest + 1, **({"artifact": artifact} if artifact else {})}


def proposer_of(model: Speculates, asked: JsonObject) -> Proposer:
    """What drafts for a session that was opened with `asked` as its `speculation`."""
    if asked["how"] != "lookup":
        return model.proposer(asked)
    return lambda tokens, most: Lookup(NGRAM, most)(tokens)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Prompt lookup: what followed the last `ngram` tokens where they stood last before, `most`
    tokens of it. Takes no model and no memory."""

    ngram: int
    most: int

    def __call__(self, tokens: Sequence[int]) -> Sequence[int]:
        """See Drafter."""
        end = len(tokens) - self.ngram
        if end < 1:
            return ()
        tail = list(tokens[end:])
        for start in range(end - 1, -1, -1):
            if tokens[start] == tail[0] and list(tokens[start : start + self.ngram]) == tail:
                follows = start + self.ngram
                return tokens[follows : follows + self.most]
        return ()


def answer(
    model: Session,
    asked: JsonObject,
    prompt: Sequence[int],
    most: int,
    on_token: Callable[[int], None],
) -> None:
    """As `Session.generate`, with as many tokens drafted in a step as `asked` says in `drafted`.
    Raises PackError (usage) where the session checks none."""
    if not isinstance(model, Speculates):
        raise usage("This engine checks no drafted tokens here.", "Run it without --speculate.")
    proposer, width = proposer_of(model, asked), at(asked, "drafted", int)
    model.speculate(prompt, most, lambda tokens: proposer(tokens, width), on_token)


_PROMPT, _ANSWER = 256, 64
_ROUNDS = 5
_PAYS = 1.05
"""Times as fast as without that count as a gain: less is inside the noise of a measurement."""


def measure(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    asked: JsonObject,
    texts: Mapping[str, str] | None,
) -> JsonObject:
    """The costs of a way of drafting on this machine, and its verdict.

    `asked` is what `way` gives, `texts` are beginnings of texts by kind, None where the weights are
    random, whose answers say nothing of acceptance. Returns `how`, `decode_ms`, `draft_ms`,
    `steps[]` (`drafted`, `check_ms`, `break_even`), and with texts `drafted`, `ngram`, `kinds[]`
    (`name`, `drafted`, `accepted`, `speed_up`, and `parted` where the answer is another one, see
    packager.measure.parting), `acceptance`, `speed_up`, `same` and `pays`; and `peak_memory_bytes`
    of this process. Answers that part at a tie count as the same. Raises PackError (usage) where
    the session cannot take back tokens.
    """
    # What `fit` takes of this module is arithmetic: a tenth of its time went into the imports.
    from packager.process import peak_resident_bytes, resident_bytes, resolve

    model: Session = resolve(session)(artifact, {**settings, "speculation": asked})
    try:
        if not isinstance(model, Speculates):
            raise usage("This engine checks no drafted tokens here.", "Leave --speculate out.")
        proposer = proposer_of(model, asked)
        costs = _costs(report, model, proposer, at(settings, "context", int))
        facts: JsonObject = {
            "how": asked["how"],
            **({"ngram": NGRAM} if asked["how"] == "lookup" else {}),
            "decode_ms": costs.decode_ms,
            "draft_ms": costs.draft_ms,
            "steps": [
                {
                    "drafted": drafted,
                    "check_ms": costs.check_ms[drafted],
                    "break_even": costs.break_even(drafted),
                }
                for drafted in WIDTHS
            ],
        }
        if texts is not None:
            context = at(settings, "context", int)
            facts = {**facts, **_accepted(report, model, proposer, costs, texts, context)}
        return {**facts, "peak_memory_bytes": max(peak_resident_bytes(), resident_bytes())}
    finally:
        model.close()


def _costs(report: Report, model: Session, proposer: Proposer, context: int) -> Costs:
    """Every width takes its turn in each round, so that a busy moment hits all of them; what is
    drafted with them."""
    import statistics

    # Late for `fit`, as above.
    from packager.measure.trials import prompt_ids

    assert isinstance(model, Speculates)
    prompt = prompt_ids(model, max(2, min(_PROMPT, context // 2)), 1)
    times: dict[int, list[float]] = {width: [] for width in (0, *WIDTHS)}
    drafts: list[float] = []
    for number in range(_ROUNDS):
        for width, taken in times.items():
            taken.append(model.check_ms(prompt, width + 1))
        model.check_ms(prompt, 1)
        behind = [*prompt, prompt[-1]]
        # It reads the prompt once, and no step pays for that.
        proposer(behind, 1)
        began = time.perf_counter()
        proposer(behind, WIDTHS[-1])
        drafts.append(1000 * (time.perf_counter() - began) / WIDTHS[-1])
        report.progress(number + 1, _ROUNDS, "rounds")
    middle = {width: statistics.median(taken) for width, taken in times.items()}
    draft_ms = statistics.median(drafts)
    return Costs(middle[0], draft_ms, {width: middle[width] for width in WIDTHS})


def _accepted(
    report: Report,
    model: Session,
    proposer: Proposer,
    costs: Costs,
    texts: Mapping[str, str],
    context: int,
) -> JsonObject:
    """Answers to the beginnings of the texts, plain and speculating."""
    # Late for `fit`, as above.
    from packager.measure.parting import parting

    assert isinstance(model, Speculates)
    most = max(1, min(_ANSWER, context // 4))
    prompts = {
        name: model.encode(text)[: max(1, min(_PROMPT, context - most))]
        for name, text in texts.items()
    }
    # One look at what is accepted says how many tokens to draft.
    first = [
        model.speculate(ids, most, lambda tokens: proposer(tokens, WIDTHS[2]), stop=False)
        for ids in prompts.values()
    ]
    width = costs.best(_share(first))
    kinds: list[JsonObject] = []
    seen: list[Speculated] = []
    plain_s = speculating_s = 0.0
    same = True
    for name, ids in prompts.items():
        began = time.perf_counter()
        plain = model.generate(ids, most, lambda _: None, stop=False)
        middle = time.perf_counter()
        answer = model.speculate(ids, most, lambda tokens: proposer(tokens, width), stop=False)
        ended = time.perf_counter()
        parted = parting(model, ids, plain, answer.tokens)
        same = same and (parted is None or parted.tie)
        plain_s, speculating_s = plain_s + middle - began, speculating_s + ended - middle
        seen.append(answer)
        kinds.append(
            {
                "name": name,
                "drafted": answer.drafted,
                "accepted": answer.accepted,
                "speed_up": (middle - began) / (ended - middle),
                **({"parted": parted.as_dict()} if parted else {}),
            }
        )
    report.note(f"{len(kinds)} kinds of text, plain and speculating")
    speed_up = plain_s / speculating_s
    return {
        "drafted": width,
        "kinds": kinds,
        "acceptance": _share(seen),
        "speed_up": speed_up,
        "same": same,
        "pays": same and speed_up >= _PAYS,
    }


def _share(answers: Sequence[Speculated]) -> float:
    drafted = sum(answer.drafted for answer in answers)
    return sum(answer.accepted for answer in answers) / drafted if drafted else 0.0
