"""The importance matrix: how much each column of a weight matters, as llama.cpp's `llama-imatrix`
collects it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from packager.errors import PackError, bad_input
from packager.foreign import bounded_bytes
from packager.json_values import JsonObject
from packager.limits import MATRIX_BYTES, MATRIX_ENTRIES
from targets.gguf.imatrix_header import check_matrix_file
from targets.gguf.kernels import Floats
from targets.gguf.overrides import ENDS, needs_imatrix
from targets.gguf.tensors import TypedTensor

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MOST_VALUES = 1 << 26
_AGAIN = "Collect it again, with llama-imatrix or --calibration."


@dataclass(frozen=True)
class Imatrix:
    """Mean square of every column's input, by tensor: (matrices, columns), 1 for an expert that was
    never chosen.

    `chunks` of how many tokens it was collected on, and the name of the text, as far as the file
    says.
    """

    weights: Mapping[str, Floats]
    chunks: int | None = None
    chunk_tokens: int | None = None
    dataset: str | None = None

    def facts(self) -> JsonObject:
        """JSON for the manifest."""
        return {
            "entries": len(self.weights),
            "chunks": self.chunks,
            "chunk_tokens": self.chunk_tokens,
            "dataset": self.dataset,
        }


def read_imatrix(path: Path) -> Imatrix:
    """Read a file of llama-imatrix, in GGUF or in the older form (`.dat`). Raises PackError (bad
    input) naming it."""
    try:
        with path.open("rb") as file:
            matrix = _read_gguf(path) if file.read(4) == b"GGUF" else _read_dat(path)
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        ArithmeticError,
        struct.error,
    ) as error:
        raise bad_input(
            f"{path} is not an importance matrix, or is incomplete ({error}).", _AGAIN
        ) from error
    if not matrix.weights:
        raise bad_input(f"{path} holds no importance matrix.", _AGAIN)
    for name, weights in matrix.weights.items():
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise bad_input(
                f"{path}: the entry {name!r} has values that are not mean squares: negative, NaN "
                "or infinite.",
                _AGAIN,
            )
    return matrix


def _read_gguf(path: Path) -> Imatrix:
    check_matrix_file(path)
    reader: Any = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights: dict[str, Floats] = {}
    for name, tensor in tensors.items():
        if not name.endswith(_SUMS):
            continue
        entry = name.removesuffix(_SUMS)
        counts = tensors.get(entry + _COUNTS)
        if counts is None or {tensor.tensor_type, counts.tensor_type} != {
            gguf.GGMLQuantizationType.F32
        }:
            raise ValueError(f"the entry {entry!r} has no counts, or other numbers than float32")
        sums, each = (
            np.asarray(tensor.data, np.float32),
            np.asarray(counts.data, np.float32).reshape(-1, 1),
        )
        if sums.size % max(1, each.size):
            raise ValueError(f"the counts of {entry!r} do not fit its sums")
        rows, used = sums.reshape(each.size, -1), each > 0
        weights[entry] = np.where(used, rows / np.where(used, each, 1), np.float32(1)).astype(
            np.float32
        )

    def value(key: str) -> Any:
        field = reader.fields.get(key)
        return None if field is None else field.contents()

    datasets = value(gguf.Keys.IMatrix.DATASETS) or [None]
    return Imatrix(
        weights,
        value(gguf.Keys.IMatrix.CHUNK_COUNT),
        value(gguf.Keys.IMatrix.CHUNK_SIZE),
        _name(datasets[0]),
    )


def _read_dat(path: Path) -> Imatrix:
    """Entries of name, number of calls, and means times calls; the number of chunks and the text's
    name may follow."""
    data = bounded_bytes(path, MATRIX_BYTES)
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        if count < 0 or at + count > len(data):
            raise ValueError("it ends too early")
        at += count
        return data[at - count : at]

    def number(most: int) -> int:
        (found,) = struct.unpack("<i", take(4))
        if not 0 < found <= most:
            raise ValueError(f"it says {found} where a count is expected")
        return int(found)

    weights: dict[str, Floats] = {}
    for _ in range(number(MATRIX_ENTRIES)):
        name = take(number(256)).decode()
        calls = struct.unpack("<i", take(4))[0]
        values = np.frombuffer(take(4 * number(_MOST_VALUES)), "<f4").astype(np.float32)
        weights[name] = (values / np.float32(calls) if calls > 0 else values).reshape(1, -1)
    if at == len(data):
        return Imatrix(weights)
    chunks = number(1 << 30)
    return Imatrix(
        weights,
        chunks,
        None,
        _name(take(number(4096)).decode("utf-8", "replace")) if at < len(data) else None,
    )


def _name(dataset: object) -> str | None:
    """The text's name without the folders of the machine that it lay on."""
    return None if dataset is None else str(dataset).replace("\\", "/").rpartition("/")[2]


def write_imatrix(
    path: Path,
    sums: Mapping[str, Floats],
    counts: Mapping[str, npt.NDArray[np.int64]],
    chunks: int,
    chunk_tokens: int,
    dataset: str,
) -> None:
    """Write a file as llama-imatrix does: for every entry the sums of squares (matrices, columns)
    and the counts, in order of names."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array(gguf.Keys.IMatrix.DATASETS, [dataset])
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, chunks)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, chunk_tokens)
    for name in sorted(sums):
        writer.add_tensor(f"{name}{_SUMS}", sums[name].astype(np.float32))
        writer.add_tensor(f"{name}{_COUNTS}", counts[name].astype(np.float32).reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_imatrix(imatrix: Imatrix | None, typed: Sequence[TypedTensor]) -> None:
    """Raise PackError (bad input) naming what shows that it was collected with another model, or
    what lacks an entry that it needs."""
    entries = imatrix.weights if imatrix is not None else {}
    foreign = next(
        (
            name
            for name in entries
            if name not in {entry.tensor.name for entry in typed} and name not in ENDS
        ),
        None,
    )
    if foreign is not None:
        raise _of_another_model(f"it names {foreign!r}, which this model lacks")
    for entry in typed:
        tensor = entry.tensor
        weights = entries.get(tensor.name)
        if weights is None:
            if needs_imatrix(tensor.name, entry.type):
                problem = "has no entry for" if imatrix is not None else "is needed for"
                raise bad_input(
                    f"An importance matrix {problem} {tensor.name!r}, which becomes {entry.type}.",
                    _AGAIN,
                )
            continue
        matrices = tensor.rows // tensor.matrix_rows
        if weights.size != tensor.columns * matrices:
            raise _of_another_model(
                f"it has {weights.size} values for {tensor.name!r}, which takes "
                f"{tensor.columns * matrices}"
            )


def _of_another_model(why: str) -> PackError:
    return bad_input(
        f"The importance matrix was collected with another model: {why}.",
        "Collect it with this very model.",
    )
