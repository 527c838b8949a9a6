"""How far a converted model is from what a checkpoint gives, tensor by tensor.

Stored numbers decide. Where they differ, distances say by how much: how far the file is from the
weights, and how far the same type is usually. A tensor that is as near to them as usual was made
from them, with other settings or other rounding; one that is further was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import rows_of
from packager.errors import bad_input
from packager.json_values import JsonObject
from packager.runtime import Report

Numbers = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
Matrix = tuple[Weights, str]
"""Rows of weights, with the type in which the checkpoint stores them."""
Again = Callable[[Sequence[Matrix]], Iterable[Numbers]]
"""Matrices quantized and read back, in their order. Of ways that are equal one is asked for all
that is compared at once."""

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_PIECE = 1 << 21
"""Numbers that are compared at once."""
_WINDOW = 4 * _PIECE
"""Numbers that are quantized at once, of several tensors where they are small: an engine takes as
long to begin as for millions of them."""
_NEAR = 2.0
"""How many times the usual error a tensor may have that counts as made from these weights. Between
two importance matrices of one checkpoint errors differ by a tenth; weights of another checkpoint
are further away than their own size."""
_NAMED = 3
"""Tensors that are named one by one where they are stored as one."""
_EXACT = 1e-3
"""An error of float types that is rounding alone."""


@dataclass(frozen=True, slots=True)
class Different:
    """A tensor that is not what the recipe gives: its types, the share of its `bytes` (of a folder:
    of its numbers) that differ, None for other types; the distance between the two, that of the
    file from the weights, that which the recipe has, and, of another type than the recipe's, that
    which the file's `own` type has, None where that is not known. Distances are relative to the
    size of the weights."""

    name: str
    type: str
    wanted: str
    bytes: float | None
    distance: float
    error: float
    usual: float
    own: float | None = None

    @property
    def near(self) -> bool:
        """Whether it is as near to the weights as its type usually is."""
        usual = self.usual if self.own is None else self.own
        return self.error <= max(_NEAR * usual, _EXACT)


def follows(different: Sequence[Different]) -> str:
    """`exactly`, `nearly`, `another recipe` or `not`."""
    if not different:
        return "exactly"
    if not all(row.near for row in different):
        return "not"
    return "nearly" if all(row.type == row.wanted for row in different) else "another recipe"


def rows_as_json(different: Sequence[Different]) -> list[JsonObject]:
    """JSON form of the tensors that differ."""
    return [{**asdict(row), "near": row.near} for row in different]


@dataclass(slots=True)
class Distances:
    """Sums of squares over a tensor, piece by piece, and how many numbers differ."""

    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    unequal: int = 0
    count: int = 0

    def add(self, mine: Numbers, wanted: Numbers, exact: Numbers) -> None:
        """A piece of the file, of what the recipe gives, and of the weights; what is no number
        counts as 0."""
        # Before what is no number becomes 0: that is never equal.
        self.unequal += int((mine != wanted).sum())
        mine, wanted, exact = (
            np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
            for values in (mine, wanted, exact)
        )
        self.sums += (
            np.square(mine - wanted).sum(),
            np.square(mine - exact).sum(),
            np.square(wanted - exact).sum(),
            np.square(exact).sum(),
        )
        self.count += mine.size

    def relative(self) -> tuple[float, float, float]:
        """Between file and recipe, of the file from the weights, of the recipe from the weights."""
        size = self.sums[3] or 1.0
        first, second, third = (round(sqrt(value / size), 6) for value in self.sums[:3])
        return first, second, third


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a converted folder.

    `parts` are the checkpoint's tensors that it is made of, one above the other, of `rows` rows and
    `columns` columns in all. `values` gives the numbers of rows from one to another as the engine
    means them; `again` the same weights quantized once more, by every way that a tensor of the
    `wanted` type may have been made, the most usual first; `own` by one that makes its own `type`.
    """

    parts: tuple[str, ...]
    rows: int
    columns: int
    type: str
    wanted: str
    values: Callable[[int, int], Numbers]
    again: tuple[tuple[str, Again], ...]
    own: Again

    @property
    def name(self) -> str:
        """The checkpoint's name for it; of many the first and the last."""
        if len(self.parts) > _NAMED:
            return f"{self.parts[0]} to {self.parts[-1]}"
        return " + ".join(self.parts)


