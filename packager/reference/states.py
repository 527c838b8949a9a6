"""The reference of a checkpoint over some sequences: kept as states, asked for as
log-probabilities."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import to_float32
from packager.errors import bad_input
from packager.files import write_atomically
from packager.reference.arithmetic import Floats, log_softmax
from packager.reference.forward import Ids, hidden_states, token_ids
from packager.runtime import Report
from packager.shape.tensors import naming_of, outer_tensors

VERSION = 2
"""Raised whenever the same checkpoint and sequences give other states."""

_ROWS = 16_384
"""Rows of the output matrix that are float32 at once: 64 MB for a hidden size of 1,024."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some neighbouring tokens of one sequence.

    `log_probabilities` (tokens, vocabulary) are float32 and natural; row i is what the model
    expects behind token `start + i` of sequence number `sequence`.
    """

    sequence: int
    start: int
    log_probabilities: Floats


@dataclass(frozen=True)
class Reference:
    """What a checkpoint says behind every token of `sequences`. `states` are (all tokens, hidden),
    one sequence after the other."""

    checkpoint: Checkpoint
    sequences: tuple[Ids, ...]
    states: Floats

    @classmethod
    def compute(
        cls, checkpoint: Checkpoint, sequences: Sequence[npt.ArrayLike], report: Report
    ) -> Reference:
        """Run the forward pass. Raises PackError as `hidden_states`."""
        ids = tuple(token_ids(sequence, checkpoint.shape) for sequence in sequences)
        return cls(checkpoint, ids, hidden_states(checkpoint, ids, report))

    def save(self, path: Path, key: str) -> None:
        """Write the states with `key`, which names the checkpoint's bytes; the file appears whole
        or not at all."""
        from safetensors.numpy import save

        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            path,
            save(
                {"states": self.states, **_described(self.sequences)},
                {"key": key, "version": str(VERSION)},
            ),
        )

    @classmethod
    def load(
        cls, path: Path, checkpoint: Checkpoint, sequences: Sequence[npt.ArrayLike], key: str
    ) -> Reference | None:
        """What `save` wrote; None when there is no file, or one of another key, version or other
        sequences.

        Raises PackError (exit code 6) naming a file that is no reference.
        """
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return None
        ids = tuple(token_ids(sequence, checkpoint.shape) for sequence in sequences)
        try:
            reader: Any = safe_open
            with reader(os.fspath(path), framework="numpy") as file:
                if file.metadata() != {"key": key, "version": str(VERSION)}:
                    return None
                if not all(
                    np.array_equal(file.get_tensor(name), value)
                    for name, value in _described(ids).items()
                ):
                    return None
                states = file.get_tensor("states")
        except (SafetensorError, OSError) as error:
            raise bad_input(
                f"{path} is not a stored reference: {error}.", "Delete it; it is made again."
            ) from None
        if states.shape != (sum(map(len, ids)), checkpoint.shape.hidden):
            raise bad_input(
                f"{path} holds states of the shape {list(states.shape)}.",
                "Delete it; it is made again.",
            )
        return cls(checkpoint, ids, np.asarray(states, dtype=np.float32))

    def blocks(self, tokens: int = 256) -> Iterator[Block]:
        """Log-probabilities of all sequences in order, at most `tokens` tokens of one sequence at a
        time.

        One block takes 4 * tokens * vocabulary bytes: 156 MB for 256 tokens of Qwen3.
        """
        offset = 0
        for number, sequence in enumerate(self.sequences):
            for start in range(0, len(sequence), tokens):
                end = min(start + tokens, len(sequence))
                yield Block(
                    number,
                    start,
                    log_softmax(self._logits(self.states[offset + start : offset + end])),
                )
            offset += len(sequence)

    def logits(self, sequence: int, start: int = 0, end: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) behind the tokens from `start` to `end` of one sequence."""
        offset = sum(len(before) for before in self.sequences[:sequence])
        stop = len(self.sequences[sequence]) if end is None else end
        return self._logits(self.states[offset + start : offset + stop])

    def _logits(self, states: Floats) -> Floats:
        shape = self.checkpoint.shape
        # A tied checkpoint has no output matrix: the embedding, its first tensor, is turned round.
        name = (
            next(outer_tensors(shape)).name
            if shape.tied
            else f"{naming_of(shape).head}lm_head.weight"
        )
        stored = self.checkpoint.array(name)
        out = np.empty((len(states), shape.vocab), dtype=np.float32)
        for first in range(0, shape.vocab, _ROWS):
            rows = slice(first, min(first + _ROWS, shape.vocab))
            np.matmul(states, to_float32(stored[rows]).T, out=out[:, rows])
        return out


def _described(sequences: Sequence[Ids]) -> dict[str, np.ndarray[Any, Any]]:
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    return {
        "tokens": np.concatenate(sequences) if sequences else np.empty(0, np.int64),
        "lengths": lengths,
    }
