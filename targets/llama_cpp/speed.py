"""How llama.cpp's kernels for each ggml type compare, and what a layer takes beside them. The
figures are in speed.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from packager.predict.forecast import Speed, prompt_parameters
from packager.shape import Shape
from targets.gguf.layers import Layers
from targets.speed_table import Row, rows

FILE = Path(__file__).with_name("speed.toml")
_REFERENCE = "Q4_K"


def speed(shape: Shape, layers: Layers, isa: str) -> Speed:
    """The mean over the types of the tensors that a token reads, each with the weight of its bytes.

    `isa` begins with what computes: a back end of llama.cpp (cuda, metal, vulkan), or the
    architecture of a processor.
    """
    # A prompt goes through the layers alone: the embedding is looked up, and the output works on
    # the last token only.
    multiplied = layers.multiplied_per_token(shape)
    read = layers.read_per_token(shape, multiplied)
    known = _speed(shape, read, multiplied, _rows_of(_unit(isa)))
    if shape.task == "generate":
        return known
    # Of a text for an embedder or a reranker the logits of every token are computed as well.
    in_layers = prompt_parameters(shape)
    share = in_layers / (in_layers + shape.vocab * shape.hidden)
    return replace(known, compute=known.compute * share)


def _unit(isa: str) -> str:
    """What names the tables of speed.toml. Arm's products of 8-bit matrices make kernels of their
    own, to which llama.cpp repacks Q4_K, Q5_K, Q6_K and Q8_0 as well."""
    unit, *extensions = isa.split()
    return "aarch64+i8mm" if unit == "aarch64" and "i8mm" in extensions else unit


class _Unit(NamedTuple):
    """The rows of one unit: the usual one, and the factors on the rates by type."""

    usual: Row
    bandwidth: Mapping[str, float]
    compute: Mapping[str, float]


@cache
def _rows_of(unit: str) -> _Unit:
    known = rows(FILE)
    # What no table names is as the processors that were measured first.
    usual = known.get(f"{unit}/{_REFERENCE}", known[f"x86_64/{_REFERENCE}"])
    by_type = {
        name.removeprefix(f"{unit}/"): row
        for name, row in known.items()
        if name.startswith(f"{unit}/")
    }
    return _Unit(
        usual,
        {kind: row.bandwidth for kind, row in by_type.items()},
        {kind: row.compute for kind, row in by_type.items()},
    )


def _mean(bytes_by_type: Mapping[str, int], factors: Mapping[str, float], usual: float) -> float:
    """The mean of the factors over the seconds that the bytes of each type take."""
    seconds = sum(size / factors.get(kind, usual) for kind, size in bytes_by_type.items())
    return max(1, sum(bytes_by_type.values())) / max(1e-9, seconds)


def _speed(
    shape: Shape, read: Mapping[str, int], multiplied: Mapping[str, int], unit: _Unit
) -> Speed:
    default = unit.usual
    operations = default.operations(shape)
    return Speed(
        bandwidth=_mean(read, unit.bandwidth, default.bandwidth),
        compute=_mean(multiplied, unit.compute, default.compute),
        operations=operations,
        attention=default.attention,
        experts=default.experts,
        recurrent=default.recurrent,
        # A batch starts each kernel once, as a single token does.
        prompt_operations=operations,
        batched=default.batched,
        # The tower's weights are not repacked for the processor: in 8 bits it is taken to be no
        # faster than in half precision (docs/vision.md).
        tower=unit.compute.get("F16", default.compute),
    )
