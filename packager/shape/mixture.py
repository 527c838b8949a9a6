"""The feed-forward part of a layer: one dense network, or a mixture of experts with its router."""

from __future__ import annotations

from collections.abc import Iterator

from packager.shape.model import Experts, Widths
from packager.shape.names import ExpertLayout


def feed_forward(
    prefix: str, hidden: int, intermediate: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Gate, up and down projection of one network."""
    yield f"{prefix}gate_proj.weight", (intermediate, hidden)
    yield f"{prefix}up_proj.weight", (intermediate, hidden)
    yield f"{prefix}down_proj.weight", (hidden, intermediate)


def layer(
    shape: Widths, experts: Experts, layout: ExpertLayout
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Router, experts, and the shared expert with its gate where there is one."""
    hidden, width = shape.hidden, experts.intermediate
    yield "mlp.gate.weight", (experts.count, hidden)
    if layout == "each":
        for index in range(experts.count):
            yield from feed_forward(f"mlp.experts.{index}.", hidden, width)
    elif layout == "fused":
        yield "mlp.experts.gate_up_proj", (experts.count, 2 * width, hidden)
        yield "mlp.experts.down_proj", (experts.count, hidden, width)
    else:
        yield "mlp.experts.gate_up_proj", (experts.count, hidden, 2 * width)
        yield "mlp.experts.down_proj", (experts.count, width, hidden)
    if experts.shared_intermediate is not None:
        yield from feed_forward("mlp.shared_expert.", hidden, experts.shared_intermediate)
        yield "mlp.shared_expert_gate.weight", (1, hidden)
