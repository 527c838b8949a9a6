"""Stacks of experts: single matrices, or already stacked ones, become one three-dimensional tensor
per projection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import gguf

from packager.errors import bad_input
from targets.gguf.arch.base import Architecture, Shapes
from targets.gguf.tensors import OutTensor, Part

_SINGLE = re.compile(
    r"^(?P<head>.*\.mlp\.experts)\.(?P<expert>\d+)\.(?P<kind>gate_proj|up_proj|down_proj)\.weight$"
)
_STACKED = re.compile(
    r"^(?P<head>.*\.mlp\.experts)\.(?P<kind>gate_up_proj|down_proj)(?:\.weight)?$"
)

EXPERTS = (
    "ffn_gate_inp.weight",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_down_exps.weight",
)
SHARED_EXPERT = (
    "ffn_gate_inp_shexp.weight",
    "ffn_gate_shexp.weight",
    "ffn_up_shexp.weight",
    "ffn_down_shexp.weight",
)


class WithExperts(Architecture):
    """An architecture whose feed-forward layers are mixtures of experts."""

    transposed: ClassVar[bool] = False
    """Whether stacks are stored (experts, columns, rows)."""
    normalised: ClassVar[bool] = True
    """Whether llama.cpp's graph makes the weights of the chosen experts sum to one."""

    def check(self) -> None:
        """The graph has one way to weigh the experts, and layers without experts it has not."""
        super().check()
        if self.config.get("norm_topk_prob", self.normalised) is not self.normalised:
            raise bad_input(
                f"config.json says norm_topk_prob {self.config['norm_topk_prob']}, llama.cpp "
                f"computes {self.gguf_name} otherwise.",
                "The answers would be wrong: take another runtime for this checkpoint.",
            )
        if self.config.get("mlp_only_layers") or self.config.get("decoder_sparse_step", 1) != 1:
            raise bad_input(
                f"config.json has layers without experts, which llama.cpp's {self.gguf_name} does "
                "not support.",
                "Take another runtime for this checkpoint.",
            )

    def convert(self, shapes: Shapes) -> Iterable[OutTensor]:
        """Collect the experts of each layer, convert the rest one by one."""
        single: dict[str, dict[int, tuple[str, tuple[int, ...]]]] = {}
        rest = {}
        for name, shape in shapes.items():
            if match := _SINGLE.match(name):
                single.setdefault(f"{match['head']}.{match['kind']}.weight", {})[
                    int(match["expert"])
                ] = (name, shape)
            elif match := _STACKED.match(name):
                yield from self._stacked(match["head"], match["kind"], name, shape)
            else:
                rest[name] = shape
        for merged, experts in single.items():
            yield self._stack(merged, experts)
        yield from super().convert(rest)

    def _stack(self, merged: str, experts: dict[int, tuple[str, tuple[int, ...]]]) -> OutTensor:
        count = self.number("num_experts")
        missing = [expert for expert in range(count) if expert not in experts]
        if missing or len(experts) != count:
            which = f"expert {missing[0]} is missing" if missing else f"there are {len(experts)}"
            raise bad_input(
                f"{merged!r} needs {count} experts, but {which}.",
                "A shard may be missing: fetch the checkpoint again.",
            )
        shape = experts[0][1]
        for name, other in experts.values():
            if other != shape:
                raise bad_input(
                    f"{name!r} has the shape {list(other)}, other experts have {list(shape)}.",
                    "Fetch the checkpoint again.",
                )
        parts = tuple(Part(experts[expert][0], 0, shape[0]) for expert in range(count))
        return OutTensor(self.new_name(merged), (count, *shape), parts)

    def _stacked(
        self, head: str, kind: str, name: str, shape: tuple[int, ...]
    ) -> Iterator[OutTensor]:
        """(experts, rows, columns); gate and up lie behind one another within each expert."""
        rows_at = 2 if self.transposed else 1
        if len(shape) != 3 or (kind == "gate_up_proj" and shape[rows_at] % 2):
            raise bad_input(
                f"{name!r} has the shape {list(shape)}, which is not a stack of experts.",
                "Fetch the checkpoint again.",
            )
        count, rows, columns = shape
        if self.transposed:
            rows, columns = columns, rows
        kinds = ("down_proj",) if kind == "down_proj" else ("gate_proj", "up_proj")
        each = rows // len(kinds)
        for place, new_kind in enumerate(kinds):
            parts = tuple(
                Part(name, expert * columns, each, width=rows, column=place * each)
                if self.transposed
                else Part(name, expert * rows + place * each, each)
                for expert in range(count)
            )
            yield OutTensor(
                self.new_name(f"{head}.{new_kind}.weight"), (count, each, columns), parts
            )

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The widths of the experts besides."""
        super().describe(writer)
        if (width := self.config.get("moe_intermediate_size")) is not None:
            writer.add_expert_feed_forward_length(width)
        if (shared := self.config.get("shared_expert_intermediate_size")) is not None:
            writer.add_expert_shared_feed_forward_length(shared)
