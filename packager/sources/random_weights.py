"""Random weights written straight into the safetensors layout: header first, then every tensor at
its place.

Each block of a tensor has a random stream of its own, keyed by seed, tensor name and block number,
so the bytes do not depend on how many threads write them or on which other tensors there are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import ml_dtypes
import numpy as np

from packager.checkpoint.folder import INDEX
from packager.checkpoint.header import ITEM_BYTES
from packager.files import write_json
from packager.json_values import JsonDict
from packager.shape import TensorSpec

MAX_SHARD_BYTES = 5_000_000_000
"""Where the hub's own repositories begin a new file."""

_STANDARD_DEVIATION = 0.02  # initializer_range of every Qwen config
_NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight")
_BLOCK = 1 << 20
_DTYPES = {
    "BF16": (ml_dtypes.bfloat16, np.uint16),
    "F16": (np.float16, np.uint16),
    "F32": (np.float32, np.uint32),
}

_Bits = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class _Block:
    """`count` elements of one tensor, to be written at byte `offset` of an open file; the tensor's
    `number`-th block."""

    descriptor: int
    offset: int
    tensor: str
    number: int
    count: int


def write_weights(
    folder: Path,
    specs: Iterable[TensorSpec],
    *,
    seed: int,
    dtype: str = "BF16",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    threads: int = 2,
) -> Iterator[int]:
    """Write model.safetensors, or shards and their index, into `folder`; yield the bytes of weights
    written so far.

    Norms are one, everything else is normal around zero with a standard deviation of 0.02. `dtype`
    is BF16, F16 or F32. Raises OSError when the disk is full.
    """
    item = ITEM_BYTES[dtype]
    shards = _shards(list(specs), item, max_shard_bytes)
    table, one = _quantiles(dtype), _bits([1.0], dtype)
    done = 0
    for file_name, part in shards.items():
        header = _header(part, dtype)
        descriptor = os.open(folder / file_name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            os.ftruncate(descriptor, len(header) + sum(spec.elements for spec in part) * item)
            os.pwrite(descriptor, header, 0)
            with ThreadPoolExecutor(threads) as pool:
                for written in pool.map(
                    lambda block: _fill(block, seed, table, one),
                    _blocks(part, descriptor, len(header), item),
                ):
                    done += written
                    yield done
        finally:
            os.close(descriptor)
    if len(shards) > 1:
        weight_map = {spec.name: file_name for file_name, part in shards.items() for spec in part}
        write_json(folder / INDEX, {"metadata": {"total_size": done}, "weight_map": weight_map})


def _shards(specs: Sequence[TensorSpec], item: int, limit: int) -> dict[str, list[TensorSpec]]:
    """Tensors by file name, in order, a new file when the next tensor would pass `limit`."""
    parts: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if parts[-1] and size + spec.elements * item > limit:
            parts.append([])
            size = 0
        parts[-1].append(spec)
        size += spec.elements * item
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {
        f"model-{number:05d}-of-{len(parts):05d}.safetensors": part
        for number, part in enumerate(parts, 1)
    }


def _header(specs: Sequence[TensorSpec], dtype: str) -> bytes:
    """Length and JSON, padded with spaces so that the data begin at a multiple of eight."""
    # transformers refuses files that do not say which framework's layout they follow.
    entries: JsonDict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.elements * ITEM_BYTES[dtype]
        entries[spec.name] = {
            "dtype": dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(
    specs: Sequence[TensorSpec], descriptor: int, offset: int, item: int
) -> Iterator[_Block]:
    for spec in specs:
        for number, start in enumerate(range(0, spec.elements, _BLOCK)):
            count = min(_BLOCK, spec.elements - start)
            yield _Block(descriptor, offset, spec.name, number, count)
            offset += count * item


def _fill(block: _Block, seed: int, table: _Bits, one: _Bits) -> int:
    """Write one block; returns its bytes."""
    if block.tensor.endswith(_NORMS):
        values = np.repeat(one, block.count)
    else:
        name = int.from_bytes(hashlib.sha256(block.tensor.encode()).digest()[:16], "little")
        stream = np.random.SFC64(np.random.SeedSequence([seed, name, block.number]))
        raw = np.asarray(stream.random_raw(-(-block.count // 4)), dtype="<u8")
        values = table[raw.view("<u2")[: block.count]]
    data = memoryview(values.tobytes())
    written = 0
    while written < len(data):
        written += os.pwrite(block.descriptor, data[written:], block.offset + written)
    return written


def _quantiles(dtype: str) -> _Bits:
    """The 65,536 quantiles of the normal distribution: 16 random bits choose one, ten times as fast
    as a normal generator."""
    normal = NormalDist(0.0, _STANDARD_DEVIATION)
    return _bits([normal.inv_cdf((index + 0.5) / 65536) for index in range(65536)], dtype)


def _bits(values: Sequence[float], dtype: str) -> _Bits:
    number, bits = _DTYPES[dtype]
    return np.array(values, dtype=np.float64).astype(number).view(bits)
