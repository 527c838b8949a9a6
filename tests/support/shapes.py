"""Shapes for tests: one of each kind, and a strategy that draws any shape that some config.json can
describe."""

from __future__ import annotations

from hypothesis import strategies as st

from packager.limits import EXPERTS
from packager.shape import KNOWN_TYPES, Experts, Hybrid, Shape
from packager.shape.names import NAMINGS

QWEN2 = Shape("qwen2", 64, 2, 4, 2, 16, 128, 512, True, True, False, 1024)
QWEN3 = Shape("qwen3", 64, 2, 4, 2, 32, 128, 512, False, False, True, 1024)
HYBRID = Hybrid(
    interval=4, key_heads=2, value_heads=4, key_head_dim=16, value_head_dim=8, conv_kernel=4
)
MIXTURE = Experts(count=4, active=2, intermediate=32, shared_intermediate=48, norm_topk=True)
QWEN3_NEXT = Shape(
    "qwen3_next", 64, 4, 4, 2, 32, 96, 512, False, False, True, 1024, 1e7, 1e-6, MIXTURE, HYBRID
)
sizes = st.integers(1, 1 << 20)


@st.composite
def shapes(draw: st.DrawFn, small: bool = False) -> Shape:
    """A shape that some config.json can describe, of any model type."""
    model_type = draw(st.sampled_from(KNOWN_TYPES))
    decoder = NAMINGS[model_type].decoder
    size = st.integers(1, 24) if small else sizes
    kv_heads, groups = draw(size), draw(st.integers(1, 8)) if decoder != "qwen" else 1
    experts = hybrid = None
    if decoder.endswith(("_moe", "_next")):
        shared = None if decoder == "qwen3_moe" else draw(size)
        experts = Experts(
            draw(size.map(lambda count: 1 + count % EXPERTS)),
            draw(st.integers(1, 8)),
            draw(size),
            shared,
            draw(st.booleans()),
        )
    layers = draw(st.integers(1, 8))
    if decoder in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
        hybrid = Hybrid(
            draw(st.integers(1, layers)),
            draw(size),
            draw(size),
            draw(size),
            draw(size),
            draw(st.integers(1, 8)),
        )
    return Shape(
        model_type=model_type,
        hidden=draw(size),
        layers=layers,
        heads=kv_heads * groups,
        kv_heads=kv_heads,
        head_dim=draw(size),
        intermediate=draw(size),
        vocab=draw(st.integers(1, 300_000) if not small else size),
        tied=draw(st.booleans()),
        qkv_bias=draw(st.booleans()) if decoder == "qwen2_moe" else decoder in ("qwen", "qwen2"),
        qk_norm=decoder.startswith("qwen3"),
        context=draw(sizes),
        rope_theta=draw(st.floats(1.0, 1e8)),
        rms_eps=draw(st.floats(1e-8, 1e-3)),
        experts=experts,
        hybrid=hybrid,
    )
