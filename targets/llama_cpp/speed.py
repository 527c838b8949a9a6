"""How llama.cpp's kernels for each ggml type compare, and what a layer takes beside them. The
figures are in speed.toml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from packager.predict.forecast import Speed, prompt_parameters
from packager.shape import Shape
from targets.gguf.layers import Layers
from targets.speed_table import Row, rows

FILE = Path(__file__).with_name("speed.toml")
_REFERENCE = "Q4_K"
_Bytes = tuple[tuple[str, int], ...]
"""Bytes by type."""


def speed(shape: Shape, layers: Layers, isa: str) -> Speed:
    """The mean over the types of the tensors that a token reads, each with the weight of its bytes.

    `isa` begins with what computes: a back end of llama.cpp (cuda, metal, vulkan), or the
    architecture of a processor.
    """
    # A prompt goes through the layers alone: the embedding is looked up, and the output works on
    # the last token only.
    multiplied = layers.multiplied_per_token(shape)
    read = layers.read_per_token(shape, multiplied)
    known = _speed(shape, tuple(read.items()), tuple(multiplied.items()), _unit(isa))
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


@cache
def _speed(shape: Shape, read: _Bytes, multiplied: _Bytes, unit: str) -> Speed:
    known = rows(FILE)
    # What no table names is as the processors that were measured first.
    default = known.get(f"{unit}/{_REFERENCE}", known[f"x86_64/{_REFERENCE}"])

    def mean(parts: _Bytes, factor: Callable[[Row], float]) -> float:
        seconds = sum(size / factor(known.get(f"{unit}/{kind}", default)) for kind, size in parts)
        return max(1, sum(size for _, size in parts)) / max(1e-9, seconds)

    operations = default.operations(shape)
    return Speed(
        bandwidth=mean(read, lambda row: row.bandwidth),
        compute=mean(multiplied, lambda row: row.compute),
        operations=operations,
        attention=default.attention,
        experts=default.experts,
        recurrent=default.recurrent,
        # A batch starts each kernel once, as a single token does.
        prompt_operations=operations,
        batched=default.batched,
        # The tower's weights are not repacked for the processor: in 8 bits it is taken to be no
        # faster than in half precision (docs/vision.md).
        tower=known.get(f"{unit}/F16", default).compute,
    )
