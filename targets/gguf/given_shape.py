"""The shape of a decoder, from the keys and tensors of a GGUF that somebody else wrote: the other
way round from what `targets.gguf.arch` writes.

The tensors decide: what follows from the shape has to be there, in these sizes, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from packager.errors import bad_input
from packager.inspection.unsafe import shown
from packager.json_values import JsonDict
from packager.limits import EXPERTS, LAYERS
from packager.names import did_you_mean
from packager.shape import Shape, tensors
from packager.shape.model import Experts, Hybrid
from targets.gguf.arch import architecture
from targets.gguf.given import Given
from targets.gguf.tensors import OutTensor

ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "qwen": ("qwen",),
    "qwen2": ("qwen2",),
    "qwen2moe": ("qwen2_moe",),
    "qwen2vl": ("qwen2_5_vl", "qwen2_vl"),
    "qwen3": ("qwen3",),
    "qwen3moe": ("qwen3_moe",),
    "qwen3next": ("qwen3_next",),
    "qwen3vl": ("qwen3_vl",),
    "qwen3vlmoe": ("qwen3_vl_moe",),
    "qwen35": ("qwen3_5_text", "qwen3_5"),
    "qwen35moe": ("qwen3_5_moe_text", "qwen3_5_moe"),
}
"""llama.cpp's architecture -> the model types that become it, the usual one first."""

_NORMALISED = {"qwen3_moe", "qwen3_vl_moe", "qwen3_next", "qwen3_5_moe_text"}
"""Mixtures whose graph makes the weights of the chosen experts sum to one."""
_SHOWN = 3
_MOST = (1 << 31) - 1


class Keys:
    """The keys of a file's own architecture, as numbers."""

    def __init__(self, given: Given, name: str) -> None:
        self._head, self._name = given.head, name
        self.where = given.files[0]

    def number(self, key: str, default: int | None = None, most: int = _MOST) -> int:
        """A positive whole number. Raises PackError (exit code 6) naming the key."""
        whole = f"{self._name}.{key}"
        value = self._head.keys.get(whole, default)
        # Some writers give one number for each layer.
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if type(value) is not int or not 0 < value <= most:
            raise bad_input(
                f"{self.where} has {shown(value)} as {whole}, where a positive whole number "
                "belongs.",
                "Get the file again, or one that llama.cpp's own converter wrote.",
            )
        return value

    def real(self, key: str, default: float) -> float:
        """A number above 0, as it was before single precision."""
        whole = f"{self._name}.{key}"
        value = self._head.number(whole)
        if value is None and whole not in self._head.keys:
            return default
        if value is None or not 0 < value < float("inf"):
            raise bad_input(
                f"{self.where} has {shown(self._head.keys.get(whole))} as {whole}, where a "
                "positive number belongs.",
                "Get the file again, or one that llama.cpp's own converter wrote.",
            )
        return float(f"{value:.7g}")

    def text(self, key: str) -> str | None:
        """A text, None where there is none."""
        return self._head.text(f"{self._name}.{key}")

    def is_zero(self, key: str) -> bool:
        """Whether the key says that there is none of it."""
        return self._head.number(f"{self._name}.{key}") == 0

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return f"{self._name}.{key}" in self._head.keys


def keys_of(given: Given) -> Keys:
    """The keys of the architecture. Raises PackError (exit code 6) for one that is no Qwen's."""
    name = given.head.text("general.architecture")
    if name == "clip":
        raise bad_input(
            f"{given.files[0]} is a vision tower, not a language model.",
            "Name the file of the language model that it belongs to.",
        )
    if name is None or name not in ARCHITECTURES:
        raise bad_input(
            f"{given.files[0]} holds a model of the architecture {shown(name)}, which is not "
            f"one of Qwen's.{did_you_mean(str(name)[:40], ARCHITECTURES)}",
            f"Known: {', '.join(ARCHITECTURES)}.",
        )
    if given.head.text("general.type") not in (None, "model"):
        raise bad_input(
            f"{given.files[0]} is a GGUF of the type "
            f"{shown(given.head.text('general.type'))}, not a model.",
            "Name the file of the model.",
        )
    return Keys(given, name)


