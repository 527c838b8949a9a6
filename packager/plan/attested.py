"""How far a converted model is from what a checkpoint gives, tensor by tensor.

Stored numbers decide. Where they differ, distances say by how much: how far the file is from the
weights, and how far the same type is usually. A tensor that is as near to them as usual was made
from them, with other settings or other rounding; one that is further was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import read_json
from packager.checkpoint.numbers import rows_of
from packager.errors import bad_input
from packager.escapes import line
from packager.json_values import JsonObject, JsonValue
from packager.runtime import Report

Numbers = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
Again = Callable[[Weights, str], Numbers]
"""Rows of weights, with the type in which the checkpoint stores them, quantized and read back."""

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_PIECE = 1 << 21
"""Numbers that are compared at once."""
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
    for number, tensor in enumerate(tensors):
        way, distances = _nearest(tensor, checkpoint, ways)
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


def _nearest(
    tensor: StoredTensor, checkpoint: Checkpoint, ways: Counter[str]
) -> tuple[str, Distances]:
    """The way of quantizing that leaves fewest numbers different; those that others were made by
    are tried first."""
    best: tuple[str, Distances] | None = None
    for name, again in sorted(tensor.again, key=lambda row: -ways[row[0]]):
        distances = Distances()
        for start, stop, exact, dtype in _pieces(tensor, checkpoint):
            distances.add(tensor.values(start, stop), again(exact, dtype), exact.astype(np.float64))
        if best is None or distances.unequal < best[1].unequal:
            best = name, distances
        if not distances.unequal:
            break
    assert best is not None
    return best


def _distances(tensor: StoredTensor, checkpoint: Checkpoint, again: Again) -> Distances:
    distances = Distances()
    for start, stop, exact, dtype in _pieces(tensor, checkpoint):
        distances.add(tensor.values(start, stop), again(exact, dtype), exact.astype(np.float64))
    return distances


def _measured(tensor: StoredTensor, checkpoint: Checkpoint, own: Again) -> float:
    """How far weights are from themselves in the type that a tensor has."""
    return _distances(tensor, checkpoint, own).relative()[2]


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

    return again


_DESCRIPTION = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
"""Keys of config.json that describe the file and say nothing of its network."""
_SHOWN = 120


def texts_that_differ(files: Mapping[str, Path], checkpoint: Checkpoint) -> JsonObject:
    """Keys of config.json that a folder has otherwise than the checkpoint, and parts of its
    tokenizer that are others, as `network` and `description`: lists of `key`, `file` and
    `recipe`, what the checkpoint has. Raises PackError (exit code 6) for what cannot be read."""
    try:
        return _texts_that_differ(files, checkpoint)
    except RecursionError:
        # What json.loads still takes may be too deep for whatever goes through it afterwards.
        raise bad_input(
            f"A text of {next(iter(files.values())).parent} is nested too deeply to be compared.",
            "Get the folder again from where it was published.",
        ) from None


def _texts_that_differ(files: Mapping[str, Path], checkpoint: Checkpoint) -> JsonObject:
    network: list[JsonObject] = []
    description: list[JsonObject] = []
    if "config.json" in files:
        mine, other = read_json(files["config.json"]), checkpoint.config
        for key in sorted({*mine, *other}):
            if mine.get(key) != other.get(key):
                # What one of them leaves out is written or left out by whatever saved it.
                both = mine.get(key) is not None and other.get(key) is not None
                row = _row(key, mine.get(key), other.get(key))
                (network if both and key not in _DESCRIPTION else description).append(row)
    theirs = checkpoint.files.get("tokenizer.json")
    if "tokenizer.json" in files and theirs is not None:
        mine, other = read_json(files["tokenizer.json"]), read_json(theirs)
        network += [
            _row(f"tokenizer.json {key}", mine.get(key), other.get(key))
            for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")
            if _without_offsets(mine.get(key)) != _without_offsets(other.get(key))
        ]
    return {"network": network, "description": description}


def _without_offsets(value: JsonValue) -> JsonValue:
    """A part of a tokenizer without what says where a token stands in the text: whoever saves it
    again sets that, and no token is another for it."""
    if isinstance(value, dict):
        return {key: _without_offsets(row) for key, row in value.items() if key != "trim_offsets"}
    return [_without_offsets(row) for row in value] if isinstance(value, list) else value


def _row(key: str, mine: JsonValue, other: JsonValue) -> JsonObject:
    return {"key": line(key), "file": _shown(mine), "recipe": _shown(other)}


def _shown(value: JsonValue) -> str | None:
    """A value as it fits into a line; of a large one, how many items it has."""
    if value is None:
        return None
    if isinstance(value, dict | list) and len(str(value)) > _SHOWN:
        return f"{len(value)} items"
    return line(str(value))[:_SHOWN]
