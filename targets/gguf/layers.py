"""Bytes of every layer by ggml type, for every shape of the catalogue and every preset, with no
engine at hand.

llama.cpp mixes types: the first and the last layers of a preset may hold more bits than those
between them, and rows that no block of 256 divides fall back. What goes onto a GPU, and how fast
each part is read, follows from the types themselves. They are the library's own decision; `python
-m targets.gguf.layers` asks it again and writes layers.json.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import msgspec

from packager.shape import Shape
from targets.gguf import sizes
from targets.gguf.presets import PRESETS, PURE, Preset

TABLE = Path(__file__).with_name("layers.json")

UNKNOWN = "?"
"""Stands for the type where only a sum is known."""
_EXPERTS = "*"
"""Behind the type of a stack of experts, of which a token reads only the active ones."""

Bytes = Mapping[str, int]
"""Bytes by ggml type, alignment counted; a star behind the type marks stacks of experts."""


class Layers(NamedTuple):
    """The tensors of one model: those of each layer in order, the embedding, and the output matrix
    with the last norm.

    `output` is empty of matrices where the embedding serves as output too.
    """

    layers: tuple[Bytes, ...]
    embedding: Bytes
    output: Bytes

    def layer_bytes(self) -> list[int]:
        """Bytes of each layer."""
        sizes_of = {id(part): sum(part.values()) for part in self._different()}
        return [sizes_of[id(part)] for part in self.layers]

    def layer_reads(self, shape: Shape) -> list[int]:
        """Bytes of each layer that one token reads."""
        reads = {id(part): read_of(shape, part) for part in self._different()}
        return [reads[id(part)] for part in self.layers]

    def _different(self) -> Iterable[Bytes]:
        """Most layers are one and the same mapping: each is looked at once."""
        return {id(part): part for part in self.layers}.values()

    def read_per_token(
        self, shape: Shape, multiplied: dict[str, int] | None = None
    ) -> dict[str, int]:
        """Bytes by type that one token reads: of the experts the active ones, of an untied
        embedding one row, which is left out. `multiplied` are those of the layers, where they are
        known."""
        read = dict(self.multiplied_per_token(shape) if multiplied is None else multiplied)
        for part in (self.output, self.embedding) if shape.tied else (self.output,):
            _add(read, shape, part)
        return read

    def multiplied_per_token(self, shape: Shape) -> dict[str, int]:
        """Bytes by type of the layers alone, which every token of a prompt goes through."""
        multiplied: dict[str, int] = {}
        times = Counter(map(id, self.layers))
        for part in self._different():
            _add(multiplied, shape, part, times[id(part)])
        return multiplied


def _add(bytes_by_type: dict[str, int], shape: Shape, part: Bytes, times: int = 1) -> None:
    for kind, size in part.items():
        if kind.endswith(_EXPERTS):
            kind, size = kind.removesuffix(_EXPERTS), _active(shape, size)
        bytes_by_type[kind] = bytes_by_type.get(kind, 0) + times * size


def _active(shape: Shape, size: int) -> int:
    """Bytes that a token reads of a stack of experts of `size` bytes."""
    experts = shape.experts
    return size * experts.active // experts.count if experts else size


def read_of(shape: Shape, part: Bytes) -> int:
    """Bytes that a token reads of one part."""
    return sum(
        _active(shape, size) if kind.endswith(_EXPERTS) else size for kind, size in part.items()
    )


@cache
def of(shape: Shape, preset: Preset, total: sizes.Sizes) -> Layers:
    """The layers of a shape, whose bytes together are `total`'s.

    A shape that the table lacks, and a recipe to which the user added types, get layers that are
    all alike: only their sum is exact.
    """
    head = sizes.head_bytes(shape)
    if head:
        decoder = replace(shape, task="generate")
        body = of(decoder, preset, total._replace(rest=total.rest - head))
        return body._replace(output={**body.output, "F32": body.output.get("F32", 0) + head})
    entry = _table().get(sizes.key(shape), {}).get(preset.name)
    # A preset without a mix gives all its matrices one type.
    kind = preset.name if preset.name in PURE else UNKNOWN
    if entry is None:
        return _alike(shape, total, kind)
    by_letter = dict(zip(ascii_lowercase, entry.kinds, strict=False))
    in_layers = sum(entry.pattern.count(letter) * _sum(part) for letter, part in by_letter.items())
    if in_layers + _sum(entry.embedding) + _sum(entry.output) != total.data:
        return _alike(shape, total, kind)
    return Layers(tuple(map(by_letter.__getitem__, entry.pattern)), entry.embedding, entry.output)


def _alike(shape: Shape, total: sizes.Sizes, kind: str) -> Layers:
    def share(size: int, number: int) -> int:
        return size * (number + 1) // shape.layers - size * number // shape.layers

    shares = (
        (share(total.rest, number), share(total.experts, number)) for number in range(shape.layers)
    )
    # They differ by a byte at most, so there are few of them.
    known: dict[tuple[int, int], Bytes] = {}
    layers = tuple(
        known.setdefault(pair, {kind: pair[0], kind + _EXPERTS: pair[1]}) for pair in shares
    )
    return Layers(layers, {kind: total.embedding}, {kind: total.output})


def _sum(part: Bytes) -> int:
    return sum(part.values())


class _Entry(NamedTuple):
    """One shape in one preset: a letter for every layer, the bytes of each kind of layer in the
    order of the letters, those of the embedding, and those of output and last norm."""

    pattern: str
    kinds: list[dict[str, int]]
    embedding: dict[str, int]
    output: dict[str, int]


class _Table(msgspec.Struct):
    shapes: dict[str, dict[str, _Entry]]


@cache
def _table() -> dict[str, dict[str, _Entry]]:
    """By shape and preset."""
    return msgspec.json.decode(TABLE.read_bytes(), type=_Table).shapes if TABLE.exists() else {}


def ask(shape: Shape, preset: Preset) -> list[Any]:
    """The fields of an entry of the table, in their order."""
    # Late: the gguf package brings numpy, and the dry run the engine.
    from packager.shape import tensors
    from targets.gguf import kernels, metadata, mix
    from targets.gguf.arch import architecture
    from targets.gguf.tensors import padded, place

    converter = architecture(shape.to_config())
    planned = converter.tensors({spec.name: spec.shape for spec in tensors(shape)})
    types = mix.tensor_types(
        metadata.network(converter, preset.file_type),
        planned,
        preset,
        "BF16",
        imatrix=preset.imatrix,
    )
    layers: list[dict[str, int]] = [{} for _ in range(shape.layers)]
    outer: dict[str, dict[str, int]] = {"token_embd": {}, "output": {}}
    for entry in place(planned, types, kernels.row_bytes):
        name = entry.tensor.name
        head, _, rest = name.partition(".")
        part = (
            layers[int(rest.partition(".")[0])]
            if head == "blk"
            else outer[head.removesuffix("_norm")]
        )
        kind = entry.type + (_EXPERTS if "_exps." in name else "")
        part[kind] = part.get(kind, 0) + padded(entry.nbytes)
    kinds: list[dict[str, int]] = []
    for layer in layers:
        if layer not in kinds:
            kinds.append(layer)
    pattern = "".join(chr(ord("a") + kinds.index(layer)) for layer in layers)
    return [pattern, kinds, outer["token_embd"], outer["output"]]


def main() -> int:
    """Write layers.json for every shape that sizes.json has."""
    from packager import catalog
    from targets.gguf import library
    from targets.gguf.arch import MODEL_TYPES

    rows: dict[str, str] = {}
    for variant in catalog.load():
        shape = sizes.decoder_of(variant)
        if shape is None or shape.model_type not in MODEL_TYPES or sizes.key(shape) in rows:
            continue
        by_preset = {preset.name: ask(shape, preset) for preset in PRESETS.values()}
        rows[sizes.key(shape)] = json.dumps(by_preset, separators=(",", ":"))
        print(variant.repo_id, file=sys.stderr)
    source = (
        f"dry run of llama_model_quantize, llama-cpp-python {library.version()}; written by "
        "python -m targets.gguf.layers"
    )
    text = ",\n".join(f"{json.dumps(name)}: {row}" for name, row in rows.items())
    from packager.files import write_atomically

    write_atomically(
        TABLE, f'{{"source": {json.dumps(source)},\n"shapes": {{\n{text}\n}}}}\n'.encode()
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
