"""Which recipe a GGUF follows that somebody else wrote, told from the types of its tensors, and how
many bytes each part of it has.

A preset is named only where every single tensor has the type that llama.cpp's quantizer gives it;
everything else is a mixture of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gguf

from packager.errors import PackError, bad_input
from packager.escapes import line
from packager.inspection.unsafe import shown
from packager.json_values import JsonObject
from packager.shape import Shape
from targets.gguf import library, metadata, mix
from targets.gguf.arch import architecture
from targets.gguf.given import Given
from targets.gguf.given_shape import expected
from targets.gguf.layers import Layers
from targets.gguf.presets import IMATRIX_DECIDES, PRESETS, PURE, Preset
from targets.gguf.sizes import Sizes
from targets.gguf.tensors import padded

MIXED = "mixed"
"""The name of a recipe that is none of llama.cpp's presets."""
_LONGEST = 200
_FILE_TYPE = "general.file_type"
_IMATRIX = {
    "file": "quantize.imatrix.file",
    "dataset": "quantize.imatrix.dataset",
    "entries": "quantize.imatrix.entries_count",
    "chunks": "quantize.imatrix.chunks_count",
}


@dataclass(frozen=True)
class Known:
    """What the types say: `preset` is None for a mixture of its own; `imatrix` whether the types
    are those that an importance matrix gives, None where that makes no difference."""

    preset: Preset | None
    types: Mapping[str, str]
    imatrix: bool | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Tensors by type, the most frequent first."""
        return dict(Counter(self.types.values()).most_common())


def types_of(given: Given) -> dict[str, str]:
    """The type of every tensor by its name in ggml. Raises PackError (exit code 6) for one that no
    engine here computes with."""
    types = {}
    for name, tensor in given.tensors.items():
        try:
            types[name] = gguf.GGMLQuantizationType(tensor.kind).name
        except ValueError:
            raise bad_input(
                f"{given.files[0]} holds {shown(name)} in the type {tensor.kind}, which the engine "
                "here does not know.",
                "Update llama-cpp-python and gguf, or take a file of another type.",
            ) from None
    return types


def recognised(given: Given, shape: Shape) -> Known:
    """The preset that the file follows."""
    types, planned = types_of(given), expected(shape)
    for preset in _in_order(given):
        if preset.name not in PURE and not library.installed():
            continue
        network = metadata.network(architecture(shape.to_config()), preset.file_type)
        for imatrix in _ways(preset):
            try:
                would = mix.tensor_types(network, planned, preset, "BF16", imatrix=imatrix)
            except PackError:
                # Rows that this preset cannot have.
                continue
            if would == types:
                decided = preset.imatrix or preset.name in IMATRIX_DECIDES
                return Known(preset, types, imatrix if decided else None)
    return Known(None, types)


def _in_order(given: Given) -> Iterator[Preset]:
    """The preset that the file says it is first: it is right nearly always."""
    file_type = given.head.number(_FILE_TYPE)
    first = [
        preset
        for preset in PRESETS.values()
        if file_type == int(gguf.LlamaFileType[preset.file_type])
    ]
    yield from first
    yield from (preset for preset in PRESETS.values() if preset not in first)


def _ways(preset: Preset) -> tuple[bool, ...]:
    """Without and with an importance matrix, as far as that makes a difference."""
    if preset.imatrix:
        return (True,)
    return (False, True) if preset.name in IMATRIX_DECIDES else (False,)


def imatrix_of(given: Given) -> JsonObject | None:
    """What the file says of the importance matrix that it was quantized with; None where it says
    nothing."""
    stored = {name: given.head.keys.get(key) for name, key in _IMATRIX.items()}
    stated = {name: value for name, value in stored.items() if isinstance(value, str | int)}
    if not stated:
        return None
    # Names without the folders of the machine that made it.
    return {
        name: line(value.replace("\\", "/").rpartition("/")[2])[:_LONGEST]
        if isinstance(value, str)
        else value
        for name, value in stated.items()
    }


def sizes_of(given: Given) -> Sizes:
    """Bytes by part, as `targets.gguf.sizes` counts them."""
    sums = {"embedding": 0, "output": 0, "experts": 0, "rest": 0}
    for name, tensor in given.tensors.items():
        part = {"token_embd.weight": "embedding", "output.weight": "output"}.get(
            name, "experts" if "_exps." in name else "rest"
        )
        sums[part] += padded(tensor.nbytes)
    return Sizes(**sums, table=0)


def layers_of(given: Given, shape: Shape, types: Mapping[str, str]) -> Layers:
    """Bytes by type of every layer, the embedding and the output, as `targets.gguf.layers` has
    them."""
    layers: list[dict[str, int]] = [{} for _ in range(shape.layers)]
    outer: dict[str, dict[str, int]] = {"token_embd": {}, "output": {}}
    for name, tensor in given.tensors.items():
        head, _, rest = name.partition(".")
        if head == "blk":
            part = layers[int(rest.partition(".")[0])]
        else:
            part = outer[head.removesuffix("_norm")]
        kind = types[name] + ("*" if "_exps." in name else "")
        part[kind] = part.get(kind, 0) + padded(tensor.nbytes)
    return Layers(tuple(layers), outer["token_embd"], outer["output"])
