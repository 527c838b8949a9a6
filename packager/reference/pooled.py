"""What the unquantized checkpoint makes of texts: vectors, and scores of prompts that end before
yes or no."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.reference.arithmetic import Floats
from packager.reference.forward import hidden_states
from packager.reference.states import Reference
from packager.runtime import Report


def vectors(checkpoint: Checkpoint, sequences: Sequence[npt.ArrayLike], report: Report) -> Floats:
    """(texts, hidden): the state behind the last norm of each sequence's last token, of length 1.

    Source: the model card of Qwen3-Embedding (last_token_pool, then F.normalize).
    """
    states = hidden_states(checkpoint, sequences, report)
    ends = np.cumsum([len(np.asarray(sequence)) for sequence in sequences]) - 1
    return normalized(states[ends])


def normalized(rows: npt.NDArray[np.float32], dimension: int | None = None) -> Floats:
    """The first `dimension` numbers of every row (all by default), of length 1 again; a row of
    zeros stays one."""
    kept = np.asarray(rows[:, :dimension], np.float32)
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray(kept / np.where(lengths > 0, lengths, 1), np.float32)


def scores(
    checkpoint: Checkpoint,
    sequences: Sequence[npt.ArrayLike],
    answers: tuple[int, int],
    report: Report,
) -> Floats:
    """Of each prompt the probability of the first of two tokens beside the second behind it.

    Source: the model card of Qwen3-Reranker (compute_logits).
    """
    computed = Reference.compute(checkpoint, sequences, report)
    last = [
        computed.logits(number, len(ids) - 1)[0][list(answers)].astype(np.float64)
        for number, ids in enumerate(computed.sequences)
    ]
    yes, no = np.array(last).reshape(-1, 2).T
    return np.asarray(1 / (1 + np.exp(no - yes)), np.float32)
