"""Texts that an engine computes side by side, padded to the longest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from packager.errors import usage

ROOM = 512
"""Tokens that are computed at once, padding counted; a longer text is computed alone. What stands
between the layers grows with them, and products of so many rows use a processor well."""


def groups(batch: Sequence[Sequence[int]], room: int = ROOM) -> Iterator[list[int]]:
    """Numbers of texts of like length, whose lengths come to `room` at most once they are
    padded."""
    group: list[int] = []
    for number in sorted(range(len(batch)), key=lambda number: len(batch[number])):
        if group and len(batch[number]) * (len(group) + 1) > room:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def side_by_side(
    texts: Sequence[Sequence[int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(texts, tokens) of ids, padded on the right, and their mask."""
    longest = max(map(len, texts))
    ids, mask = (np.zeros((len(texts), longest), np.int64) for _ in range(2))
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def refuse_longer(batch: Sequence[Sequence[int]], context: int) -> None:
    """Raise PackError (usage) for an empty text and for one that exceeds the context."""
    for ids in batch:
        if not ids or len(ids) > context:
            raise usage(
                f"{len(ids)} tokens do not fit a context of {context}.",
                "Shorten the text, or build with a longer --context.",
            )
