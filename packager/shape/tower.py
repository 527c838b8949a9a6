"""The vision tower of a Qwen: its widths, read from the vision_config of a config.json, and the
tensors that follow from them.

Sources: transformers 5.5 (models/qwen2_vl, qwen2_5_vl, qwen2_5_omni, qwen3_vl, qwen3_5); the names
are those of the official repositories of Qwen2-VL, `visual.` and what comes after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any, Literal, Protocol

from packager.errors import bad_input
from packager.limits import LAYERS, TOWER_WIDTH
from packager.shape.fields import Fields


class Decoder(Protocol):
    """What a tower is held against of the text decoder that it serves."""

    @property
    def model_type(self) -> str:
        """As config.json says it."""

    @property
    def hidden(self) -> int:
        """The width of its states."""

    @property
    def layers(self) -> int:
        """How many it has."""


Generation = Literal["qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl"]

GENERATIONS: Mapping[str, Generation] = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen2_5_omni": "qwen2_5_omni",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen3_5": "qwen3_vl",
    "qwen3_5_moe": "qwen3_vl",
}
"""The tower that each model type has: Qwen3.5's is that of Qwen3-VL without DeepStack,
Qwen2.5-Omni's that of Qwen2.5-VL with queries, keys and values in three matrices."""

WINDOWED = ("qwen2_5_vl", "qwen2_5_omni")
"""Generations whose attention stays in windows but for some layers, with gated layers behind it and
norms without a bias."""

PREFIX = "visual."
CHANNELS, FRAMES, MERGE, WINDOW = 3, 2, 2, 112
"""Colours, pictures that are taken together, patches of a side that become one token, and pixels
of a side of Qwen2.5-VL's attention windows: the same in every Qwen, and fixed in the engines."""

_ACTIVATIONS = {
    "qwen2_vl": "quick_gelu",
    "qwen2_5_vl": "silu",
    "qwen2_5_omni": "silu",
    "qwen3_vl": "gelu_pytorch_tanh",
}
# What transformers' configuration classes take where config.json is silent.
_WINDOWED_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "out_hidden_size": 3584,
    "num_heads": 16,
    "patch_size": 14,
}
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "qwen2_vl": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "num_heads": 16,
        "patch_size": 14,
    },
    "qwen2_5_vl": _WINDOWED_DEFAULTS,
    "qwen2_5_omni": _WINDOWED_DEFAULTS,
    "qwen3_vl": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "out_hidden_size": 3584,
        "num_heads": 16,
        "patch_size": 16,
        "num_position_embeddings": 2304,
    },
}
_FULL_ATTENTION = [7, 15, 23, 31]
_DEEPSTACK = {"qwen3_vl": [8, 16, 24], "qwen3_vl_moe": [8, 16, 24]}


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower. Source: the vision_config of the checkpoint's config.json.

    `patch` is the side of a patch in pixels, `out` the width of an image token, which is that of
    the decoder. `positions` are learned ones (Qwen3-VL), a square number. `deepstack` names the
    layers whose states are added to the decoder's first layers, `full_attention` those of
    Qwen2.5-VL that look beyond their window.
    """

    generation: Generation
    hidden: int
    intermediate: int
    depth: int
    heads: int
    patch: int
    out: int
    positions: int = 0
    deepstack: tuple[int, ...] = ()
    full_attention: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Tower:
        """The inverse of dataclasses.asdict, for towers that crossed a process or a JSON file."""
        lists = {key: tuple(fields.get(key) or ()) for key in ("deepstack", "full_attention")}
        return cls(**{**fields, **lists})

    @property
    def merged(self) -> int:
        """Width of the patches that become one token, together."""
        return self.hidden * MERGE * MERGE

    @property
    def pixels_per_token(self) -> int:
        """Side in pixels of what becomes one token."""
        return self.patch * MERGE

    @property
    def embedding_width(self) -> int:
        """Numbers that the decoder gets per image token: with DeepStack several vectors."""
        return self.out * (1 + len(self.deepstack))

    def parameters(self) -> int:
        """All weights of the tower."""
        # All blocks are alike: one is summed up for all.
        block = sum(prod(size) for _, size in _block(self))
        around = sum(prod(size) for part in (_outer, _mergers) for _, size in part(self))
        return around + self.depth * block

    def operations(self, image_tokens: int) -> float:
        """Operations for one picture of so many tokens; a multiply-add counts as two.

        Every patch meets every weight, and in every layer every other patch: llama.cpp computes the
        windows of Qwen2.5-VL as full attention with a mask.
        """
        patches = image_tokens * MERGE * MERGE
        attention = 4.0 * self.depth * self.hidden * patches * patches
        return 2.0 * self.parameters() * patches + attention

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, as `packager.shape.TensorSpec` counts them."""
        for name, size in _outer(self):
            yield PREFIX + name, size
        for layer in range(self.depth):
            for name, size in _block(self):
                yield f"{PREFIX}blocks.{layer}.{name}", size
        for name, size in _mergers(self):
            yield PREFIX + name, size