def compare(
    report: Report,
    tensors: Sequence[StoredTensor],
    checkpoint: Checkpoint,
    without: frozenset[str] = frozenset(),
) -> JsonObject:
    """Quantize the checkpoint again and compare; returns `follows`, `tensors`, `equal`,
    `different[]` and `ways`, how many tensors each way of quantizing was nearest to. The
    folder may lack the tensors of `without`.

    Raises PackError (exit code 6) where the folder lacks a tensor of the checkpoint, or has one in
    another size.
    """
    _refuse_incomplete(tensors, checkpoint, without)
    different: list[Different] = []
    ways = Counter[str]()
    found = _nearest_of_all(tensors, checkpoint, ways)
    for number, (tensor, (way, distances)) in enumerate(zip(tensors, found, strict=True)):
        if len(tensor.again) > 1 or way:
            ways[way] += 1
        if distances.unequal:
            share = distances.unequal / distances.count if tensor.type == tensor.wanted else None
            row = Different(
                *(tensor.name, tensor.type, tensor.wanted),
                None if share is None else round(share, 6),
                *distances.relative(),
                None if share is not None else _measured(tensor, checkpoint, tensor.own),
            )
            different.append(row)
        report.progress(number + 1, len(tensors), "tensors")
    return {
        "follows": follows(different),
        "tensors": len(tensors),
        "equal": len(tensors) - len(different),
        "different": rows_as_json(different),
        "ways": {name: count for name, count in ways.most_common() if name},
    }


def _nearest_of_all(
    tensors: Sequence[StoredTensor], checkpoint: Checkpoint, ways: Counter[str]
) -> Iterator[tuple[str, Distances]]:
    """See `_nearest`, of each. Those that can have been made in one way alone are quantized with
    their neighbours."""
    alike: list[StoredTensor] = []
    for tensor in tensors:
        if len(tensor.again) > 1:
            yield from _of_one_way(alike, checkpoint)
            alike = []
            yield _nearest(tensor, checkpoint, ways)
        else:
            alike.append(tensor)
    yield from _of_one_way(alike, checkpoint)


def _of_one_way(
    tensors: Sequence[StoredTensor], checkpoint: Checkpoint
) -> Iterator[tuple[str, Distances]]:
    sums = [Distances() for _ in tensors]
    ready = 0
    for window in _windows(tensors, checkpoint):
        of_way: dict[Again, list[_Piece]] = {}
        for piece in window:
            of_way.setdefault(tensors[piece.tensor].again[0][1], []).append(piece)
        for again, pieces in of_way.items():
            _add(pieces, again, tensors, sums)
        # The last one may go on in the next window.
        while ready < window[-1].tensor:
            yield tensors[ready].again[0][0], sums[ready]
            ready += 1
    for tensor, distances in zip(tensors[ready:], sums[ready:], strict=True):
        yield tensor.again[0][0], distances


def _nearest(
    tensor: StoredTensor, checkpoint: Checkpoint, ways: Counter[str]
) -> tuple[str, Distances]:
    """The way of quantizing that leaves fewest numbers different; those that others were made by
    are tried first."""
    best: tuple[str, Distances] | None = None
    for name, again in sorted(tensor.again, key=lambda row: -ways[row[0]]):
        distances = _distances(tensor, checkpoint, again)
        if best is None or distances.unequal < best[1].unequal:
            best = name, distances
        if not distances.unequal:
            break
    assert best is not None
    return best


def _distances(tensor: StoredTensor, checkpoint: Checkpoint, again: Again) -> Distances:
    distances = Distances()
    for window in _windows([tensor], checkpoint):
        _add(window, again, [tensor], [distances])
    return distances


def _add(
    pieces: Sequence[_Piece],
    again: Again,
    tensors: Sequence[StoredTensor],
    sums: Sequence[Distances],
) -> None:
    """Quantize pieces in one way and add each to the sums of its tensor."""
    made = again([(piece.exact, piece.dtype) for piece in pieces])
    for piece, wanted in zip(pieces, made, strict=True):
        mine = tensors[piece.tensor].values(piece.start, piece.stop)
        sums[piece.tensor].add(mine, wanted, piece.exact.astype(np.float64))


