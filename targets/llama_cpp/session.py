"""One GGUF model loaded by llama.cpp, for the benchmark and for a quick answer."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager import huge_pages
from packager.cores import cores, fewest
from packager.errors import bad_input, no_room, usage
from packager.json_values import JsonObject, at, at_or_none, object_or_empty
from packager.session import LOGITS_BLOCK
from targets.gguf import library
from targets.gguf.presets import PROJECTOR, cache_type_of
from targets.llama_cpp.heads import Heads
from targets.llama_cpp.prefix import StoredPrefix
from targets.llama_cpp.speculating import Speculating

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 512
"""Tokens of a prompt computed at once (n_batch and n_ubatch): llama.cpp's own default micro
batch."""

_TRIAL_ROUNDS, _TRIAL_TOKENS = 3, 3
_CLOSE = 0.05
"""A few tokens vary by this much; see packager.cores.fewest."""


class Session(Speculating):
    """See packager.session.Session. `threads` says how many decode: given, or the fastest of a
    short trial."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        kv = cache_type_of(settings)
        self._lib = lib = library.llama()
        library.silence()
        path = model_file(Path(artifact))
        params = library.model_params()
        # Without a GPU that the library was built for, nothing is offloaded whatever is asked.
        params.n_gpu_layers = at_or_none(settings, "gpu_layers", int) or 0
        # Mapping the file would keep its pages resident beside the copies that the CPU kernels
        # repack.
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
        params.load_mtp = object_or_empty(settings, "speculation").get("how") == "mtp"
        with library.captured_log() as log_lines:
            self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise bad_input(
                f"llama.cpp cannot load {path.name}: {last_of(log_lines)}",
                "Build the package again.",
            )
        huge_pages.gather()
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.context = at(settings, "context", int)
        asked = object_or_empty(settings, "speculation")
        self._context = self._open_context(kv, at_or_none(asked, "rollback", int) or 0)
        self._memory = lib.llama_get_memory(self._context)
        self._add(settings.get("adapters") or [])
        self._prefix: StoredPrefix | None = None
        self.prefix_note = ""
        self._heads: Heads | None = None
        self._draft: Session | None = None
        self._held: Sequence[int] | None = None
        """The prompt that the cache holds after a measured step; None once anything is computed."""
        self._end_ids: frozenset[int] | None = None
        if asked.get("how") == "mtp":
            self._heads = Heads(lib, self._model, self._context, self._context_params(kv))
        self.use_threads(at_or_none(settings, "threads", int) or self._fastest())

    def _open_context(self, kv: str, rollback: int) -> Any:
        """`rollback`: tokens that a recurrent state can take back; each costs its size once."""
        lib = self._lib
        params = self._context_params(kv)
        if lib.llama_model_is_hybrid(self._model):
            params.n_rs_seq = rollback
        return opened(lib, self._model, params)

    def _context_params(self, kv: str) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = min(BATCH, self.context)
        params.n_seq_max = 1
        params.type_k = params.type_v = getattr(lib, f"GGML_TYPE_{kv.upper()}")
        # Needed for a quantized cache of values, and without it attention scores take context x
        # batch x heads.
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        return params

    def _add(self, adapters: Any) -> None:
        """Adapters by `path` and `scale`; the model owns them. Raises PackError (bad input)."""
        if not adapters:
            return
        lib, loaded = self._lib, []
        for row in adapters:
            path = Path(row["path"])
            with library.captured_log() as log_lines:
                adapter = lib.llama_adapter_lora_init(self._model, str(path).encode())
            if not adapter:
                raise bad_input(
                    f"llama.cpp cannot load {path.name}: {last_of(log_lines)}",
                    "Build the adapter again for this package.",
                )
            loaded.append(adapter)
        scales = (ctypes.c_float * len(loaded))(*(row["scale"] for row in adapters))
        held = (lib.llama_adapter_lora_p_ctypes * len(loaded))(*loaded)
        lib.llama_set_adapters_lora(self._context, held, len(loaded), scales)

    def encode(self, text: str) -> list[int]:
        """See packager.session.Session."""
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 1
        tokens = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, room, False, True)
        return list(tokens[:count])

    def decode(self, ids: Sequence[int]) -> str:
        """See packager.session.Session."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        room = 64 + 16 * len(ids)
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = self._lib.llama_detokenize(
                self._vocab, tokens, len(ids), buffer, room, False, True
            )
            if size >= 0:
                return buffer.raw[:size].decode("utf-8", "replace")
            room = -size

    def ends(self) -> frozenset[int]:
        """See packager.session.Session."""
        lib, vocab = self._lib, self._vocab
        if self._end_ids is None:
            self._end_ids = frozenset(
                number
                for number in range(lib.llama_vocab_n_tokens(vocab))
                if lib.llama_vocab_is_eog(vocab, number)
            )
        return self._end_ids

    def chat_template(self) -> str | None:
        """See packager.session.Session."""
        template = self._lib.llama_model_chat_template(self._model, None)
        return None if template is None else str(template.decode("utf-8", "replace"))

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        """See packager.session.Session. Raises PackError (usage) when prompt and answer exceed the
        context."""
        self._must_fit(prompt, max_new_tokens)
        answer: list[int] = []
        self._feed(self._after_prefix(prompt))
        while len(answer) < max_new_tokens:
            token = self._best()
            if stop and self._lib.llama_vocab_is_eog(self._vocab, token):
                break
            answer.append(token)
            on_token(token)
            if len(answer) < max_new_tokens:
                self._feed([token])
        return answer

    def keep_prefix(self, ids: Sequence[int], file: Path) -> None:
        """See packager.measure.prefix.KeepsPrefix."""
        self._prefix = StoredPrefix(self._lib, self._context, ids, file)

    def state_of(self) -> str:
        """See packager.measure.prefix.KeepsPrefix: the binding's version, and what llama.cpp finds
        of the processor and was built for."""
        features = self._lib.llama_print_system_info().decode("utf-8", "replace")
        return f"{library.version()} {platform.machine()} {features}"

    def _after_prefix(self, prompt: Sequence[int]) -> Sequence[int]:
        """Empty the cache and fill it with the kept prefix, where the prompt has that; returns what
        is left to compute.

        The prefix is computed apart from what follows in any case: the same batches give the same
        bits, with the state and without.
        """
        self._lib.llama_memory_clear(self._memory, False)
        self.prefix_note = ""
        prefix = self._prefix
        if prefix is None or not prefix.begins(prompt):
            return prompt
        count = len(prefix.ids)
        why = prefix.restore()
        if why is None:
            self.prefix_note = f"Warm start: {count} tokens of the prompt come from a kept state."
            return prompt[count:]
        self._lib.llama_memory_clear(self._memory, False)
        self._feed(prefix.ids)
        kept = "it is kept" if prefix.save() else "it cannot be kept"
        done = f"the first {count} tokens were computed, as {why}"
        self.prefix_note = f"Cold start: {done}; {kept} for the next one."
        return prompt[count:]

    def best(self) -> int:
        """The likeliest token after what was computed last."""
        return self._best()

    def _other(self, artifact: str, settings: JsonObject) -> Session:
        """A session of another model."""
        return Session(artifact, settings)

    def _must_fit(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        if not prompt or len(prompt) + max_new_tokens > self.context:
            raise usage(
                f"{len(prompt)} + {max_new_tokens} tokens do not fit a context of {self.context}.",
                "Shorten the prompt or build with a longer --context.",
            )

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See packager.session.Session. The arrays are llama.cpp's own output buffer."""
        # Late: numpy comes with the engine.
        import numpy as np

        if not ids or len(ids) > self.context:
            raise usage(
                f"{len(ids)} tokens do not fit a context of {self.context}.",
                "Shorten the text or take a longer context.",
            )
        self._lib.llama_memory_clear(self._memory, False)
        width = self._lib.llama_vocab_n_tokens(self._vocab)
        step = min(LOGITS_BLOCK, BATCH, self.context)
        batch = self._lib.llama_batch_init(step, 0, 1)
        try:
            for start in range(0, len(ids), step):
                piece = ids[start : start + step]
                batch.n_tokens = len(piece)
                for row, token in enumerate(piece):
                    batch.token[row], batch.pos[row] = token, start + row
                    batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
                self._compute(batch, len(piece))
                yield np.ctypeslib.as_array(
                    self._lib.llama_get_logits(self._context), (len(piece), width)
                )
        finally:
            self._lib.llama_batch_free(batch)

    def close(self) -> None:
        """See packager.session.Session."""
        if self._draft is not None:
            self._draft.close()
        if self._heads is not None:
            self._heads.close()
            self._heads = None
        if self._context:
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = self._model = None

    def _feed(self, tokens: Sequence[int]) -> None:
        for start in range(0, len(tokens), BATCH):
            piece = tokens[start : start + BATCH]
            held = (ctypes.c_int32 * len(piece))(*piece)  # the batch only points at it
            self._compute(self._lib.llama_batch_get_one(held, len(piece)), len(piece))

    def feed_at(self, tokens: Sequence[int], position: int) -> int:
        """Compute text at a position; the position after it. The engine itself would go on after
        the last cell, and a picture ends at its longest side."""
        batch = self._lib.llama_batch_init(BATCH, 0, 1)
        try:
            for start in range(0, len(tokens), BATCH):
                piece = tokens[start : start + BATCH]
                batch.n_tokens = len(piece)
                for row, token in enumerate(piece):
                    batch.token[row], batch.pos[row] = token, position + start + row
                    batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
                    batch.logits[row] = int(row == len(piece) - 1)
                self._compute(batch, len(piece))
        finally:
            self._lib.llama_batch_free(batch)
        return position + len(tokens)

    def keep_until(self, position: int) -> bool:
        """Forget what was computed at a position and after it. False where the model cannot, as
        one with a recurrent state: then everything is forgotten."""
        if position and self._lib.llama_memory_seq_rm(self._memory, 0, position, -1):
            return True
        self._lib.llama_memory_clear(self._memory, False)
        return False

    def handles(self) -> tuple[Any, Any, Any]:
        """The engine's library, this model's vocabulary and its context, for what draws tokens."""
        return self._lib, self._vocab, self._context

    def _compute(self, batch: Any, count: int) -> None:
        self._held = None
        # The cache says where a batch without positions of its own begins.
        begin = self._lib.llama_memory_seq_pos_max(self._memory, 0) + 1 if self._heads else 0
        code = self._lib.llama_decode(self._context, batch)
        if code:
            raise no_room(
                f"llama.cpp could not compute a batch of {count} tokens (code {code}).",
                "Take a shorter context or a smaller variant.",
            )
        if self._heads is not None:
            self._heads.follow([batch.token[row] for row in range(count)], begin)

    def _best(self) -> int:
        # Late: numpy comes with the engine.
        import numpy as np

        count = self._lib.llama_vocab_n_tokens(self._vocab)
        return int(
            np.ctypeslib.as_array(
                self._lib.llama_get_logits_ith(self._context, -1), (count,)
            ).argmax()
        )

    def use_threads(self, threads: int) -> None:
        """Decode with so many threads from now on; a prompt takes all big cores in any case."""
        self.threads = threads
        # Asked each time: whoever measures may have moved this process to some of its cores.
        self._lib.llama_set_n_threads(self._context, threads, max(threads, cores().big))
        if self._heads is not None:
            self._heads.use_threads(threads)

    def _fastest(self) -> int:
        """The number of threads that decodes fastest now. More than there are idle cores make each
        other wait.

        The counts take turns, so that a busy moment hits all of them. Small cores are not tried:
        this is a quick trial.
        """
        counts = cores().fewer()
        times: dict[int, list[float]] = {threads: [] for threads in counts}
        for _ in range(_TRIAL_ROUNDS if len(counts) > 1 else 0):
            for threads in counts:
                self.use_threads(threads)
                self._lib.llama_memory_clear(self._memory, False)
                for number in range(min(1 + _TRIAL_TOKENS, self.context)):
                    started = time.perf_counter()
                    self._feed([0])
                    self._best()
                    if number:
                        # The first token after a change also starts the threads.
                        times[threads].append(time.perf_counter() - started)
        typical = {
            threads: statistics.median(seconds) for threads, seconds in times.items() if seconds
        }
        return fewest(typical, _CLOSE) if typical else counts[0]