def shape_of(given: Given) -> Shape:
    """The decoder's shape. Raises PackError (exit code 6) for an architecture that is none of
    Qwen's, a key that is no number, and tensors that do not make such a decoder."""
    keys = keys_of(given)
    model_type = ARCHITECTURES[str(given.head.text("general.architecture"))][0]
    hidden, heads = keys.number("embedding_length"), keys.number("attention.head_count")
    first = model_type == "qwen"
    width = keys.number("feed_forward_length", 1)
    embedding = given.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise bad_input(
            f"{given.files[0]} has no embedding.", "Get the file again from where it was published."
        )
    shape = Shape(
        model_type=model_type,
        hidden=hidden,
        layers=keys.number("block_count", most=LAYERS),
        heads=heads,
        kv_heads=keys.number("attention.head_count_kv", heads),
        head_dim=keys.number("attention.key_length", max(1, hidden // heads)),
        intermediate=(width // (2 if first else 1)) if keys.has("feed_forward_length") else 0,
        vocab=embedding.shape[0],
        tied="output.weight" not in given.tensors,
        qkv_bias=first or any(name.endswith("attn_q.bias") for name in given.tensors),
        qk_norm=any(name.endswith("attn_q_norm.weight") for name in given.tensors),
        context=keys.number("context_length"),
        rope_theta=keys.real("rope.freq_base", 10_000.0),
        rms_eps=keys.real("attention.layer_norm_rms_epsilon", 1e-6),
        experts=_experts(keys, model_type),
        hybrid=_hybrid(keys),
    )
    _refuse_other_tensors(given, expected(shape))
    return shape


def expected(shape: Shape) -> list[OutTensor]:
    """The tensors that a GGUF of that shape has, in llama.cpp's order."""
    converter = architecture(shape.to_config())
    return converter.tensors({spec.name: spec.shape for spec in tensors(shape)})


def rope_scaling(given: Given) -> JsonDict | None:
    """`rope_scaling` of a config.json; None where positions are not scaled. Raises PackError (exit
    code 6) for a kind that no Qwen has."""
    keys = keys_of(given)
    kind = keys.text("rope.scaling.type")
    if kind in (None, "none"):
        return None
    if kind not in ("yarn", "linear"):
        raise bad_input(
            f"{given.files[0]} scales its positions by {shown(kind)}, which no Qwen does.",
            "Take a file that llama.cpp's own converter wrote.",
        )
    scaling: JsonDict = {"rope_type": kind, "factor": keys.real("rope.scaling.factor", 1.0)}
    if kind == "yarn":
        original = keys.number("rope.scaling.original_context_length")
        scaling["original_max_position_embeddings"] = original
    return scaling


def _experts(keys: Keys, model_type: str) -> Experts | None:
    if not keys.has("expert_count") or keys.is_zero("expert_count"):
        return None
    shared = "expert_shared_feed_forward_length"
    return Experts(
        count=keys.number("expert_count", most=EXPERTS),
        active=keys.number("expert_used_count"),
        intermediate=keys.number("expert_feed_forward_length"),
        shared_intermediate=keys.number(shared) if keys.has(shared) else None,
        norm_topk=model_type in _NORMALISED,
    )


def _hybrid(keys: Keys) -> Hybrid | None:
    if not keys.has("ssm.state_size"):
        return None
    heads = keys.number("ssm.time_step_rank")
    return Hybrid(
        interval=keys.number("full_attention_interval", 4),
        key_heads=keys.number("ssm.group_count"),
        value_heads=heads,
        key_head_dim=keys.number("ssm.state_size"),
        value_head_dim=keys.number("ssm.inner_size") // heads,
        conv_kernel=keys.number("ssm.conv_kernel"),
    )


def _refuse_other_tensors(given: Given, wanted: list[OutTensor]) -> None:
    sizes = {tensor.name: _squeezed(tensor.shape) for tensor in wanted}
    have = {name: _squeezed(tensor.shape) for name, tensor in given.tensors.items()}
    missing = [name for name in sizes if name not in have]
    more = [name for name in have if name not in sizes]
    other = [name for name in sizes if name in have and have[name] != sizes[name]]
    if not (missing or more or other):
        return
    if other:
        name = other[0]
        what = f"has {shown(name)} as {list(have[name])} instead of {list(sizes[name])}"
    elif missing:
        what = f"lacks {_listed(missing)}"
    else:
        what = f"has {_listed(more)} besides"
    raise bad_input(
        f"{given.files[0]} does not hold the decoder that its keys describe: it {what}.",
        "Get the file again, or one that llama.cpp's own converter wrote.",
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Writers differ in whether they keep an axis of one."""
    return tuple(length for length in shape if length != 1)


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(map(shown, names[:_SHOWN])) + (f" and {rest} more" if rest > 0 else "")
