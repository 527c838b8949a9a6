"""How fast an engine is against a device's rates: the numbers of a speed.toml, checked and with a
source each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.predict.forecast import Speed
from packager.shape import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """Factors on a device's bandwidth and compute, small operations per layer in a decoding step,
    and the share of the compute that a single token's attention reaches (0: reading the cache
    bounds it).

    A layer with experts has `operations_per_mixture` more, `operations_per_shared` beside those
    where one expert serves every token, and one with a recurrent state `operations_per_recurrent`
    more. `experts`, `recurrent` and `batched` as in
    packager.predict.forecast.Speed.
    """

    bandwidth: float
    compute: float
    operations_per_layer: float
    attention: float
    experts: float = 1.0
    recurrent: float = 0.0
    operations_per_mixture: float = 0.0
    operations_per_recurrent: float = 0.0
    operations_per_shared: float = 0.0
    batched: float = 0.5

    def operations(self, shape: Shape) -> float:
        """Small operations of one pass through all layers."""
        mixture = self.operations_per_mixture * shape.layers if shape.experts else 0.0
        if shape.experts and shape.experts.shared_intermediate:
            mixture += self.operations_per_shared * shape.layers
        recurrent = self.operations_per_recurrent * shape.recurrent_layers
        return self.operations_per_layer * shape.layers + mixture + recurrent


@cache
def rows(path: Path) -> dict[str, Row]:
    """The tables of a file by name. Raises PackError (exit code 6) naming file and key for what is
    missing, unknown or not positive."""
    by_name: dict[str, Row] = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        by_name[name] = _row(table, f"{path.name}: {name}")
    return by_name


KERNELS_PER_LAYER = 18
"""Kernels that a dense layer starts on a GPU, one token at a time: norms, products, rotation,
cache, attention, activation, sums."""


def on_a_gpu(shape: Shape) -> Speed:
    """An engine on a GPU or NPU of whose kernels nothing is published: the device's rates as its
    file has them, and the starts."""
    return Speed(
        operations=KERNELS_PER_LAYER * shape.layers,
        prompt_operations=KERNELS_PER_LAYER * shape.layers,
    )


_NEEDED = ("bandwidth", "compute", "operations_per_layer", "attention", "source")
_MORE = (
    "experts",
    "recurrent",
    "operations_per_mixture",
    "operations_per_recurrent",
    "operations_per_shared",
    "batched",
)
_SHARES = ("attention", "experts", "recurrent", "batched")
_ABOVE_ZERO = ("bandwidth", "compute", "operations_per_layer", "experts", "batched")


def _row(table: Any, where: str) -> Row:
    if not isinstance(table, dict) or not set(_NEEDED) <= set(table) <= {*_NEEDED, *_MORE}:
        raise bad_input(
            f"{where} must have {', '.join(_NEEDED)}, may have {', '.join(_MORE)}, and nothing "
            "else."
        )
    if not isinstance(table["source"], str) or len(table["source"]) < 8:
        raise bad_input(f"{where} must name its source.")
    numbers = {key: value for key, value in table.items() if key != "source"}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1000:
            raise bad_input(f"{where}: {key} must be a number from 0 up to 1000.")
        if key in _ABOVE_ZERO and not value:
            raise bad_input(f"{where}: {key} must be a number above zero.")
        if key in _SHARES and value > 1:
            raise bad_input(f"{where}: {key} must be a number from 0 to 1.")
    return Row(**{key: float(value) for key, value in numbers.items()})
