"""What every Qwen architecture shares on its way to GGUF: tensor names, layout, the keys that
describe the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import gguf

from packager.errors import bad_input
from packager.json_values import JsonObject, at_or_none
from packager.shape import Shape
from packager.shape.positions import Positions, not_computed, positions_of
from packager.shape.windows import acting, windows_of
from targets.gguf.positions import attention_factor
from targets.gguf.tensors import OutTensor, Part, library_order

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"\.layers\.(\d+)\.|\.h\.(\d+)\.")
_ROUNDING = 1e-6
_NOT_STORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attn.bias", ".attn.masked_bias")


class Architecture:
    """The converter of one architecture. Subclasses name it and say what differs.

    Names come from the gguf package's map, keys are those of llama.cpp's own converter.
    """

    arch: ClassVar[str]
    """Member of gguf.MODEL_ARCH."""
    layer_tensors: ClassVar[tuple[str, ...]]
    """GGUF names (behind `blk.N.`) that every layer must have; subclasses may choose by layer."""
    as_wide_as_hidden: ClassVar[bool] = False
    """Whether llama.cpp's graph wants all heads together to be as wide as the hidden state."""
    renamed_tokens: ClassVar[Mapping[str, str]] = {}
    """Control tokens that llama.cpp looks up under another name than the checkpoint's."""

    def __init__(self, config: JsonObject) -> None:
        self.whole = config
        text: Any = config.get("thinker_config", config)
        text = text.get("text_config") if isinstance(text, dict) else None
        self.config: JsonObject = {**config, **text} if isinstance(text, dict) else config
        self.layers = self.number("num_hidden_layers")
        self.draft_layers = 0
        self.names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[self.arch], self.layers)

    @property
    def gguf_name(self) -> str:
        """What stands in `general.architecture`."""
        return str(gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[self.arch]])

    def number(self, key: str, default: int | None = None) -> int:
        """A positive integer of config.json. Raises PackError (bad input) naming the key."""
        value = self.config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise bad_input(
                f"config.json: {key} is {value!r} where a positive whole number is needed.",
                "Take the config.json of the model's repository.",
            )
        return value

    def check(self) -> None:
        """Raise PackError (bad input) for a setting that llama.cpp's graph of this architecture
        does not have."""
        width = self.shape.heads * self.shape.head_dim
        if self.as_wide_as_hidden and width != self.shape.hidden:
            what = f"heads of {width} elements together for a hidden state of {self.shape.hidden}"
            raise not_computed("llama.cpp", what, "Take a recipe of OpenVINO or ONNX Runtime.")

    def keep_heads(self) -> None:
        """Convert the draft module for multi-token prediction, too. Raises PackError (bad input)
        where llama.cpp's graph has none."""
        raise bad_input(
            f"llama.cpp's {self.gguf_name} has no heads for multi-token prediction.",
            "Leave --speculate mtp out.",
        )

    # ---- tensors

    def tensors(self, shapes: Shapes) -> list[OutTensor]:
        """The tensors of the GGUF for a checkpoint with these tensors, in llama.cpp's order.

        Raises PackError (bad input) for a tensor that has no place in the architecture, and for a
        missing one.
        """
        wanted = {name: shape for name, shape in shapes.items() if not self.ignored(name)}
        if self.config.get("tie_word_embeddings") and "lm_head.weight" in wanted:
            # Some checkpoints store the tied matrix a second time.
            del wanted["lm_head.weight"]
        out = sorted(self.convert(wanted), key=library_order)
        self._complete({tensor.name for tensor in out})
        return out

    def ignored(self, name: str) -> bool:
        """Tensors of the checkpoint that are computed, not stored, in llama.cpp."""
        return name.endswith(_NOT_STORED)

    def convert(self, shapes: Shapes) -> Iterable[OutTensor]:
        """Map tensor by tensor."""
        for name, shape in shapes.items():
            yield from self.convert_one(name, shape)

    def convert_one(self, name: str, shape: tuple[int, ...]) -> Iterable[OutTensor]:
        """One tensor under its new name, as it is."""
        yield self.take(name, shape)

    def take(self, name: str, shape: tuple[int, ...], **changes: Any) -> OutTensor:
        """A tensor that is stored row by row as the checkpoint has it."""
        new = self.new_name(name)
        rows = 1
        for size in shape[:-1]:
            rows *= size
        return OutTensor(new, shape, (Part(name, 0, rows),), f32=self.is_f32(new, shape), **changes)

    def new_name(self, name: str) -> str:
        """The GGUF name of a checkpoint's tensor. Raises PackError (bad input)."""
        found = self.names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise bad_input(
                f"The checkpoint has a tensor {name!r} that the architecture {self.gguf_name!r} "
                "does not know.",
                "Only plain checkpoints can be converted: merge adapters first, and take the "
                "repository that is not quantized already.",
            )
        return str(found)

    def is_f32(self, new_name: str, shape: tuple[int, ...]) -> bool:
        """What llama.cpp's converter keeps in float32: vectors, norms, biases and routers."""
        return (
            len(shape) <= 1
            or not new_name.endswith(".weight")
            or new_name.endswith(
                (
                    "_norm.weight",
                    ".ffn_gate_inp.weight",
                    ".ffn_gate_inp_shexp.weight",
                    ".ssm_conv1d.weight",
                )
            )
        )

    @staticmethod
    def layer_of(name: str) -> int:
        """The layer a checkpoint's tensor belongs to, -1 for none."""
        match = _LAYER.search(name)
        return int(match.group(1) or match.group(2)) if match else -1

    def required(self, layer: int) -> tuple[str, ...]:
        """GGUF names behind `blk.N.` that this layer must have."""
        return self.layer_tensors

    def _complete(self, names: set[str]) -> None:
        needed = ["token_embd.weight", "output_norm.weight"]
        needed += [
            f"blk.{layer}.{name}"
            for layer in range(self.layers + self.draft_layers)
            for name in self.required(layer)
        ]
        if not self.config.get("tie_word_embeddings"):
            needed.append("output.weight")
        missing = [name for name in needed if name not in names]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise bad_input(
                f"The checkpoint lacks what becomes {missing[0]!r}{more}.",
                "A shard may be missing: fetch the checkpoint again.",
            )

    # ---- keys

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The keys that describe the network. Source of their names: the gguf package."""
        config = self.config
        writer.add_block_count(self.layers + self.draft_layers)
        if (context := self.context()) is not None:
            writer.add_context_length(context)
        writer.add_embedding_length(self.number("hidden_size"))
        if (feed_forward := config.get("intermediate_size")) is not None:
            writer.add_feed_forward_length(feed_forward)
        heads = self.number("num_attention_heads")
        writer.add_head_count(heads)
        if (kv_heads := config.get("num_key_value_heads")) is not None:
            writer.add_head_count_kv(kv_heads)
        self._describe_rope(writer)
        if (eps := config.get("rms_norm_eps")) is not None:
            writer.add_layer_norm_rms_eps(eps)
        if (experts := config.get("num_experts")) is not None:
            writer.add_expert_count(experts)
        if (active := config.get("num_experts_per_tok")) is not None:
            writer.add_expert_used_count(active)
        if (head_dim := config.get("head_dim")) is not None:
            writer.add_key_length(head_dim)
            writer.add_value_length(head_dim)

    @cached_property
    def positions(self) -> Positions:
        """The rotary embedding. Raises PackError (bad input) for one that is not known."""
        return positions_of(self.config, self.shape, "config.json")

    @cached_property
    def shape(self) -> Shape:
        """The decoder's shape."""
        return Shape.from_config(self.whole, "config.json")

    def _describe_rope(self, writer: gguf.GGUFWriter) -> None:
        positions = self.positions
        if positions.kind == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(positions.factor)
        elif positions.kind == "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(positions.factor)
            writer.add_rope_scaling_orig_ctx_len(positions.original)
            if abs(attention_factor(positions) - 1.0) > _ROUNDING:
                writer.add_rope_scaling_attn_factors(attention_factor(positions))
        if (sections := self.mrope_section) is not None:
            writer.add_rope_dimension_sections([*sections, 0, 0, 0, 0][:4])
        if "rotary_emb_base" not in self.config:
            writer.add_rope_freq_base(positions.theta)

    @property
    def mrope_section(self) -> list[int] | None:
        """How the pairs of a head are shared out among the three axes of images; None where
        config.json does not say."""
        for key in ("rope_scaling", "rope_parameters"):
            table = self.config.get(key)
            if isinstance(table, dict) and table.get("mrope_section") is not None:
                return list(table["mrope_section"])
        return None

    def context(self) -> int | None:
        """The tokens that the file is good for: as many as the model was trained for, or the
        narrowest window."""
        context = at_or_none(self.config, "max_position_embeddings", int)
        windows = windows_of(self.config, self.shape, "config.json")
        return context if context is None else acting(windows, context) or context