def _linear(name: str, out: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, width)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int, *, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _outer(tower: Tower) -> Iterator[tuple[str, tuple[int, ...]]]:
    patch = (tower.hidden, CHANNELS, FRAMES, tower.patch, tower.patch)
    yield "patch_embed.proj.weight", patch
    if tower.generation == "qwen3_vl":
        yield "patch_embed.proj.bias", (tower.hidden,)
        yield "pos_embed.weight", (tower.positions, tower.hidden)


def _block(tower: Tower) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, wide = tower.hidden, tower.intermediate
    layer_norm = tower.generation not in WINDOWED
    yield from _norm("norm1", hidden, bias=layer_norm)
    yield from _norm("norm2", hidden, bias=layer_norm)
    if tower.generation == "qwen2_5_omni":
        for part in "qkv":
            yield from _linear(f"attn.{part}", hidden, hidden)
    else:
        yield from _linear("attn.qkv", 3 * hidden, hidden)
    yield from _linear("attn.proj", hidden, hidden)
    if tower.generation in WINDOWED:
        yield from _linear("mlp.gate_proj", wide, hidden)
        yield from _linear("mlp.up_proj", wide, hidden)
        yield from _linear("mlp.down_proj", hidden, wide)
        return
    first, second = ("fc1", "fc2") if tower.generation == "qwen2_vl" else _FC
    yield from _linear(f"mlp.{first}", wide, hidden)
    yield from _linear(f"mlp.{second}", hidden, wide)


_FC = ("linear_fc1", "linear_fc2")


def _mergers(tower: Tower) -> Iterator[tuple[str, tuple[int, ...]]]:
    if tower.generation != "qwen3_vl":
        yield from _norm("merger.ln_q", tower.hidden, bias=tower.generation == "qwen2_vl")
        yield from _linear("merger.mlp.0", tower.merged, tower.merged)
        yield from _linear("merger.mlp.2", tower.out, tower.merged)
        return
    names = ["merger", *(f"deepstack_merger_list.{place}" for place in range(len(tower.deepstack)))]
    for name in names:
        # The merger of the last layer norms patch by patch, those of DeepStack token by token.
        width = tower.hidden if name == "merger" else tower.merged
        yield from _norm(f"{name}.norm", width, bias=True)
        yield from _linear(f"{name}.{_FC[0]}", tower.merged, tower.merged)
        yield from _linear(f"{name}.{_FC[1]}", tower.out, tower.merged)


def describes_tower(config: Mapping[str, Any]) -> bool:
    """Whether a config.json speaks of a vision tower."""
    return config.get("model_type") in GENERATIONS and isinstance(
        _around(config).get("vision_config"), Mapping
    )


