"""Drafted tokens checked by llama.cpp: several at once behind the cache, those that are wrong taken
back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from packager.errors import usage
from packager.measure.speculation import Drafter, Speculated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True)
class Checks:
    """A context whose cache holds what was said so far. `snapshots` says that its recurrent state
    is copied before every step, as llama.cpp takes back no part of it for this architecture."""

    lib: Any
    context: Any
    memory: Any
    vocab: Any
    compute: Callable[[Any, int], None]
    snapshots: bool = False
    _before: Any = None
    _step: tuple[list[int], int] = ([], 0)

    def likeliest(self, row: int) -> int:
        """The likeliest token behind one of those that were put last, counted from 0."""
        return int(self.logits(row).argmax())

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits (vocabulary) behind one of those that were put last; the engine's own
        buffer."""
        # Late: numpy comes with the engine.
        import numpy as np

        width = self.lib.llama_vocab_n_tokens(self.vocab)
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, row), (width,))

    def put(self, tokens: Sequence[int], position: int) -> None:
        """Compute them at that position, with the logits of each; what can be taken back is from
        there on."""
        if self.snapshots and len(tokens) > 1:
            self._before, self._step = self._state(), (list(tokens), position)
        self._decode(tokens, position)

    def take_back(self, position: int) -> None:
        """Forget what stands at that position and behind it. Raises PackError (usage) where the
        engine cannot."""
        if not self.snapshots:
            if not self.lib.llama_memory_seq_rm(self.memory, 0, position, -1):
                raise usage(
                    "The recurrent state of this model cannot take back drafted tokens.",
                    "Decode it without speculation.",
                )
            return
        tokens, begin = self._step
        flags = self.lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = len(self._before)
        self.lib.llama_state_seq_set_data_ext(self.context, self._before, size, 0, flags)
        if not self.lib.llama_memory_seq_rm(self.memory, 0, begin, -1):
            raise usage(
                "The recurrent state of this model cannot be put back.",
                "Decode it without speculation.",
            )
        self._decode(tokens[: position - begin], begin)

    def _state(self) -> Any:
        flags = self.lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = self.lib.llama_state_seq_get_size_ext(self.context, 0, flags)
        held = (ctypes.c_uint8 * size)()
        self.lib.llama_state_seq_get_data_ext(self.context, held, size, 0, flags)
        return held

    def _decode(self, tokens: Sequence[int], position: int) -> None:
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for row, token in enumerate(tokens):
                batch.token[row], batch.pos[row] = token, position + row
                batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
            self.compute(batch, len(tokens))
        finally:
            self.lib.llama_batch_free(batch)


def answer(
    checks: Checks,
    first: int,
    prompt: Sequence[int],
    max_new_tokens: int,
    draft: Drafter,
    ends: Collection[int],
    on_token: Callable[[int], bool | None],
    choose: Callable[[int], int] | None = None,
) -> Speculated:
    """An answer after a prompt that is in the cache; `first` is its first token. One of `ends`
    ends it and is no part of it, and so does `on_token` with False.

    `choose` says the token behind one of those that were put last, the likeliest unless given; it
    is asked in order, and only behind tokens that it said itself.
    """
    choose = choose or checks.likeliest
    told: list[int] = []
    steps = drafted = accepted = 0
    following, position = [first], len(prompt)
    while True:
        for token in following:
            if token in ends or len(told) == max_new_tokens:
                return Speculated(told, steps, drafted, accepted, position)
            told.append(token)
            if on_token(token) is False:
                return Speculated(told, steps, drafted, accepted, position)
        if len(told) == max_new_tokens:
            return Speculated(told, steps, drafted, accepted, position)
        # The model says one token itself behind those that are right.
        room = max_new_tokens - len(told) - 1
        proposed = list(draft([*prompt, *told]))[:room]
        checks.put([told[-1], *proposed], position)
        following = [choose(0)]
        while len(following) <= len(proposed) and following[-1] == proposed[len(following) - 1]:
            following.append(choose(len(following)))
        right = len(following) - 1
        steps, drafted, accepted = steps + 1, drafted + len(proposed), accepted + right
        position += 1 + right
        if right < len(proposed):
            checks.take_back(position)


_STEP = 16
"""Tokens at once up to which a model waits for memory as it does for one."""
_PADDING = "[PAD"
"""How names of tokens begin that a vocabulary has only to be as wide as the matrix."""


def same_vocabulary(lib: Any, ours: Any, theirs: Any) -> None:
    """Raise PackError (usage) where a token that both know is not the same text in both; padding
    of either may be anything."""
    most = min(lib.llama_vocab_n_tokens(ours), lib.llama_vocab_n_tokens(theirs))
    for token in range(most):
        left, right = (lib.llama_vocab_get_text(vocab, token) for vocab in (ours, theirs))
        padding = any(text.startswith(_PADDING.encode()) for text in (left, right))
        if left != right and not padding:
            raise usage(
                f"The draft has another vocabulary: token {token} is {_shown(right)} there and "
                f"{_shown(left)} here.",
                "Take a draft of the same family; `qwen-pack fit` proposes one.",
            )


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))


class Feeds(Protocol):
    """What a draft's session must have; see targets.llama_cpp.session.Session."""

    context: int

    def keep_until(self, position: int) -> bool:
        """Forget what was computed at a position and after it."""

    def feed_at(self, tokens: Sequence[int], position: int) -> int:
        """Compute text at a position; the position after it."""

    def best(self) -> int:
        """The likeliest token after what was computed last."""

    def stepping(self) -> AbstractContextManager[None]:
        """A few tokens at once within the block."""


class ModelDraft:
    """A second model that says what may follow; what its cache holds is not computed again."""

    def __init__(self, session: Feeds, vocabulary: int) -> None:
        self._session, self._vocabulary = session, vocabulary
        self._known: list[int] = []

    def __call__(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See packager.measure.speculation.Proposer."""
        session, known = self._session, self._known
        limit = min(len(known), len(tokens) - 1)
        shared = next((place for place in range(limit) if known[place] != tokens[place]), limit)
        if not session.keep_until(shared):
            shared = 0
        # Whatever happens now, nobody knows what the cache holds until it is over.
        self._known = []
        if len(tokens) - shared > _STEP:
            session.feed_at(tokens[shared:-1], shared)
            shared = len(tokens) - 1
        with session.stepping():
            proposed, position = self._proposed(tokens, shared, most)
        self._known = [*tokens, *proposed][:position]
        return proposed

    def _proposed(self, tokens: Sequence[int], shared: int, most: int) -> tuple[list[int], int]:
        """What may follow, and the position after what the cache holds then."""
        session = self._session
        position = session.feed_at(tokens[shared:], shared)
        proposed: list[int] = []
        room = min(most, session.context - len(tokens))
        while len(proposed) < room:
            token = session.best()
            if token >= self._vocabulary:
                break
            proposed.append(token)
            if len(proposed) < room:
                position = session.feed_at([token], position)
        return proposed, position
