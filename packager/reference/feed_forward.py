"""The feed-forward part of a layer: one gated network, or the experts that the router chooses for
every token."""

from __future__ import annotations

import numpy as np

from packager.reference.arithmetic import Floats, sigmoid, silu, softmax
from packager.reference.weights import Weights
from packager.shape import Experts, Shape
from packager.shape.names import ExpertLayout
from packager.shape.tensors import naming_of


def feed_forward(shape: Shape, weights: Weights, x: Floats) -> Floats:
    """`x` (tokens, hidden) through the layer's feed-forward part."""
    if shape.experts is None:
        return _gated(weights, x, "mlp.")
    layout = naming_of(shape).experts
    if layout != "fused-transposed":
        # Files have them either way, whatever the official ones do.
        layout = "fused" if "mlp.experts.gate_up_proj" in weights else "each"
    out = _mixture(shape.experts, layout, weights, x)
    if shape.experts.shared_intermediate is not None:
        out += sigmoid(weights.linear(x, "mlp.shared_expert_gate")) * _gated(
            weights, x, "mlp.shared_expert."
        )
    return out


def _gated(weights: Weights, x: Floats, prefix: str) -> Floats:
    hidden = silu(weights.linear(x, f"{prefix}gate_proj"))
    hidden *= weights.linear(x, f"{prefix}up_proj")
    return weights.linear(hidden, f"{prefix}down_proj")


def _mixture(experts: Experts, layout: ExpertLayout, weights: Weights, x: Floats) -> Floats:
    """The chosen experts' answers, weighed by the router's probabilities."""
    shares = softmax(weights.linear(x, "mlp.gate"))
    chosen = np.argsort(-shares, axis=-1, kind="stable")[:, : experts.active]
    share = np.take_along_axis(shares, chosen, axis=-1)
    if experts.norm_topk:
        share /= share.sum(axis=-1, keepdims=True)
    out = np.zeros_like(x)
    for expert in np.unique(chosen):
        tokens, rank = np.nonzero(chosen == expert)
        gate, up, down = _expert(weights, int(expert), layout)
        answer = (silu(x[tokens] @ gate.T) * (x[tokens] @ up.T)) @ down.T
        out[tokens] += answer * share[tokens, rank][:, None]
    return out


def _expert(weights: Weights, expert: int, layout: ExpertLayout) -> tuple[Floats, Floats, Floats]:
    """Gate, up and down matrix of one expert, (outputs, inputs); not kept, because all of a layer
    may be more than fits."""
    if layout == "each":
        gate, up, down = (
            weights.once(f"mlp.experts.{expert}.{part}_proj.weight")
            for part in ("gate", "up", "down")
        )
        return gate, up, down
    both, down = (
        weights.once("mlp.experts.gate_up_proj", expert),
        weights.once("mlp.experts.down_proj", expert),
    )
    if layout == "fused-transposed":
        both, down = both.T, down.T
    gate, up = np.split(both, 2)
    return gate, up, down
