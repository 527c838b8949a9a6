"""The draft module for multi-token prediction that a Qwen3.5 or Qwen3-Next brings: run by
llama.cpp's context of that kind, which reads the hidden states of the model's own context.

Source: llama.cpp, common/speculative.cpp (common_speculative_impl_draft_mtp) and
src/models/qwen35.cpp. The functions for the hidden states are not in llama.cpp's public header;
llama-cpp-python binds them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packager.cores import cores
from packager.errors import bad_input, no_room
from targets.gguf import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Heads:
    """The module of one loaded model. It follows everything that the model computes, and proposes
    what may come next."""

    def __init__(self, lib: Any, model: Any, context: Any, params: Any) -> None:
        """`params` are those of the model's own context. Raises PackError: bad input where the file
        has no such module."""
        # Late: it comes with the engine, and only this needs it.
        import numpy as np
        from llama_cpp import llama_cpp_ext

        if not lib.llama_model_n_layer_nextn(model):
            raise bad_input(
                "The model file has no heads for multi-token prediction.",
                "Build it with --speculate mtp from a checkpoint that has them.",
            )
        self._lib, self._extension, self._target = lib, llama_cpp_ext, context
        params.ctx_type, params.ctx_other = lib.LLAMA_CONTEXT_TYPE_MTP, context
        with library.captured_log() as log_lines:
            self._context = lib.llama_init_from_model(model, params)
        if not self._context:
            raise no_room(
                f"llama.cpp cannot open a context for the heads: {''.join(log_lines)[-300:]}",
                "Take a shorter context or a smaller variant.",
            )
        self._memory = lib.llama_get_memory(self._context)
        self._width = lib.llama_model_n_embd_out(model)
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._batch = lib.llama_batch_ext_init(self._context)
        self._rows: NDArray[np.float32] = np.zeros((0, self._width), np.float32)
        self._begin = 0
        """Position of the first of the hidden states."""
        llama_cpp_ext.llama_set_embeddings_nextn(context, True, False)
        llama_cpp_ext.llama_set_embeddings_nextn(self._context, True, True)

    def follow(self, tokens: Sequence[int], begin: int) -> None:
        """Take over what the model has just computed: tokens from the position `begin` on."""
        import numpy as np

        rows = np.ctypeslib.as_array(
            self._extension.llama_get_embeddings_nextn(self._target), (len(tokens), self._width)
        ).copy()
        # Every token goes with the state of the position before it; what precedes the first is not
        # known where a kept prefix was put in.
        before = self._state(begin - 1)
        self._lib.llama_memory_seq_rm(self._memory, 0, begin, -1)
        states = np.concatenate([before[None], rows[:-1]])
        self._decode(tokens, states, begin, last=False)
        self._rows, self._begin = rows, begin

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See packager.measure.speculation.Proposer."""
        import numpy as np

        proposed: list[int] = []
        position, token = len(tokens) - 1, tokens[-1]
        state = self._state(position - 1)
        self._lib.llama_memory_seq_rm(self._memory, 0, position, -1)
        while len(proposed) < most:
            self._decode([token], state[None], position, last=True)
            logits = self._lib.llama_get_logits_ith(self._context, -1)
            token = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
            proposed.append(token)
            seen = self._extension.llama_get_embeddings_nextn_ith(self._context, 0)
            state = np.ctypeslib.as_array(seen, (self._width,)).copy()
            position += 1
        return proposed

    def use_threads(self, threads: int) -> None:
        """As many as the model's own context."""
        self._lib.llama_set_n_threads(self._context, threads, max(threads, cores().big))

    def close(self) -> None:
        """Free the context; before the model's own."""
        self._lib.llama_batch_ext_free(self._batch)
        self._lib.llama_free(self._context)

    def _state(self, position: int) -> NDArray[np.float32]:
        """The hidden state at a position; zeros for one that was not followed."""
        import numpy as np

        row = position - self._begin
        if 0 <= row < len(self._rows):
            state: NDArray[np.float32] = self._rows[row]
            return state
        return np.zeros(self._width, np.float32)

    def _decode(
        self, tokens: Sequence[int], states: NDArray[np.float32], begin: int, *, last: bool
    ) -> None:
        lib, batch = self._lib, self._batch
        lib.llama_batch_ext_clear(batch)
        # The engine copies what it is handed; the array lives until then.
        held = states.astype("f4", order="C")
        for row, token in enumerate(tokens):
            index = lib.llama_batch_ext_add_token(batch, 0, token)
            data = held[row].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            lib.llama_batch_ext_set_embd_token(batch, index, lib.llama_embd(data, 1, self._width))
            lib.llama_batch_ext_set_pos(batch, index, ctypes.byref(ctypes.c_int32(begin + row)))
            lib.llama_batch_ext_set_output_logits(batch, index, last and row == len(tokens) - 1)
        code = lib.llama_process(self._context, lib.LLAMA_PROCESS_TYPE_DECODE, batch)
        if code:
            raise no_room(
                f"llama.cpp could not compute the heads for {len(tokens)} tokens (code {code}).",
                "Take a shorter context or a smaller variant.",
            )
