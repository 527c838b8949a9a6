"""One GGUF as several files below a size, in the form of llama.cpp's `llama-gguf-split`: it loads
the first and finds the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf

from packager.errors import usage
from packager.units import human_bytes
from targets.gguf import header
from targets.gguf.metadata import KeyValues
from targets.gguf.tensors import TypedTensor, padded

_MOST = 65535
"""The number of files is stored in 16 bits."""


@dataclass(frozen=True)
class Shard:
    """A file to be written: its header, and its tensors with their offsets in it."""

    path: Path
    head: bytes
    typed: tuple[TypedTensor, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        last = self.typed[-1] if self.typed else None
        return len(self.head) + (padded(last.offset + last.nbytes) if last else 0)


def shards(
    path: Path, keys: KeyValues, typed: Sequence[TypedTensor], limit: int | None = None
) -> list[Shard]:
    """One file at `path`, or where that exceeds `limit` bytes several beside it, none larger:
    `NAME-00001-of-00003.gguf`.

    Every key stands in the first file, the tensors follow in their order. Raises PackError (usage)
    where a single tensor, or the header with the first, exceeds the limit: a tensor cannot be
    split.
    """
    whole = Shard(path, header.encode(keys, typed), tuple(typed))
    if limit is None or whole.size <= limit:
        return [whole]
    groups: list[list[TypedTensor]] = [[]]
    # Of every file in advance: what the header takes beside the lines of its tensors.
    head = len(header.encode(_keys(keys, 0, _MOST, len(typed)), []))
    lines = 0
    for entry in typed:
        line = header.line_bytes(entry)
        group = groups[-1]
        data = group[-1].offset + padded(group[-1].nbytes) if group else 0
        if padded(head + lines + line) + data + padded(entry.nbytes) > limit:
            if not group:
                raise _too_small(entry, limit, padded(head + lines + line) + padded(entry.nbytes))
            groups.append([])
            head, lines, data = len(header.encode(_keys({}, 1, _MOST, len(typed)), [])), 0, 0
            if padded(head + line) + padded(entry.nbytes) > limit:
                raise _too_small(entry, limit, padded(head + line) + padded(entry.nbytes))
        lines += line
        groups[-1].append(replace(entry, offset=data))
    if len(groups) > _MOST:
        raise usage(
            f"{human_bytes(limit)} would make {len(groups)} files.",
            "Allow larger ones with --max-file-size.",
        )
    return [
        Shard(
            path.with_name(f"{path.stem}-{number + 1:05d}-of-{len(groups):05d}{path.suffix}"),
            header.encode(
                _keys(keys if number == 0 else {}, number, len(groups), len(typed)), group
            ),
            tuple(group),
        )
        for number, group in enumerate(groups)
    ]


def _keys(keys: KeyValues, number: int, count: int, tensors: int) -> KeyValues:
    kind = gguf.GGUFValueType
    # In the order in which llama-gguf-split leaves them, so that files split at the same tensors
    # are the same.
    return {
        **keys,
        gguf.Keys.Split.LLM_KV_SPLIT_NO: gguf.GGUFValue(number, kind.UINT16),
        gguf.Keys.Split.LLM_KV_SPLIT_TENSORS_COUNT: gguf.GGUFValue(tensors, kind.INT32),
        gguf.Keys.Split.LLM_KV_SPLIT_COUNT: gguf.GGUFValue(count, kind.UINT16),
    }


def _too_small(entry: TypedTensor, limit: int, needs: int) -> Exception:
    return usage(
        f"A file with the tensor {entry.tensor.name!r} takes {human_bytes(needs)}, and "
        f"--max-file-size allows {human_bytes(limit)}.",
        f"Allow at least {needs} bytes, or take a recipe of fewer bits: a tensor cannot be split.",
    )
