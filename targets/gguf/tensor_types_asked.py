"""Writes tensor_types.json: the library's own decision for every shape of the catalogue, by dry
runs.

`python -m targets.gguf.tensor_types_asked`
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from targets.gguf.tensor_types import TABLE, Entry, Tensor, Types

if TYPE_CHECKING:
    from packager.shape import Shape
    from targets.gguf.tensors import OutTensor, TypedTensor

_Part = TypeVar("_Part")


def ask(shape: Shape, columns: Mapping[str, bool], letters: Mapping[str, str]) -> Entry:
    """The library's answer for the presets of `columns`, which says of each whether there is an
    importance matrix, by dry runs on headers made from the shape alone."""
    # Late: the gguf package brings numpy, and the dry run the engine.
    from packager.shape import heads, tensors
    from targets.gguf import kernels, metadata, mix
    from targets.gguf.arch import architecture
    from targets.gguf.presets import PRESETS
    from targets.gguf.tensors import place

    converter = architecture(shape.to_config())
    specs = list(tensors(shape))
    if shape.draft_layers:
        converter.keep_heads()
        specs += heads.tensors(shape)
    planned = converter.tensors({spec.name: spec.shape for spec in specs})
    by_column: dict[str, list[TypedTensor]] = {}
    for column, imatrix in columns.items():
        preset = PRESETS[column.partition("+")[0]]
        network = metadata.network(converter, preset.file_type)
        types = mix.tensor_types(network, planned, preset, "BF16", imatrix=imatrix)
        typed = place(planned, types, kernels.row_bytes)
        by_column[column] = [entry for entry in typed if not entry.tensor.f32]
    outer, layers = _split([(tensor, "") for tensor in planned if not tensor.f32])
    pattern, kinds = _alike([[tensor for tensor, _ in layer] for layer in layers])
    result: dict[str, Types] = {}
    for column, entries in by_column.items():
        ends, parts = _split([(entry.tensor, letters[entry.type]) for entry in entries])
        by_layer, of_kinds = _alike(["".join(letter for _, letter in part) for part in parts])
        result[column] = Types("".join(letter for _, letter in ends), by_layer, of_kinds)
    return Entry(planned[-1].name, [tensor for tensor, _ in outer], pattern, kinds, result)


def _split(
    tensors: Sequence[tuple[OutTensor, str]],
) -> tuple[list[tuple[Tensor, str]], list[list[tuple[Tensor, str]]]]:
    """Those outside the layers, and those of each layer, named without it."""
    outer: list[tuple[Tensor, str]] = []
    layers: dict[int, list[tuple[Tensor, str]]] = {}
    for tensor, letter in tensors:
        plain = Tensor(tensor.name, tensor.columns, tensor.rows)
        head, _, rest = plain.name.partition(".")
        if head != "blk":
            outer.append((plain, letter))
            continue
        number, _, name = rest.partition(".")
        layers.setdefault(int(number), []).append((plain._replace(name=name), letter))
    return outer, [layers[number] for number in sorted(layers)]


def _alike(parts: Sequence[_Part]) -> tuple[str, list[_Part]]:
    """The different parts, and one letter for each that says which."""
    different: list[_Part] = []
    for part in parts:
        if part not in different:
            different.append(part)
    return "".join(string.ascii_letters[different.index(part)] for part in parts), different


def main() -> int:
    """Write tensor_types.json for every shape that sizes.json has."""
    from packager import catalog
    from packager.files import write_atomically
    from targets.gguf import kernels, library, sizes
    from targets.gguf.arch import MODEL_TYPES
    from targets.gguf.presets import PRESETS, TENSOR_TYPES

    letters = dict(zip(TENSOR_TYPES, string.ascii_letters, strict=False))
    columns = {
        column: column.endswith(sizes.WITH_IMATRIX)
        or PRESETS[column.removesuffix(sizes.WITH_IMATRIX)].imatrix
        for column in sizes.COLUMNS
    }
    rows: dict[str, str] = {}
    for variant in catalog.load():
        for shape in sizes.shapes_of(variant):
            if shape.model_type not in MODEL_TYPES or sizes.key(shape) in rows:
                continue
            rows[sizes.key(shape)] = json.dumps(ask(shape, columns, letters), separators=(",", ":"))
            print(variant.repo_id, file=sys.stderr)
    source = (
        f"dry run of llama_model_quantize, llama-cpp-python {library.version()}; written by "
        "python -m targets.gguf.tensor_types_asked"
    )
    blocks = {kind: kernels.block(kind) for kind in TENSOR_TYPES}
    text = ",\n".join(f"{json.dumps(name)}: {row}" for name, row in rows.items())
    document = (
        f'{{"source": {json.dumps(source)},\n"blocks": {json.dumps(blocks)},\n"shapes": '
        f"{{\n{text}\n}}}}\n"
    )
    write_atomically(TABLE, document.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