def _measured(tensor: StoredTensor, checkpoint: Checkpoint, own: Again) -> float:
    """How far weights are from themselves in the type that a tensor has."""
    return _distances(tensor, checkpoint, own).relative()[2]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of the tensor of that number from one to another, with the checkpoint's numbers and
    their type."""

    tensor: int
    start: int
    stop: int
    exact: Weights
    dtype: str


def _windows(tensors: Sequence[StoredTensor], checkpoint: Checkpoint) -> Iterator[list[_Piece]]:
    """All pieces of tensors in their order, as many at once as are quantized together."""
    window: list[_Piece] = []
    held = 0
    for number, tensor in enumerate(tensors):
        for rows in _pieces(tensor, checkpoint):
            piece = _Piece(number, *rows)
            if window and held + piece.exact.size > _WINDOW:
                yield window
                window, held = [], 0
            window.append(piece)
            held += piece.exact.size
    if window:
        yield window


def _pieces(
    tensor: StoredTensor, checkpoint: Checkpoint
) -> Iterator[tuple[int, int, Weights, str]]:
    """Rows from one to another with the checkpoint's numbers and their type. A piece does not reach
    over the end of a part; vectors stand one beside the other."""
    infos = [checkpoint.tensors[name] for name in tensor.parts]
    if tensor.rows == 1:
        beside = np.concatenate([rows_of(info).rows(0, 1) for info in infos], axis=1)
        yield 0, 1, beside, infos[0].dtype
        return
    step = max(1, _PIECE // tensor.columns)
    above = 0
    for info in infos:
        rows = info.shape[0]
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            weights = rows_of(info).rows(start, stop).reshape(stop - start, tensor.columns)
            yield above + start, above + stop, weights, info.dtype
        above += rows


def _refuse_incomplete(
    tensors: Sequence[StoredTensor], checkpoint: Checkpoint, without: frozenset[str]
) -> None:
    for tensor in tensors:
        for name in tensor.parts:
            if name not in checkpoint.tensors:
                raise bad_input(
                    f"The folder has a tensor {name!r}, which the checkpoint does not have.",
                    "Name the checkpoint that it was made from.",
                )
        shapes = [checkpoint.tensors[name].shape for name in tensor.parts]
        vectors = all(len(shape) == 1 for shape in shapes)
        inner = 1 if vectors else sum(shape[0] for shape in shapes)
        width = sum(shape[0] for shape in shapes) if vectors else shapes[0][-1]
        if (tensor.rows, tensor.columns) != (inner, width):
            raise bad_input(
                f"The folder has {tensor.name!r} in {tensor.rows} rows of {tensor.columns}, and "
                f"the checkpoint in {inner} of {width}.",
                "Name the checkpoint that it was made from.",
            )
    there = {name for tensor in tensors for name in tensor.parts} | without
    missing = next((name for name in checkpoint.tensors if name not in there), None)
    if missing is not None:
        raise bad_input(
            f"The folder names no tensor that is {missing!r}, so it cannot be compared with it.",
            "Compare what both answer: `adopt FOLDER --target NAME --against CHECKPOINT`.",
        )


def place_of(name: str, checkpoint: Checkpoint) -> str:
    """The same name; of an output matrix that the checkpoint does not store, that of its
    embedding."""
    tied = name == OUTPUT and name not in checkpoint.tensors
    return EMBEDDING if tied else name


def each(one: Callable[[Weights, str], Numbers]) -> Again:
    """A way that takes matrices one by one."""

    def again(matrices: Sequence[Matrix]) -> Iterator[Numbers]:
        return (one(*matrix) for matrix in matrices)

    return again


def as_float(kind: str) -> Again:
    """The weights in a type of floats: f32, f16 or bf16."""
    # Any: NumPy's types of numbers and those of ml_dtypes have none in common.
    narrow: dict[str, Any] = {
        "f32": np.float32,
        "f16": np.float16,
        "bf16": ml_dtypes.bfloat16,
    }

    def again(weights: Weights, _dtype: str) -> Numbers:
        with np.errstate(over="ignore"):
            return np.asarray(weights.astype(narrow[kind]).astype(np.float64))

    return each(again)
