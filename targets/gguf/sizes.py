"""Exact bytes of the weights in every preset, for every shape of the catalogue, with no engine at
hand.

The types of the tensors are the library's own decision, so the sizes are asked of it once and kept
in sizes.json; `python -m targets.gguf.sizes` asks again. A shape that is not in the table is asked
at need.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from packager.errors import usage
from packager.shape import Shape, heads
from targets.gguf.presets import IMATRIX_DECIDES, PRESETS, Preset

if TYPE_CHECKING:
    from packager.catalog import Variant

WITH_IMATRIX = "+imatrix"
COLUMNS = [*PRESETS, *(f"{name}{WITH_IMATRIX}" for name in IMATRIX_DECIDES)]
"""What the table holds of every shape."""
TABLE = Path(__file__).with_name("sizes.json")


_TASKS = {"embedding": "embed", "reranking": "rerank"}
_ANSWERS, _FLOAT = 2, 4
_PARTS = 4
"""Numbers of a preset in the table before that of the heads, which most shapes have not."""
_HEAD_LINE = 8 + len("cls.output.weight") + 4 + 2 * 8 + 4 + 8
"""What the head of a reranker takes in the table of tensors: name, axes, type and offset."""
_QWEN_ROWS, _QWEN_BYTES = 151_936, 5_926_500
_PADDING_LIMIT = 4096
_PADDING_BYTES = len("[PAD151936]") + 8 + 4


class Sizes(NamedTuple):
    """Bytes in the data section, padding included, and of the tensor table in the header. `output`
    is 0 for a tied embedding, `heads` without a draft module; its experts count there."""

    embedding: int
    output: int
    experts: int
    rest: int
    table: int
    heads: int = 0

    @property
    def data(self) -> int:
        """The whole data section."""
        return self.embedding + self.output + self.experts + self.rest + self.heads

    def read_per_token(self, shape: Shape) -> int:
        """Bytes of weights that one token touches: of the experts the active ones, of an untied
        embedding one row."""
        experts = self.experts * shape.experts.active // shape.experts.count if shape.experts else 0
        return (self.embedding if shape.tied else self.output) + experts + self.rest


@cache
def key(shape: Shape) -> str:
    """What the sizes depend on, as text: everything but context and the constants of norms and
    rotation."""
    flags = "".join("ny"[flag] for flag in (shape.tied, shape.qkv_bias, shape.qk_norm))
    parts: list[object] = [
        shape.model_type,
        shape.hidden,
        shape.layers,
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
    ]
    parts += [shape.intermediate, shape.vocab, flags]
    if shape.experts:
        parts += [
            "experts",
            shape.experts.count,
            shape.experts.active,
            shape.experts.intermediate,
            shape.experts.shared_intermediate or 0,
        ]
    if hybrid := shape.hybrid:
        parts += ["hybrid", hybrid.interval, hybrid.key_heads, hybrid.value_heads]
        parts += [hybrid.key_head_dim, hybrid.value_head_dim, hybrid.conv_kernel]
    if shape.draft_layers:
        parts += ["heads", shape.draft_layers]
    return " ".join(str(part) for part in parts)


def vocabulary_bytes(shape: Shape) -> int:
    """Bytes of tokens, their types and the merges in front of the tensors; all other keys fill
    ROOM.

    Measured on Qwen2.5's own vocabulary (151,643 tokens, 151,387 merges): 5.92 MB for 151,936 rows.
    Rows beyond that are padding tokens in the second and third generation; other vocabularies are
    taken to be as dense.
    """
    if shape.vocab >= _QWEN_ROWS and shape.vocab - _QWEN_ROWS < _PADDING_LIMIT:
        return _QWEN_BYTES + (shape.vocab - _QWEN_ROWS) * _PADDING_BYTES
    return round(shape.vocab * _QWEN_BYTES / _QWEN_ROWS)


def largest_tensor(shape: Shape, sizes: Sizes) -> int:
    """Bytes of the largest tensor, about: a matrix of a vocabulary, or one of the three stacks of a
    layer's experts."""
    # Of the three stacks of a layer the second projection may be in a higher type: up to half as
    # much again.
    stack = sizes.experts // (2 * shape.layers) if shape.experts else 0
    return max(sizes.embedding, sizes.output, stack)


def of(
    shape: Shape, preset: Preset, imatrix: bool = False, overrides: tuple[tuple[str, str], ...] = ()
) -> Sizes:
    """The sizes of a shape, with an importance matrix or types of single tensors where there are
    any.

    Raises PackError (usage) for one that only the missing library could tell, and for an override
    that cannot be.
    """
    column = (
        f"{preset.name}{WITH_IMATRIX}"
        if imatrix and preset.name in IMATRIX_DECIDES
        else preset.name
    )
    if shape.task != "generate":
        return _with_head(shape, of(_decoder(shape), preset, imatrix, overrides))
    stored = _stored(key(shape), column)
    if stored is not None and overrides:
        stored = _with_types(shape, column, stored, imatrix or preset.imatrix, overrides)
    return stored if stored is not None else _asked(shape, preset.name, imatrix, overrides)


@cache
def _with_types(
    shape: Shape,
    column: str,
    stored: Sizes,
    imatrix: bool,
    overrides: tuple[tuple[str, str], ...],
) -> Sizes | None:
    # Late: most recipes leave the types to the library.
    from targets.gguf.tensor_types import differences

    grown = differences(key(shape), shape.layers, column, overrides, imatrix)
    if grown is None:
        return None
    return stored._replace(**{part: getattr(stored, part) + grown[part] for part in grown})


