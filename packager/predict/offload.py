"""A model that lies partly in a GPU's own memory: how many layers go there, what both sides hold,
what that costs per token.

A GPU with memory of its own takes a model whole where it fits. Where it does not, an engine that
can split a model keeps the last layers on the GPU and computes the first ones from the system's
memory. A token then reads both memories one after the other; a prompt is multiplied on the GPU, to
which the layers that stay behind are copied once for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from packager.device.target import Device
from packager.json_values import JsonObject
from packager.predict.forecast import NO_EXTRA, Extra
from packager.predict.memory import Footprint
from packager.recipe import Recipe
from packager.shape import Shape


@dataclass(frozen=True, slots=True)
class Split:
    """A model with `gpu_layers` of its `all_layers` on the GPU, counted as the engine's own option
    counts them. Bytes.

    `device` and `host` are what lies in the GPU's memory and in the system's; `device_read` and
    `host_read` what a token reads of each; `host_weights` the layers that a batch of a prompt
    brings to the GPU.
    """

    gpu_layers: int
    all_layers: int
    device: Footprint
    host: Footprint
    device_read: int
    host_read: int
    host_weights: int

    @property
    def whole(self) -> bool:
        """Whether every layer is on the GPU."""
        return self.gpu_layers == self.all_layers

    def as_dict(self) -> JsonObject:
        """JSON form: the layers, and what both memories hold."""
        return {
            "gpu_layers": self.gpu_layers,
            "all_layers": self.all_layers,
            "device": self.device.as_dict(),
            "host": self.host.as_dict(),
        }


@runtime_checkable
class Offloads(Protocol):
    """What a runtime has beside packager.runtime.Runtime if it can keep a part of a model on a
    GPU."""

    def split(
        self, shape: Shape, recipe: Recipe, context: int, filled: int, gpu_layers: int
    ) -> Split:
        """The model with that many layers on the GPU (more than it has: all), `filled` of `context`
        tokens in the cache."""


def splits(device: Device) -> bool:
    """Whether models run on a GPU with memory of its own there."""
    return device.runs_on == "gpu" and device.gpu_memory_bytes is not None


def best_split(
    runtime: Offloads,
    shape: Shape,
    recipe: Recipe,
    context: int,
    filled: int,
    device: Device,
    room: int,
) -> Split:
    """The split with most layers in `room` bytes of the GPU's memory; the whole model where not one
    layer fits, or the rest has no place.

    The rest has a place only where the device's file says how fast the system's memory is.
    """
    whole = runtime.split(shape, recipe, context, filled, 2**31 - 1)
    if whole.device.peak <= room or device.host_bandwidth is None:
        return whole
    # What the GPU holds grows with the layers: the largest number that fits lies between `low`,
    # which fits, and `high`, which does not.
    low, high, found = 0, whole.all_layers, whole
    while high - low > 1:
        middle = (low + high) // 2
        tried = runtime.split(shape, recipe, context, filled, middle)
        if tried.device.peak <= room:
            low, found = middle, tried
        else:
            high = middle
    return found if found.host.peak <= device.host_available_bytes else whole


def host_seconds(split: Split, device: Device) -> Extra:
    """What the layers in the system's memory add: none for a whole model."""
    if split.whole or device.host_bandwidth is None:
        return NO_EXTRA
    return Extra(
        split.host_read / device.host_bandwidth,
        split.host_weights / (device.link_bandwidth or device.host_bandwidth),
    )
