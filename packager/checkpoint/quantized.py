"""Whether a checkpoint is quantized already, by its own words, and what becomes of it then.

The reference of what is packaged is the dequantized model, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.checkpoint.header import TensorInfo

KEYS = ("quantization_config", "quantization")
METHODS = ("gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes")
"""Those that are dequantized while they are read."""


@dataclass(frozen=True, slots=True)
class Dequantized:
    """`tensors`: all that are stored, with the quantized ones as what they stand for. `how`: the
    method in words, as `GPTQ, 4 bits, groups of 128`; None where nothing was quantized."""

    tensors: dict[str, TensorInfo]
    how: str | None


def method_of(config: Mapping[str, Any]) -> str | None:
    """The method by which a config.json says that its weights are quantized; None where it says
    nothing of the kind."""
    for key in KEYS:
        table = config.get(key)
        if table:
            method = table.get("quant_method") if isinstance(table, dict) else None
            return str(method or key)
    return None


def group_of(config: Mapping[str, Any]) -> int | None:
    """Columns that share a scale, as a config.json says; None where it does not."""
    table = config.get("quantization_config")
    if not isinstance(table, Mapping):
        return None
    kinds = table.get("config_groups")
    nested = (
        [row.get("weights") for row in kinds.values() if isinstance(row, Mapping)]
        if (isinstance(kinds, Mapping))
        else []
    )
    for part in (table, *nested):
        size = part.get("group_size") if isinstance(part, Mapping) else None
        if type(size) is int and size > 0:
            return size
    return None


def dequantized(
    path: Path, config: Mapping[str, Any], stored: Mapping[str, TensorInfo]
) -> Dequantized:
    """The tensors under their unquantized names, computed where they are read.

    Raises PackError (exit code 6) naming what of a known method does not fit together. Tensors of
    other methods are left as they are.
    """
    method, table = method_of(config), config.get("quantization_config")
    if method not in METHODS or not isinstance(table, dict):
        return Dequantized(dict(stored), None)
    # Late: numpy, which whoever looks at shapes alone does not pay for.
    from packager.checkpoint.quantized_layouts import Layouts

    assert method is not None
    tensors, how = Layouts(path, method, table, stored, config).unquantized()
    return Dequantized(tensors, how)


def note(how: str) -> str:
    """What whoever builds is told."""
    return (
        f"The weights are already quantized ({how}): the reference of the quality gate is the "
        "dequantized model. They are quantized again unless --repack takes their groups over."
    )
