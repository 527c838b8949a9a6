"""Qwen3-Next: three DeltaNet layers to one of full attention, experts beside a shared one."""

from __future__ import annotations

from collections.abc import Iterable

from targets.gguf.arch.delta_net import Hybrid
from targets.gguf.arch.experts import EXPERTS, SHARED_EXPERT, WithExperts
from targets.gguf.tensors import OutTensor, Part


class Qwen3Next(Hybrid, WithExperts):
    """Its input projection holds, key head by key head, queries, keys, values and gate."""

    arch = "QWEN3NEXT"
    feed_forward = (*EXPERTS, *SHARED_EXPERT)
    beta_alpha = ("ssm_ba.weight",)

    def arrange_projection(self, name: str, shape: tuple[int, ...]) -> Iterable[OutTensor]:
        """Split into all queries, all keys, all values in one matrix, and the gate in another."""
        if not name.endswith(".in_proj_qkvz.weight"):
            yield self.take(name, shape)
            return
        values = self.value_heads // self.key_heads * self.value_dim
        sizes = (self.key_dim, self.key_dim, values, values)
        step = sum(sizes)
        starts = [sum(sizes[:place]) for place in range(4)]
        query, key, value, gate = (
            tuple(
                Part(name, head * step + starts[place], sizes[place])
                for head in range(self.key_heads)
            )
            for place in range(4)
        )
        layer = self.layer_of(name)
        fused = (*query, *key, *value)
        yield OutTensor(
            f"blk.{layer}.attn_qkv.weight", (sum(part.rows for part in fused), shape[1]), fused
        )
        yield OutTensor(
            f"blk.{layer}.attn_gate.weight", (sum(part.rows for part in gate), shape[1]), gate
        )