def decoder_of(variant: Variant) -> Shape | None:
    """The shape under which a variant of the catalogue stands in the tables: of a reranker without
    its output matrix. None where no source states it."""
    if variant.shape is None:
        return None
    return _decoder(variant.shape.for_task(_TASKS.get(variant.kind, "generate")))


def _decoder(shape: Shape) -> Shape:
    """The decoder of an embedder or a reranker, whose embedding is an output matrix for the
    quantizer."""
    return replace(shape, task="generate")


def _with_head(shape: Shape, decoder: Sizes) -> Sizes:
    line = _HEAD_LINE if shape.task == "rerank" else 0
    return decoder._replace(rest=decoder.rest + head_bytes(shape), table=decoder.table + line)


def head_bytes(shape: Shape) -> int:
    """Bytes of the two rows that a reranker keeps of its output matrix; 0 for everything else."""
    if shape.task != "rerank":
        return 0
    # Late, as in `ask`: the table needs no tensors.
    from targets.gguf.tensors import padded

    return padded(_ANSWERS * shape.hidden * _FLOAT)


class _Entry(msgspec.Struct):
    """One shape of the table: bytes of the header, and the numbers of each preset."""

    table: int
    sizes: list[list[int]]


class _Table(msgspec.Struct):
    presets: list[str]
    shapes: dict[str, _Entry]


@cache
def _table() -> _Table:
    if not TABLE.exists():
        return _Table([], {})
    return msgspec.json.decode(TABLE.read_bytes(), type=_Table)


@cache
def _stored(shape_key: str, column: str) -> Sizes | None:
    """What the table says; None for a shape or a preset that it has not."""
    table = _table()
    entry = table.shapes.get(shape_key)
    if entry is None or column not in table.presets:
        return None
    numbers = entry.sizes[table.presets.index(column)]
    return Sizes._make((*numbers[:_PARTS], entry.table, *(numbers[_PARTS:] or [0])))


@cache
def _asked(shape: Shape, name: str, imatrix: bool, overrides: tuple[tuple[str, str], ...]) -> Sizes:
    # Late: the gguf package brings numpy, and the dry run the engine.
    from targets.gguf import library
    from targets.gguf.presets import PURE

    if name not in PURE and not library.installed():
        raise usage(
            f"How large {name} gets for a shape that is not in the catalogue, only llama.cpp "
            "knows.",
            "Install it: pip install 'qwen-pack[llama-cpp]'.",
        )
    return ask(shape, PRESETS[name], imatrix, overrides)


def ask(
    shape: Shape, preset: Preset, imatrix: bool = False, overrides: tuple[tuple[str, str], ...] = ()
) -> Sizes:
    """The library's answer, by a dry run on a header made from the shape alone."""
    from packager.shape import tensors
    from targets.gguf import header, kernels, metadata, mix
    from targets.gguf.arch import architecture
    from targets.gguf.tensor_types import part_of
    from targets.gguf.tensors import padded, place

    converter = architecture(shape.to_config())
    specs = list(tensors(shape))
    if shape.draft_layers:
        converter.keep_heads()
        specs += heads.tensors(shape)
    planned = converter.tensors({spec.name: spec.shape for spec in specs})
    network = metadata.network(converter, preset.file_type)
    types = mix.tensor_types(
        network, planned, preset, "BF16", dict(overrides), imatrix=imatrix or preset.imatrix
    )
    sums = {"embedding": 0, "output": 0, "experts": 0, "rest": 0, "heads": 0}
    typed = list(place(planned, types, kernels.row_bytes))
    for entry in typed:
        sums[part_of(entry.tensor.name, shape.layers)] += padded(entry.nbytes)
    return Sizes(**sums, table=len(header.encode({}, typed)))


def shapes_of(variant: Variant) -> Iterator[Shape]:
    """The decoder of a variant, and that with its heads where its repository brings some."""
    shape = decoder_of(variant)
    if shape is not None:
        yield shape
        if variant.params_mtp and heads.may_have(shape):
            yield replace(shape, draft_layers=heads.LAYERS)


def main() -> int:
    """Write sizes.json for every shape of the catalogue that this runtime builds."""
    from packager import catalog
    from targets.gguf import library
    from targets.gguf.arch import MODEL_TYPES

    shapes: dict[str, dict[str, object]] = {}
    for shape in chain.from_iterable(map(shapes_of, catalog.load())):
        if shape.model_type not in MODEL_TYPES or key(shape) in shapes:
            continue
        found = [
            ask(shape, PRESETS[name.removesuffix(WITH_IMATRIX)], name.endswith(WITH_IMATRIX))
            for name in COLUMNS
        ]
        shapes[key(shape)] = {
            "table": found[0].table,
            "sizes": [
                [*sizes[:_PARTS], *([sizes.heads] if sizes.heads else [])] for sizes in found
            ],
        }
        print(
            f"{key(shape)}: {found[0].data / 1e9:.2f} GB to {found[-1].data / 1e9:.2f} GB",
            file=sys.stderr,
        )
    rows = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}"
        for name, entry in shapes.items()
    )
    source = (
        f"dry run of llama_model_quantize, llama-cpp-python {library.version()}; written by "
        "python -m targets.gguf.sizes"
    )
    text = (
        f'{{"source": {json.dumps(source)},\n"presets": {json.dumps(COLUMNS)},\n"shapes": '
        f"{{\n{rows}\n}}}}\n"
    )
    from packager.files import write_atomically

    write_atomically(TABLE, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
