"""Where two greedy answers of one model part, and whether rounding alone explains it.

An engine computes several tokens at once by other instructions than one alone, in another order of
sums. Two tokens that are as likely as each other may change places by that; a state that was put
back wrongly moves logits much further. Both are measured at the place itself: how far the two
tokens lie apart, and how far the number of tokens at once moves that distance where nothing is ever
taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Protocol

from packager.json_values import JsonObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STEPS = (2, 3, 4, 5, 8, 9)
"""Tokens at once for which the distance is measured; 9 are the most that a step checks. Engines
compute rows in fours by other instructions than the rest: 4 and 8 end with such a row."""
_TIMES = 2.0
"""Times the measured rounding up to which a distance counts as a tie: only some ways to cut an
answer into steps are tried."""


class Steps(Protocol):
    """What a session has where it can say how the number of tokens at once changes its logits."""

    def logits_after(
        self, prompt: Sequence[int], tokens: Sequence[int], at_once: int
    ) -> NDArray[np.float32]:
        """Logits of every token (vocabulary) after a prompt and what was said behind it, computed
        so many tokens at once, none of them taken back."""


@dataclass(frozen=True, slots=True)
class Parting:
    """The first token of an answer, counted from 0, that is another one in the other answer.

    `gap` is how much likelier the plain answer's token is, in nats, one token computed at a time;
    `rounding` how far that moves, in nats, with the number of tokens at once.
    """

    at: int
    gap: float
    rounding: float

    @property
    def tie(self) -> bool:
        """Whether rounding explains it."""
        # Below 0 the other token is the likelier one, which plain decoding cannot have passed over.
        return abs(self.gap) <= _TIMES * self.rounding

    def as_dict(self) -> JsonObject:
        """JSON form; a gap without end is None."""
        return {
            "at": self.at,
            "gap": self.gap if isfinite(self.gap) else None,
            "rounding": self.rounding,
            "tie": self.tie,
        }


def parting(
    model: Steps, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int]
) -> Parting | None:
    """Where another answer leaves the plain one; None for the same tokens. One that ends sooner is
    infinitely far away."""
    pairs = enumerate(zip(plain, other, strict=False))
    at = next((place for place, (ours, theirs) in pairs if ours != theirs), None)
    if at is None:
        same = len(plain) == len(other)
        return None if same else Parting(min(len(plain), len(other)), inf, 0.0)

    def distance(begin: Sequence[int], behind: Sequence[int], at_once: int) -> float:
        logits = model.logits_after(begin, behind, at_once)
        return float(logits[plain[at]]) - float(logits[other[at]])

    gap = distance(prompt, plain[:at], 1)
    before = [*prompt, *plain[:at]]
    # Cut into steps behind the prompt, and with a last step that is full whatever stands before it.
    ways = [(prompt, plain[:at], at_once) for at_once in STEPS if at]
    ways += [(before[:-cut], before[-cut:], cut) for cut in STEPS if cut < len(before)]
    return Parting(at, gap, max((abs(distance(*way) - gap) for way in ways), default=0.0))
