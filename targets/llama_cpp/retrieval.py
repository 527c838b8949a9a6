"""One GGUF of an embedder or a reranker loaded by llama.cpp.

Pooling, end of text and head are those of the file: nothing of them is set here, so that what the
gate compares is what llama-server makes of the same file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.cores import cores
from packager.errors import bad_input, no_room, usage
from packager.json_values import JsonObject, at, at_or_none
from targets.gguf import library
from targets.gguf.head import facts
from targets.gguf.presets import cache_type_of
from targets.llama_cpp.memory import EMBEDDING_BATCH
from targets.llama_cpp.session import last_of, model_file, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SEQUENCES = 16
"""Short texts that are computed at once at most."""


class Session:
    """See packager.session.RetrievalSession."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        kv = cache_type_of(settings)
        self._lib = lib = library.llama()
        library.silence()
        self._path = model_file(Path(artifact))
        params = lib.llama_model_default_params()
        params.n_gpu_layers = at_or_none(settings, "gpu_layers", int) or 0
        # As for text: a mapped file would stay resident beside the copies that kernels repack.
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
        with library.captured_log() as log_lines:
            self._model = lib.llama_model_load_from_file(str(self._path).encode(), params)
        if not self._model:
            raise bad_input(
                f"llama.cpp cannot load {self._path.name}: {last_of(log_lines)}",
                "Build the package again.",
            )
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.context = at(settings, "context", int)
        self.threads = at_or_none(settings, "threads", int) or cores().big
        self._context = self._open_context(kv)
        self._memory = lib.llama_get_memory(self._context)
        self._pooling = int(lib.llama_pooling_type(self._context))

    def _open_context(self, kv: str) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = min(EMBEDDING_BATCH, self.context)
        params.n_seq_max = min(_SEQUENCES, params.n_batch)
        # One cache for all sequences: each may be as long as the context.
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_UNSPECIFIED
        params.type_k = params.type_v = getattr(lib, f"GGML_TYPE_{kv.upper()}")
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.n_threads = params.n_threads_batch = self.threads
        params.no_perf = True
        return opened(lib, self._model, params)

    def encode(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return self._tokens(text, True)

    def plain(self, text: str) -> list[int]:
        """See packager.session.RetrievalSession."""
        return self._tokens(text, False)

    def _tokens(self, text: str, special: bool) -> list[int]:
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 2
        tokens = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, room, special, True)
        return list(tokens[:count])

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See packager.session.RetrievalSession: normalized as llama-server does, which the file
        has no key for."""
        # Late: numpy comes with the engine.
        import numpy as np

        width = self._lib.llama_model_n_embd_out(self._model)
        rows = np.array(list(self._pooled(batch, width)), np.float32).reshape(-1, width)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)

    def score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """See packager.session.RetrievalSession: the first label's share, which the graph has gone
        over with softmax."""
        count = self._lib.llama_model_n_cls_out(self._model)
        if self._pooling != self._lib.LLAMA_POOLING_TYPE_RANK or count != 2:
            raise bad_input(
                f"{self._path.name} has no head that says yes or no.", "Build the package again."
            )
        return [row[0] for row in self._pooled(batch, count)]

    def facts(self) -> JsonObject:
        """See packager.session.RetrievalSession."""
        lib = self._lib
        arch = self._key("general.architecture") or ""
        labels = [
            text.decode("utf-8", "replace")
            for number in range(lib.llama_model_n_cls_out(self._model))
            if (text := lib.llama_model_cls_label(self._model, number))
        ]
        kind = self._key(f"{arch}.pooling_type")
        stored = facts({f"{arch}.pooling_type": int(kind) if kind else None}, arch)
        template = lib.llama_model_chat_template(self._model, b"rerank")
        return {
            **stored,
            "labels": labels,
            "end": lib.llama_vocab_eos(self._vocab)
            if lib.llama_vocab_get_add_eos(self._vocab)
            else None,
            "template": template.decode("utf-8", "replace") if template else None,
        }

    def _key(self, name: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        size = self._lib.llama_model_meta_val_str(self._model, name.encode(), buffer, len(buffer))
        return None if size < 0 else buffer.value.decode("utf-8", "replace")

    def close(self) -> None:
        """See packager.session.RetrievalSession."""
        if self._context:
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = self._model = None

    def _pooled(self, batch: Sequence[Sequence[int]], width: int) -> Iterator[list[float]]:
        """What stands behind the last token of every text, in order."""
        for ids in batch:
            if not ids or len(ids) > self.context:
                raise usage(
                    f"{len(ids)} tokens do not fit a context of {self.context}.",
                    "Shorten the text, or build with a longer --context.",
                )
        room = min(EMBEDDING_BATCH, self.context)
        for group in _groups(batch, room):
            self._lib.llama_memory_clear(self._memory, False)
            self._compute(group, room)
            for number in range(len(group)):
                values = self._lib.llama_get_embeddings_seq(self._context, number)
                yield list(values[:width])

    def _compute(self, group: Sequence[Sequence[int]], room: int) -> None:
        rows = [
            (token, place, number)
            for number, ids in enumerate(group)
            for place, token in enumerate(ids)
        ]
        batch = self._lib.llama_batch_init(room, 0, 1)
        try:
            for start in range(0, len(rows), room):
                piece = rows[start : start + room]
                batch.n_tokens = len(piece)
                for row, (token, place, number) in enumerate(piece):
                    batch.token[row], batch.pos[row] = token, place
                    batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, number, 1
                code = self._lib.llama_decode(self._context, batch)
                if code:
                    raise no_room(
                        f"llama.cpp could not compute a batch of {len(piece)} tokens (code "
                        f"{code}).",
                        "Take a shorter context or a smaller variant.",
                    )
        finally:
            self._lib.llama_batch_free(batch)


def _groups(batch: Sequence[Sequence[int]], room: int) -> Iterator[list[Sequence[int]]]:
    """Neighbouring texts that fit into one batch together; a longer one stands alone."""
    group: list[Sequence[int]] = []
    size = 0
    for ids in batch:
        if group and (size + len(ids) > room or len(group) == min(_SEQUENCES, room)):
            yield group
            group, size = [], 0
        group.append(ids)
        size += len(ids)
    if group:
        yield group
