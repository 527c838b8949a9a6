"""What the tables of a catalogue file may hold; every complaint names the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from packager.catalog.variant import Kind, Thinking
from packager.errors import PackError, bad_input
from packager.foreign import load_toml
from packager.names import did_you_mean

Types = Mapping[str, type | tuple[type, ...]]
HINT = (
    "The catalogue is part of the installation: install qwen-pack again, or undo the last "
    "change to this file."
)

EXPERTS: Types = {
    "count": int,
    "active": int,
    "intermediate": int,
    "shared_intermediate": int,
    "norm_topk": bool,
}
HYBRID: Types = {
    "interval": int,
    "key_heads": int,
    "value_heads": int,
    "key_head_dim": int,
    "value_head_dim": int,
    "conv_kernel": int,
}
SHAPE: Types = {
    "hidden": int,
    "layers": int,
    "heads": int,
    "kv_heads": int,
    "head_dim": int,
    "intermediate": int,
    "vocab": int,
    "tied": bool,
    "qkv_bias": bool,
    "qk_norm": bool,
    "parameters": int,
    "active": int,
    "experts": dict,
    "hybrid": dict,
    "source": str,
}
TOWER: Types = {
    "generation": str,
    "hidden": int,
    "intermediate": int,
    "depth": int,
    "heads": int,
    "patch": int,
    "positions": int,
    "deepstack": list,
    "full_attention": list,
    "source": str,
}
AUDIO_TOWER: Types = {
    "generation": str,
    "hidden": int,
    "intermediate": int,
    "depth": int,
    "heads": int,
    "channels": int,
    "source": str,
}
LICENSE: Types = {
    "name": str,
    "research_only": bool,
    "spdx": str,
    "agreement": str,
    "notice": str,
    "source": str,
}
VARIANT: Types = {
    "repo_id": str,
    "family": str,
    "kind": str,
    "base": bool,
    "thinking": str,
    "model_type": str,
    "architecture": str,
    "released": str,
    "license": str,
    "modality_in": str,
    "modality_out": str,
    "shape": str,
    "unverified": bool,
    "parameters": int,
    "vision": int,
    "tower": str,
    "audio": int,
    "audio_tower": str,
    "mtp": int,
    "context": int,
    "context_extended": int,
    "trained_tokens": int,
    "system_prompt": str,
    "rope_theta": (int, float),
    "rms_eps": float,
    "quantized": str,
    "unbuildable": str,
    "nearest": str,
    "text_alone": str,
    "notes": list,
    "sources": dict,
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "thinking": get_args(Thinking),
    "generation": ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl"),
    "system_prompt": ("enhanced", "plain"),
}
# A value of the left needs the source group of the right.
NEEDS_SOURCE = {
    "repo_id": "repo_id",
    "shape": "shape",
    "context": "context",
    "license": "license",
    "released": "released",
    "vision": "vision",
    "audio": "audio",
    "trained_tokens": "trained",
    "system_prompt": "trained",
}
ALWAYS = ("repo_id", "family", "kind", "model_type", "architecture", "sources")


def read(path: Path) -> dict[str, Any]:  # Any: nothing in it has been checked
    """A TOML file of the catalogue."""
    try:
        return load_toml(path.read_text("utf-8"))
    except FileNotFoundError:
        raise bad_input(f"The catalogue's file {path} is missing.", HINT) from None
    except ValueError as error:
        raise bad_input(f"The catalogue's file {path} cannot be read: {error}.", HINT) from None


def wrong(where: str, problem: str) -> PackError:
    """The complaint about one place, e.g. `qwen3.toml: variants[3].base`."""
    return bad_input(f"{where} {problem}", HINT)


_NUMBERS = (int, float)


def check(
    table: Any,
    types: Types,
    required: tuple[str, ...],
    where: str,
    choices: Mapping[str, tuple[str, ...]] = CHOICES,
) -> dict[str, Any]:
    """The table, after refusing unknown keys, wrong types, negative numbers, unknown words, and
    missing keys."""
    if not isinstance(table, dict):
        raise wrong(where, "must be a table.")
    for key, value in table.items():
        wanted = types.get(key)
        if wanted is None:
            raise wrong(
                f"{where}.{key}", f"is not a key of the catalogue.{did_you_mean(key, types)}"
            )
        # bool passes for int in Python; in a data file it is a mistake.
        if not isinstance(value, wanted) or (value.__class__ is bool and wanted is not bool):
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            raise wrong(
                f"{where}.{key}",
                f"must be {' or '.join(kind.__name__ for kind in kinds)}, not "
                f"{type(value).__name__}.",
            )
        if value.__class__ in _NUMBERS and value < 0:
            raise wrong(f"{where}.{key}", f"is {value}, which is below zero.")
        if key in choices and value not in choices[key]:
            raise wrong(
                f"{where}.{key}", f"is {value!r}; it must be one of {', '.join(choices[key])}."
            )
    for key in required:
        if key not in table:
            raise wrong(where, f"has no {key!r}.")
    return table


def source_text(keys: Any, known: Mapping[str, str], where: str) -> str:
    """`"a b"` with the texts behind the keys `a` and `b` of the file's [sources] table."""
    if not isinstance(keys, str) or not keys.strip():
        raise wrong(where, "names no source.")
    try:
        return "; ".join(known[key] for key in keys.split())
    except KeyError as error:
        missing = str(error.args[0])
        raise wrong(
            where,
            f"names the source {missing!r}, which [sources] does not "
            f"define.{did_you_mean(missing, known)}",
        ) from None
