"""Collecting an importance matrix: the model answers a text, and what goes into every matrix of
weights is squared and summed.

The same sums as llama.cpp's `llama-imatrix`: over chunks of 512 tokens, each from an empty cache,
for every product with a matrix of a layer; for stacks of experts each expert its own tokens.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.cores import cores
from packager.errors import PackError, bad_input, no_room
from packager.runtime import Report
from targets.gguf import library
from targets.gguf.imatrix import write_imatrix
from targets.gguf.kernels import Floats
from targets.llama_cpp.ggml_tensor import F32, Operations, Tensor, at, checked_layout
from targets.llama_cpp.importance import CHUNK_TOKENS

_LEAST_CHUNKS = 2
_LEAST_ROWS = 16
"""Products with fewer rows are left out, as in llama-imatrix: they belong to single tokens."""


def collect(model: Path, text: Path, out: Path, report: Report, threads: int | None = None) -> int:
    """Write the importance matrix of a GGUF model over a text file to `out`; returns the number of
    chunks.

    Raises PackError (bad input) for a text that is not UTF-8 or too short, and where the model
    computes no numbers.
    """
    operations = checked_layout()
    lib = library.llama()
    sums = _Sums(operations)
    callback = lib.ggml_backend_sched_eval_callback(sums)
    with library.captured_log() as log_lines:
        params = library.model_params()
        params.n_gpu_layers = 0
        loaded = lib.llama_model_load_from_file(str(model).encode(), params)
        if not loaded:
            raise bad_input(
                f"llama.cpp cannot load {model.name}: {''.join(log_lines)[-300:].strip()}"
            )
        context = None
        try:
            tokens = _tokens(lib, loaded, text)
            settings = lib.llama_context_default_params()
            settings.n_ctx = settings.n_batch = settings.n_ubatch = CHUNK_TOKENS
            settings.n_seq_max = 1
            settings.n_threads = settings.n_threads_batch = threads or cores().computing
            # Whatever else this machine has, the numbers are read from its main memory.
            settings.offload_kqv = settings.op_offload = False
            settings.no_perf = True
            settings.cb_eval = callback
            context = lib.llama_init_from_model(loaded, settings)
            if not context:
                raise no_room(
                    "llama.cpp cannot open a context to collect importances.",
                    "Close other programs.",
                )
            chunks = len(tokens) // CHUNK_TOKENS
            report.note(
                f"collecting importances over {chunks} chunks of {CHUNK_TOKENS} tokens of "
                f"{text.name}"
            )
            for number in range(chunks):
                _compute(
                    lib,
                    context,
                    loaded,
                    tokens[number * CHUNK_TOKENS : (number + 1) * CHUNK_TOKENS],
                )
                if sums.failure is not None:
                    raise sums.failure
                report.progress((number + 1) * CHUNK_TOKENS, chunks * CHUNK_TOKENS, "tokens")
        finally:
            if context:
                lib.llama_free(context)
            lib.llama_model_free(loaded)
    write_imatrix(out, sums.squares, sums.counts, chunks, CHUNK_TOKENS, text.name)
    return chunks


def _tokens(lib: Any, model: Any, path: Path) -> list[int]:
    """The whole text as token ids, what looks like a control token taken as text."""
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise bad_input(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.",
            "Convert it first.",
        ) from error
    vocabulary = lib.llama_model_get_vocab(model)
    room = len(data) + 2
    ids = (ctypes.c_int32 * room)()
    count = lib.llama_tokenize(vocabulary, data, len(data), ids, room, True, False)
    if count < _LEAST_CHUNKS * CHUNK_TOKENS:
        raise bad_input(
            f"{path} has {max(0, count)} tokens; importances take {_LEAST_CHUNKS * CHUNK_TOKENS} "
            "at the least.",
            "Give a longer text: a few hundred kilobytes of what the model will be used for.",
        )
    return list(ids[:count])


def _compute(lib: Any, context: Any, model: Any, tokens: list[int]) -> None:
    vocabulary = lib.llama_model_get_vocab(model)
    if lib.llama_vocab_get_add_bos(vocabulary):
        tokens = [lib.llama_vocab_bos(vocabulary), *tokens[1:]]
    lib.llama_memory_clear(lib.llama_get_memory(context), True)
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.seq_id[place][0] = (
                token,
                place,
                1,
                0,
            )
            # All outputs: otherwise the last layer's feed-forward would see the last token alone.
            batch.logits[place] = True
        if code := lib.llama_decode(context, batch):
            raise no_room(
                f"llama.cpp could not compute a chunk of {len(tokens)} tokens (code {code}).",
                "Close other programs.",
            )
    finally:
        lib.llama_batch_free(batch)


class _Sums:
    """The scheduler's callback: asked of every node of the graph whether it is wanted, then called
    with its result.

    `squares` maps a tensor to (matrices, columns) sums in float32, `counts` to rows summed per
    matrix. An exception must not cross the library: it is kept in `failure`.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.squares: dict[str, Floats] = {}
        self.counts: dict[str, npt.NDArray[np.int64]] = {}
        self.failure: BaseException | None = None

    def __call__(self, address: int, ask: bool, _user: Any) -> bool:
        """See ggml_backend_sched_eval_callback: whether the node is wanted, or whether to go on."""
        try:
            node = at(address)
            if ask:
                return self.failure is None and self._wanted(node)
            self._add(node)
        except BaseException as error:
            self.failure = error
        return self.failure is None

    def _wanted(self, node: Tensor) -> bool:
        if node.op == self._operations.chosen_product:
            return True
        if node.op != self._operations.product:
            return False
        given = node.source(1)
        return bool(
            given.ne[1] >= _LEAST_ROWS
            and given.type == F32
            and _name(node.source(0)).startswith("blk.")
        )

    def _add(self, node: Tensor) -> None:
        weight, given = node.source(0), node.source(1)
        name, values = _name(weight), given.array()
        matrices = weight.ne[2] * weight.ne[3]
        if node.op == self._operations.chosen_product:
            squares, counts = self._entry(name, matrices, given.ne[0], matrices)
            ids = node.source(2).array()[0, 0]  # tokens x choices
            # One row serves all choices, or each has its own.
            rows = np.broadcast_to(values[0], (values.shape[1], ids.shape[1], values.shape[3]))
            for expert in np.unique(ids):
                # By choice, then by token, as llama-imatrix goes: sums of float32 depend on the
                # order.
                choice, token = np.nonzero(np.equal(ids.T, expert))
                _accumulate(squares[expert], rows[token, choice])
                counts[expert] += len(token)
        else:
            squares, counts = self._entry(name, matrices, given.ne[0], 1)
            outer, inner = values.shape[:2]
            for i3 in range(outer):
                for i2 in range(inner):
                    matrix = (i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]
                    _accumulate(squares[matrix], values[i3, i2])
            counts += values.shape[0] * values.shape[1] * values.shape[2] // matrices
        if not np.isfinite(squares).all():
            raise _not_finite(name)

    def _entry(
        self, name: str, matrices: int, columns: int, counts: int
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        if name not in self.squares:
            self.squares[name] = np.zeros((matrices, columns), np.float32)
            self.counts[name] = np.zeros(counts, np.int64)
        return self.squares[name], self.counts[name]


def _accumulate(sums: Floats, rows: Floats) -> None:
    """Add the squares row after row."""
    squares = np.empty((len(rows) + 1, rows.shape[1]), np.float32)
    squares[0] = sums
    np.multiply(rows, rows, out=squares[1:])
    # Along the outer dimension numpy adds row after row, in the order of memory.
    np.add.reduce(squares, axis=0, out=sums)


def _name(tensor: Tensor) -> str:
    """Without what the scheduler writes around a copy: `CPU#blk.0.attn_k.weight#0`."""
    parts: list[str] = tensor.name.decode("utf-8", "replace").split("#")
    return parts[1] if len(parts) > 1 else parts[0]


def _not_finite(name: str) -> PackError:
    return bad_input(
        f"The input of {name!r} is not finite on this text.",
        "The checkpoint is damaged, or overflows in half precision.",
    )
