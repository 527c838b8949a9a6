"""Drafted tokens checked by llama.cpp: several at once behind the cache, those that are wrong taken
back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from packager.errors import usage
from packager.measure.speculation import Drafter, Speculated


@dataclass(frozen=True, slots=True)
class Checks:
    """A context whose cache holds what was said so far."""

    lib: Any
    context: Any
    memory: Any
    vocab: Any
    compute: Callable[[Any, int], None]

    def best(self, tokens: Sequence[int], position: int) -> list[int]:
        """The likeliest token behind each of these, the first of which stands at that position;
        they are in the cache then."""
        # Late: numpy comes with the engine.
        import numpy as np

        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for row, token in enumerate(tokens):
                batch.token[row], batch.pos[row] = token, position + row
                batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
            self.compute(batch, len(tokens))
        finally:
            self.lib.llama_batch_free(batch)
        width = self.lib.llama_vocab_n_tokens(self.vocab)
        logits = np.ctypeslib.as_array(
            self.lib.llama_get_logits(self.context), (len(tokens), width)
        )
        return [int(token) for token in logits.argmax(axis=1)]

    def take_back(self, position: int) -> None:
        """Forget what stands at that position and behind it. Raises PackError (usage) for a
        recurrent state, which has no positions."""
        if not self.lib.llama_memory_seq_rm(self.memory, 0, position, -1):
            raise usage(
                "The recurrent state of this model cannot take back drafted tokens.",
                "Decode it without speculation.",
            )


def answer(
    checks: Checks,
    first: int,
    prompt: Sequence[int],
    max_new_tokens: int,
    draft: Drafter,
    ends: Collection[int],
) -> Speculated:
    """An answer behind a prompt that is in the cache; `first` is its first token. One of `ends`
    ends it and is no part of it."""
    told: list[int] = []
    steps = drafted = accepted = 0
    following, position = [first], len(prompt)
    while True:
        for token in following:
            if token in ends or len(told) == max_new_tokens:
                return Speculated(told, steps, drafted, accepted)
            told.append(token)
        if len(told) == max_new_tokens:
            return Speculated(told, steps, drafted, accepted)
        # The model says one token itself behind those that are right.
        room = max_new_tokens - len(told) - 1
        proposed = list(draft([*prompt, *told]))[:room]
        best = checks.best([told[-1], *proposed], position)
        right = 0
        while right < len(proposed) and best[right] == proposed[right]:
            right += 1
        steps, drafted, accepted = steps + 1, drafted + len(proposed), accepted + right
        position += 1 + right
        if right < len(proposed):
            checks.take_back(position)
        following = best[: right + 1]