def model_file(artifact: Path) -> Path:
    """The GGUF of the text model of an artifact: the file itself, or the first in the folder beside
    the vision tower's. Raises PackError (bad input)."""
    if artifact.is_file():
        return artifact
    # No hidden one: macOS leaves ._model.gguf beside model.gguf on other systems' disks.
    files = sorted(
        path
        for path in artifact.glob("*.gguf")
        if path.name != PROJECTOR and not path.name.startswith(".")
    )
    if not files:
        raise bad_input(f"{artifact} holds no GGUF file.", "Build the package again.")
    return files[0]


def opened(lib: Any, model: Any, params: Any) -> Any:
    """A context of a loaded model. Raises PackError (exit code 7) where there is no room for it."""
    with library.captured_log() as log_lines:
        context = lib.llama_init_from_model(model, params)
    if not context:
        raise no_room(
            f"llama.cpp cannot open a context of {params.n_ctx} tokens: {last_of(log_lines)}",
            "Take a shorter context or a smaller variant.",
        )
    return context


def last_of(log_lines: list[str]) -> str:
    """The line of the engine's log that says what went wrong."""
    lines = [line.strip() for line in "".join(log_lines).splitlines() if line.strip()]
    return next(
        (line for line in lines if "error" in line.lower()),
        lines[-1] if lines else "it does not say why",
    )