def _around(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of a config.json that vision_config stands in: the thinker's of a model that also
    speaks."""
    thinker = config.get("thinker_config")
    return thinker if isinstance(thinker, Mapping) else config


def tower_of(config: Mapping[str, Any], decoder: Decoder, where: str) -> Tower:
    """The tower that a config.json describes beside the text `decoder`.

    Raises PackError (exit code 6) naming `where` and the key: for a model type without a tower, a
    width that does not fit to the decoder, and for what no engine computes.
    """
    generation = GENERATIONS.get(decoder.model_type)
    if generation is None or not describes_tower(config):
        raise bad_input(
            f"{where} describes no vision tower (vision_config).",
            "Name a checkpoint that takes pictures, such as Qwen3-VL, or build the text model "
            "alone with --modality text.",
        )
    fields = Fields(config, where)
    if "thinker_config" in fields:
        fields = fields.table("thinker_config")
    fields = fields.table("vision_config")
    _refuse_others(fields, generation)
    default = _DEFAULTS[generation]

    def width(key: str) -> int:
        return _width(fields, key, default[key])

    first = generation == "qwen2_vl"
    hidden = width("embed_dim" if first else "hidden_size")
    out = width("hidden_size" if first else "out_hidden_size")
    if out != decoder.hidden:
        key = "hidden_size" if first else "out_hidden_size"
        raise fields.wrong(key, f"is {out}, and the text decoder is {decoder.hidden} wide")
    heads = width("num_heads")
    if hidden % heads or (hidden // heads) % 4:
        raise fields.wrong("num_heads", f"is {heads}, which cannot share out {hidden} elements")
    depth = fields.count("depth", default["depth"])
    if depth > LAYERS:
        raise fields.wrong("depth", f"is {depth}, and no tower has more than {LAYERS} layers")
    return Tower(
        generation=generation,
        hidden=hidden,
        intermediate=hidden * fields.count("mlp_ratio", 4) if first else width("intermediate_size"),
        depth=depth,
        heads=heads,
        patch=width("patch_size"),
        out=out,
        positions=_positions(fields) if generation == "qwen3_vl" else 0,
        deepstack=_deepstack(fields, depth, decoder) if generation == "qwen3_vl" else (),
        full_attention=_full_attention(fields, depth) if generation in WINDOWED else (),
    )


# Any: the JSON of a config.json.
def vision_config(tower: Tower) -> dict[str, Any]:
    """The vision_config of a tower, which `tower_of` turns back into the same one."""
    config: dict[str, Any] = {
        "depth": tower.depth,
        "hidden_act": _ACTIVATIONS[tower.generation],
        "in_channels": CHANNELS,
        "num_heads": tower.heads,
        "patch_size": tower.patch,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
    }
    if tower.generation == "qwen2_vl":
        ratio = tower.intermediate // tower.hidden
        return config | {"embed_dim": tower.hidden, "hidden_size": tower.out, "mlp_ratio": ratio}
    config |= {
        "hidden_size": tower.hidden,
        "intermediate_size": tower.intermediate,
        "out_hidden_size": tower.out,
    }
    if tower.generation in WINDOWED:
        blocks = list(tower.full_attention)
        return config | {"fullatt_block_indexes": blocks, "window_size": WINDOW}
    positions, layers = tower.positions, list(tower.deepstack)
    return config | {"num_position_embeddings": positions, "deepstack_visual_indexes": layers}


def _refuse_others(fields: Fields, generation: Generation) -> None:
    fixed: dict[str, tuple[object, object]] = {
        "in_channels": (fields.count("in_channels", CHANNELS), CHANNELS),
        "temporal_patch_size": (fields.count("temporal_patch_size", FRAMES), FRAMES),
        "spatial_merge_size": (fields.count("spatial_merge_size", MERGE), MERGE),
        "hidden_act": (
            fields.text("hidden_act", _ACTIVATIONS[generation]),
            _ACTIVATIONS[generation],
        ),
    }
    if generation in WINDOWED:
        fixed["window_size"] = (fields.count("window_size", WINDOW), WINDOW)
    for key, (value, only) in fixed.items():
        if value != only:
            raise fields.wrong(key, f"is {value!r}, and only {only!r} is computed")


def _width(fields: Fields, key: str, default: int | None = None) -> int:
    """Bounded, because tensors are described and layers listed by it."""
    width = fields.count(key, default)
    if width > TOWER_WIDTH:
        raise fields.wrong(key, f"is {width}, and no tower has more than {TOWER_WIDTH}")
    return width


def _positions(fields: Fields) -> int:
    positions = _width(fields, "num_position_embeddings", 2304)
    if isqrt(positions) ** 2 != positions:
        raise fields.wrong(
            "num_position_embeddings", f"is {positions}, which is not a square number"
        )
    return positions


def _indexes(fields: Fields, key: str, depth: int, default: list[int]) -> tuple[int, ...]:
    layers = fields.listing(key) if key in fields else default
    whole = all(type(layer) is int and 0 <= layer < depth for layer in layers)
    if not whole or layers != sorted(set(layers)):
        raise fields.wrong(key, f"is not a rising list of layers of the {depth} that there are")
    return tuple(layers)


def _deepstack(fields: Fields, depth: int, decoder: Decoder) -> tuple[int, ...]:
    key = "deepstack_visual_indexes"
    layers = _indexes(fields, key, depth, _DEEPSTACK.get(decoder.model_type, []))
    # llama.cpp adds the last of them to the states after a layer, which must not be the last one.
    if layers and len(layers) >= decoder.layers:
        raise fields.wrong(key, f"has {len(layers)} entries for {decoder.layers} layers of text")
    return layers


def _full_attention(fields: Fields, depth: int) -> tuple[int, ...]:
    key = "fullatt_block_indexes"
    layers = _indexes(fields, key, depth, _FULL_ATTENTION)
    steps = {after - before for before, after in zip((-1, *layers), layers, strict=False)}
    if len(steps) != 1:
        raise fields.wrong(key, "is not every n-th layer, which is all that llama.cpp computes")
    return layers
