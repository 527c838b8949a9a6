"""Several sequences that an engine decodes at once: what each adds to the memory, and to the bytes
and operations of a step.

A step reads the weights once for all of them and the cache of each; of a mixture it reads every
expert that any of them is sent to. The products grow with the sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from packager.predict.memory import Footprint, logits_bytes
from packager.shape import Shape


@dataclass(frozen=True, slots=True)
class Sequences:
    """`count` of them; of each a step reads `cache_bytes` where the model runs, and
    `host_cache_bytes` from the system's memory where a part of the model stays behind there."""

    count: int = 1
    cache_bytes: int = 0
    host_cache_bytes: int = 0


ALONE = Sequences()


def expert_growth(shape: Shape, count: int) -> float:
    """How many times the weights of one token `count` tokens read together: 1 for a dense model.

    A router that spreads tokens evenly leaves an expert alone with the probability (1 - active /
    all) ** count.
    """
    if shape.experts is None or count == 1:
        return 1.0
    active = shape.experts.active / shape.experts.count
    # Of an untied embedding a token reads one row.
    read = shape.active_parameters() - (0 if shape.tied else shape.vocab * shape.hidden)
    experts = (
        shape.layers * shape.experts.active * 3 * shape.hidden * shape.experts.intermediate
    ) / read
    touched = (1 - (1 - active) ** count) / active
    return 1 + experts * (touched - 1)


def with_sequences(one: Footprint, shape: Shape, count: int, logits: bool = True) -> Footprint:
    """The footprint of `count` sequences from that of one: a cache for each, and a row of logits
    where those are computed in that memory."""
    more = count - 1
    return replace(
        one,
        kv_cache=one.kv_cache * count,
        compute=one.compute + (logits_bytes(shape, more) if logits else 0),
    )
