"""Qwen3.5: DeltaNet layers with separate projections, dense or with experts, read as a text
decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import gguf

from targets.gguf.arch.delta_net import Hybrid
from targets.gguf.arch.experts import EXPERTS, SHARED_EXPERT, WithExperts
from targets.gguf.arch.qwen2 import FEED_FORWARD
from targets.gguf.tensors import OutTensor, Part

_MROPE_SECTIONS = [11, 11, 10, 0]
"""Rotary sections where config.json names none. Source: transformers, Qwen3_5TextConfig."""


class Qwen35(Hybrid):
    """Checkpoints keep the value heads of one key head together; ggml repeats all key heads
    instead, so the heads change places."""

    arch = "QWEN35"
    feed_forward: tuple[str, ...] = FEED_FORWARD
    beta_alpha = ("ssm_alpha.weight", "ssm_beta.weight")

    def new_name(self, name: str) -> str:
        """Multimodal checkpoints put the decoder one level deeper."""
        return super().new_name(name.replace("language_model.", ""))

    def arrange(self, tensor: OutTensor) -> OutTensor:
        """Reorder value heads: elements of a vector, channels of the convolution."""
        if tensor.name.endswith("ssm_conv1d.weight"):
            name = tensor.parts[0].source
            fixed = 2 * self.key_heads * self.key_dim
            return replace(
                tensor, parts=(Part(name, 0, fixed), *self._heads(name, fixed, self.value_dim))
            )
        return replace(tensor, change=self._columns(1, tensor.change))

    def arrange_projection(self, name: str, shape: tuple[int, ...]) -> Iterable[OutTensor]:
        """Reorder the rows that make value heads, and the columns of the output projection that
        read them."""
        taken = self.take(name, shape)
        fixed = 2 * self.key_heads * self.key_dim
        if name.endswith(".in_proj_qkv.weight"):
            taken = replace(
                taken, parts=(Part(name, 0, fixed), *self._heads(name, fixed, self.value_dim))
            )
        elif name.endswith(".in_proj_z.weight"):
            taken = replace(taken, parts=self._heads(name, 0, self.value_dim))
        elif name.endswith((".in_proj_a.weight", ".in_proj_b.weight")):
            taken = replace(taken, parts=self._heads(name, 0, 1))
        elif name.endswith(".linear_attn.out_proj.weight"):
            taken = replace(taken, change=self._columns(self.value_dim, None))
        yield taken

    def _order(self) -> list[int]:
        """Stored value head for each place: the first of every key head, then the second of every
        one."""
        each = self.value_heads // self.key_heads
        return [key * each + place for place in range(each) for key in range(self.key_heads)]

    def _heads(self, name: str, start: int, width: int) -> tuple[Part, ...]:
        if self.value_heads == self.key_heads:
            return (Part(name, start, self.value_heads * width),)
        return tuple(Part(name, start + head * width, width) for head in self._order())

    def _columns(
        self, width: int, then: Callable[[Any], Any] | None
    ) -> Callable[[Any], Any] | None:
        if self.value_heads == self.key_heads:
            return then
        columns = [head * width + element for head in self._order() for element in range(width)]

        def change(rows: Any) -> Any:
            moved = rows[:, columns]
            return then(moved) if then else moved

        return change

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Rotary sections are required by llama.cpp, whether config.json has them or not."""
        super().describe(writer)
        if self.mrope_section is None:
            writer.add_rope_dimension_sections(_MROPE_SECTIONS)


class Qwen35Moe(Qwen35, WithExperts):
    """The mixture of experts of that generation."""

    arch = "QWEN35MOE"
    feed_forward = (*EXPERTS, *SHARED_EXPERT)
