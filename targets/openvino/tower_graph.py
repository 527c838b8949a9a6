"""The graphs of a vision tower, written with openvino's own operators from the sizes in
packager.shape.tower: patches, learned positions, and the layers with what makes image tokens.

The inputs are those that VLMPipeline of openvino-genai fills (src/cpp/src/visual_language), the
arithmetic is that of packager.reference.tower.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.shape.tower import MERGE, PREFIX, WINDOWED, Tower
from targets.openvino.graph_parts import GraphParts

_EPSILON = 1e-6
_TOKEN = MERGE * MERGE
"""Patches that become one token."""


class TowerGraphs(GraphParts):
    """The graphs of the tower whose tensors `checkpoint` has, by the names of `Tower.tensors`.

    Raises PackError (bad input) for a tensor that holds NaN or infinity.
    """

    def __init__(self, tower: Tower, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, PREFIX)
        self._tower = tower
        self._third = tower.generation == "qwen3_vl"

    def patches(self) -> Any:
        """openvino.Model: `hidden_states` (patches, colours x pictures x side x side) to (patches,
        hidden)."""
        name = "patch_embed.proj"
        kernel = self._checkpoint.tensors[f"{PREFIX}{name}.weight"].shape
        width = int(np.prod(kernel[1:]))
        given = self._parameter("hidden_states", [-1, width])
        state = self._product(name, given, (kernel[0], width))
        if self._third:
            state = self._ops.add(state, self._weight(f"{name}.bias"))
        return self._model([given], {"last_hidden_state": state}, "vision_embeddings")

    def positions(self) -> Any:
        """openvino.Model: `input` (4, patches) to the learned positions (4, patches, hidden)."""
        given = self._parameter("input", [4, -1], np.int64)
        rows = self._ops.gather(self._weight("pos_embed.weight"), given, self._number(0))
        return self._model([given], {"last_hidden_state": rows}, "vision_embeddings_pos")

    def merger(self) -> Any:
        """openvino.Model of the layers: `hidden_states` (patches, hidden), `attention_mask` (1,
        patches, patches) added to the scores, `rotary_pos_emb` (patches, head width / 2) angles; of
        Qwen2.5-VL also `window_attention_mask` and `window_index`, the order of the tokens by
        window. Gives `last_hidden_state` (tokens, out) and with DeepStack
        `deepstack_feature_lists` (layers, tokens, out)."""
        tower, ops = self._tower, self._ops
        state = given = self._parameter("hidden_states", [-1, tower.hidden])
        mask = self._parameter("attention_mask", [1, -1, -1])
        angles = rotary = self._parameter("rotary_pos_emb", [-1, tower.hidden // tower.heads // 2])
        inputs, masks = [given, mask, rotary], {False: self._of_heads(mask)}
        order = None
        if tower.generation in WINDOWED:
            apart = self._parameter("window_attention_mask", [1, -1, -1])
            order = self._parameter("window_index", [-1], np.int64)
            inputs += [apart, order]
            masks[True] = self._of_heads(apart)
            state, angles = (self._reordered(each, order) for each in (state, angles))
        turns = (ops.cos(angles), ops.sin(angles))
        deep: list[Any] = []
        for layer in range(tower.depth):
            windowed = order is not None and layer not in tower.full_attention
            state = self._block(layer, state, masks[windowed], turns)
            if layer in tower.deepstack:
                deep.append(
                    self._merged(f"deepstack_merger_list.{len(deep)}", state, together=True)
                )
        tokens = self._merged("merger", state, together=False)
        if order is not None:
            tokens = ops.gather(tokens, self._places(order), self._number(0))
        outputs = {"last_hidden_state": tokens}
        if deep:
            rows = [ops.unsqueeze(each, self._number(0)) for each in deep]
            outputs["deepstack_feature_lists"] = ops.concat(rows, 0)
        return self._model(inputs, outputs, "vision_embeddings_merger")

    def _block(self, layer: int, state: Any, mask: Any, turns: tuple[Any, Any]) -> Any:
        name, ops = f"blocks.{layer}", self._ops
        normed = self._norm(f"{name}.norm1", state, self._tower.hidden)
        state = ops.add(state, self._attention(f"{name}.attn", normed, mask, turns))
        normed = self._norm(f"{name}.norm2", state, self._tower.hidden)
        return ops.add(state, self._feed_forward(f"{name}.mlp", normed))

    def _attention(self, name: str, state: Any, mask: Any, turns: tuple[Any, Any]) -> Any:
        ops, heads = self._ops, self._tower.heads
        width = self._tower.hidden // heads
        parts = ops.reshape(
            self._linear(f"{name}.qkv", state), self._numbers([0, 3, heads, width]), True
        )
        # (3, heads, patches, width): queries, keys and values as one picture's.
        query, key, value = ops.split(
            ops.transpose(parts, self._numbers([1, 2, 0, 3])), self._number(0), 3
        ).outputs()
        seen = ops.scaled_dot_product_attention(
            self._turned(query, turns), self._turned(key, turns), value, mask
        )
        rows = ops.transpose(seen, self._numbers([0, 2, 1, 3]))
        flat = ops.reshape(rows, self._numbers([-1, self._tower.hidden]), False)
        return self._linear(f"{name}.proj", flat)

    def _turned(self, heads: Any, turns: tuple[Any, Any]) -> Any:
        """Element i turned with element i + width / 2."""
        ops, (cosine, sine) = self._ops, turns
        first, second = ops.split(heads, self._number(3), 2).outputs()
        lower = ops.subtract(ops.multiply(first, cosine), ops.multiply(second, sine))
        upper = ops.add(ops.multiply(second, cosine), ops.multiply(first, sine))
        return ops.concat([lower, upper], 3)

    def _feed_forward(self, name: str, state: Any) -> Any:
        ops = self._ops
        if self._tower.generation in WINDOWED:
            gate = ops.swish(self._linear(f"{name}.gate_proj", state))
            wide = ops.multiply(gate, self._linear(f"{name}.up_proj", state))
            return self._linear(f"{name}.down_proj", wide)
        if self._third:
            wide = ops.gelu(self._linear(f"{name}.linear_fc1", state), "tanh")
            return self._linear(f"{name}.linear_fc2", wide)
        wide = self._linear(f"{name}.fc1", state)
        steeper = ops.multiply(wide, ops.constant(np.array(1.702, np.float32)))
        return self._linear(f"{name}.fc2", ops.multiply(wide, ops.sigmoid(steeper)))

    def _merged(self, name: str, state: Any, *, together: bool) -> Any:
        """(tokens, out): the patches of a token as one. `together` says that they are normed as
        one, as for DeepStack."""
        tower, ops = self._tower, self._ops
        norm, first, second = (
            ("norm", "linear_fc1", "linear_fc2") if self._third else ("ln_q", "mlp.0", "mlp.2")
        )
        whole = self._numbers([-1, tower.merged])
        if together:
            state = self._norm(f"{name}.{norm}", ops.reshape(state, whole, False), tower.merged)
        else:
            state = self._norm(f"{name}.{norm}", state, tower.hidden)
            state = ops.reshape(state, whole, False)
        return self._linear(
            f"{name}.{second}", ops.gelu(self._linear(f"{name}.{first}", state), "erf")
        )

    def _norm(self, name: str, state: Any, width: int) -> Any:
        ops, last = self._ops, self._numbers([-1])
        weight = self._weight(f"{name}.weight", [1, width])
        if self._tower.generation in WINDOWED:
            squares = ops.reduce_mean(ops.multiply(state, state), last, keep_dims=True)
            root = ops.sqrt(ops.add(squares, ops.constant(np.array(_EPSILON, np.float32))))
            return ops.multiply(ops.divide(state, root), weight)
        normed = ops.mvn(state, last, True, _EPSILON, "inside_sqrt")
        return ops.add(ops.multiply(normed, weight), self._weight(f"{name}.bias", [1, width]))

    def _reordered(self, state: Any, order: Any) -> Any:
        """(patches, width) with its tokens in another order."""
        ops, width = self._ops, state.get_output_partial_shape(0)[1].get_length()
        tokens = ops.reshape(state, self._numbers([-1, _TOKEN * width]), False)
        picked = ops.gather(tokens, order, self._number(0))
        return ops.reshape(picked, self._numbers([-1, width]), False)

    def _places(self, order: Any) -> Any:
        """Where each token went: the inverse of an order."""
        ops = self._ops
        count = ops.gather(ops.shape_of(order, "i64"), self._number(0), self._number(0))
        return ops.topk(order, count, 0, "min", "value", "i64").output(1)

    def _of_heads(self, mask: Any) -> Any:
        return self._ops.unsqueeze(mask, self._number(0))
