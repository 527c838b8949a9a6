"""What a session of llama.cpp has for drafted tokens; see packager.measure.speculation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from packager.json_values import JsonObject, at
from packager.measure.speculation import Drafter, Proposer, Speculated
from targets.llama_cpp import speculation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from targets.llama_cpp.heads import Heads


class Speculating:
    """The part of a Session that drafts and checks; the rest of it is in
    targets.llama_cpp.session."""

    if TYPE_CHECKING:
        context: int
        threads: int
        _lib: Any
        _model: Any
        _context: Any
        _memory: Any
        _vocab: Any
        _heads: Heads | None
        _draft: Any
        _held: Sequence[int] | None

        def ends(self) -> frozenset[int]:
            """See packager.session.Session."""

        def use_threads(self, threads: int) -> None:
            """See Session."""

        def _other(self, artifact: str, settings: JsonObject) -> Any: ...
        def _must_fit(self, prompt: Sequence[int], max_new_tokens: int) -> None: ...
        def _feed(self, tokens: Sequence[int]) -> None: ...
        def _after_prefix(self, prompt: Sequence[int]) -> Sequence[int]: ...
        def _best(self) -> int: ...
        def _compute(self, batch: Any, count: int) -> None: ...

    def proposer(self, asked: JsonObject) -> Proposer:
        """See packager.measure.speculation.Speculates. Raises PackError: usage for a draft of
        another vocabulary."""
        if self._heads is not None:
            return self._heads.propose
        self._draft = self._other(
            at(asked, "artifact", str),
            {
                "context": self.context,
                "kv": "f16",
                "threads": self.threads,
                "gpu_layers": asked.get("gpu_layers"),
                "speculation": {"rollback": at(asked, "rollback", int)},
            },
        )
        speculation.same_vocabulary(self._lib, self._vocab, self._draft._vocab)
        width = self._lib.llama_vocab_n_tokens(self._vocab)
        return speculation.ModelDraft(self._draft, width)

    def speculate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        draft: Drafter,
        on_token: Callable[[int], None] = lambda _: None,
        *,
        stop: bool = True,
    ) -> Speculated:
        """See packager.measure.speculation.Speculates. Raises PackError (usage) when prompt and
        answer exceed the context, or where a recurrent state cannot take back tokens."""
        self._must_fit(prompt, max_new_tokens)
        self._feed(self._after_prefix(prompt))
        with self.stepping():
            return speculation.answer(
                self.checks(),
                self._best(),
                prompt,
                max_new_tokens,
                draft,
                self.ends() if stop else (),
                on_token,
            )

    def check_ms(self, prompt: Sequence[int], count: int) -> float:
        """See packager.measure.speculation.Speculates."""
        self._must_fit(prompt, count)
        lib, memory, end = self._lib, self._memory, len(prompt)
        # The step before took itself back: a prompt of a large model takes longer than all steps.
        if self._held != prompt or lib.llama_memory_seq_pos_max(memory, 0) != end - 1:
            lib.llama_memory_clear(memory, False)
            self._feed(prompt)
        checks = self.checks()
        with self.stepping():
            started = time.perf_counter()
            checks.put([prompt[-1]] * count, end)
            for row in range(count):
                checks.likeliest(row)
            taken = time.perf_counter() - started
        if not checks.snapshots and lib.llama_memory_seq_rm(memory, 0, end, -1):
            self._held = list(prompt)
        return 1000 * taken

    def logits_after(
        self, prompt: Sequence[int], tokens: Sequence[int], at_once: int
    ) -> NDArray[np.float32]:
        """See packager.measure.parting.Steps. Raises PackError (usage) when both exceed the
        context."""
        self._must_fit(prompt, len(tokens))
        self._feed(self._after_prefix(prompt))
        checks, row = self.checks(), -1
        with self.stepping():
            for start in range(0, len(tokens), at_once):
                piece = tokens[start : start + at_once]
                checks.put(piece, len(prompt) + start)
                row = len(piece) - 1
        return checks.logits(row).copy()

    def checks(self) -> speculation.Checks:
        """Steps of several tokens over this session's cache."""
        lib = self._lib
        hybrid = lib.llama_model_is_hybrid(self._model)
        copied = bool(hybrid and not lib.llama_n_rs_seq(self._context))
        return speculation.Checks(
            lib, self._context, self._memory, self._vocab, self._compute, copied
        )

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Within the block a few tokens at once take the threads of decoding: they wait for memory
        as one token does, and more threads than idle cores wait for each other."""
        self._lib.llama_set_n_threads(self._context, self.threads, self.threads)
        try:
            yield
        finally:
            self.use_threads(self.threads)
