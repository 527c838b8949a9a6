"""The unquantized decoder behind a picture: embeddings of its tokens in place of token ids,
positions in three axes, and DeepStack.

Source: transformers 5.5 (get_rope_index of models/qwen2_vl, qwen2_5_vl, qwen3_vl and qwen3_5, and
_deepstack_process of qwen3_vl).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.reference.arithmetic import Floats
from packager.reference.forward import Ids, embedded, through_layers, token_ids
from packager.reference.rope import Rope, frequencies, turns
from packager.reference.states import Reference
from packager.runtime import Report
from packager.shape.axes import AXES, axes_of
from packager.shape.positions import Positions


def places(before: int, rows: int, columns: int, after: int) -> Ids:
    """(3, tokens) time, height and width of `before` tokens of text, a picture of `rows` x
    `columns` image tokens, and `after` tokens of text.

    Text has one position in all axes. A picture stands at one time, and text goes on after its
    longer side.
    """
    time = np.full(rows * columns, before)
    height = before + np.repeat(np.arange(rows), columns)
    width = before + np.tile(np.arange(columns), rows)
    behind = before + max(rows, columns) + np.arange(after)
    text = np.broadcast_to(np.arange(before), (AXES, before))
    picture = np.stack([time, height, width])
    return np.concatenate([text, picture, np.broadcast_to(behind, (AXES, after))], 1)


class PlacedRope(Rope):
    """Positions of one sequence that are given: `positions_of_tokens` (3, tokens), of which each
    pair of a head takes the one of its axis."""

    def __init__(self, positions: Positions, axes: Sequence[int], positions_of_tokens: Ids) -> None:
        super().__init__(positions)
        self._axes, self._placed = list(axes), positions_of_tokens

    def table(self, length: int) -> tuple[Floats, Floats]:
        """See Rope.table; for that one sequence alone."""
        assert length == self._placed.shape[1]
        placed = self._placed[self._axes].T.astype(np.float32)
        angles = placed * frequencies(self._positions, length)
        return turns(self._positions, np.asarray(angles, np.float32))


def behind_picture(
    checkpoint: Checkpoint,
    before: npt.ArrayLike,
    picture: Floats,
    grid: tuple[int, int],
    after: npt.ArrayLike,
    report: Report,
) -> Reference:
    """What the model says behind every token of `after`, which follows text `before` and a picture.

    `picture` (image tokens, hidden x (1 + layers of DeepStack)) is what the vision tower gives,
    `grid` its rows and columns of image tokens. Raises PackError as `hidden_states`.
    """
    shape = checkpoint.shape
    first, last = token_ids(before, shape), token_ids(after, shape)
    rows, columns = grid
    own, *deep = np.split(picture, picture.shape[1] // shape.hidden, axis=1)
    head, tail = (embedded(checkpoint, [ids]) for ids in (first, last))
    x = np.concatenate([head, own, tail])
    inside = slice(len(first), len(first) + len(own))
    added = []
    for part in deep:
        whole = np.zeros_like(x)
        whole[inside] = part
        added.append(whole)
    axes = axes_of(
        checkpoint.decoder_config,
        shape,
        str(checkpoint.files["config.json"]),
        checkpoint.positions.width,
    )
    placed = places(len(first), rows, columns, len(last))
    rope = PlacedRope(checkpoint.positions, axes, placed)
    states = through_layers(checkpoint, x, [len(x)], rope, report, added)
    return Reference(checkpoint, (last,), states[inside.stop :])
