"""The matrices of an adapter that an engine adds while it runs, by the layer's name in its base.

An engine adds s * BA to the product of a layer and nothing else: what an adapter brings beside is
refused here, and can be merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packager.checkpoint import Checkpoint, composed
from packager.checkpoint.adapter import Adapter, LowRank
from packager.checkpoint.naming import official_name
from packager.errors import PackError, bad_input, usage
from packager.shape.tensors import naming_of, outer_tensors

WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class LowRanks:
    """`matrices` by the layer's official name, without `.weight`."""

    matrices: dict[str, LowRank]

    @property
    def rank(self) -> int:
        """The largest rank among them."""
        return max(row.down.shape[0] for row in self.matrices.values())


def of(base: Checkpoint, adapter: Adapter) -> LowRanks:
    """What an engine adds. Raises PackError (usage) for an adapter that does more than that."""
    if adapter.replaced:
        raise _only_merged(adapter, f"it stores {next(iter(adapter.replaced))!r} whole")
    matrices = dict(_renamed(base, adapter))
    if not matrices:
        raise _only_merged(adapter, "it has no low-rank matrices")
    return LowRanks(matrices)


def of_folder(folder: Path) -> tuple[Checkpoint, Adapter, LowRanks]:
    """The base and the one adapter that packager.checkpoint.composed has put into a folder, and
    what an engine adds. Raises PackError: exit code 6 for another folder, usage as `of`."""
    parts = composed.read(folder)
    if parts is None or len(parts.adapters) != 1:
        raise bad_input(f"{folder} is not a base with one adapter.", "Build the adapter again.")
    base, adapter = Checkpoint.open(parts.base), Adapter.open(*parts.adapters[0])
    return base, adapter, of(base, adapter)


def _renamed(base: Checkpoint, adapter: Adapter) -> Iterator[tuple[str, LowRank]]:
    shape = base.shape
    expected = {name: tensor.shape for name, tensor in base.tensors.items()}
    ends = {next(outer_tensors(shape)).name, f"{naming_of(shape).head}lm_head{WEIGHT}"}
    for module, row in adapter.low_rank.items():
        name = official_name(f"{module}{WEIGHT}", shape, expected) or f"{module}{WEIGHT}"
        if row.magnitude is not None:
            raise _only_merged(adapter, "it is a DoRA adapter, which changes whole rows")
        if row.bias is not None:
            raise _only_merged(adapter, f"it adds to the bias of {module!r}")
        if row.embedding or name in ends:
            raise _only_merged(adapter, f"it changes {module!r}, an end of the vocabulary")
        layer = name.removesuffix(WEIGHT)
        yield layer, replace(row, module=layer)


def _only_merged(adapter: Adapter, why: str) -> PackError:
    return usage(
        f"The adapter in {adapter.folder} can only be merged: {why}.",
        f"Build the whole model with --lora {adapter.folder}.",
    )
