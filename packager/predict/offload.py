"""A model that lies partly in a GPU's own memory: how many layers go there, what both sides hold,
what that costs per token.

A GPU with memory of its own takes a model whole where it fits. Where it does not, an engine that
can split a model keeps the last layers on the GPU and computes the first ones from the system's
memory. A token then reads both memories one after the other; a prompt is multiplied on the GPU, to
which the layers that stay behind are copied once for every batch.

Several GPUs share the layers: each holds a run of them with their cache, in its own memory, and a
token goes through one after the other. That makes room; it makes nothing faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from packager.device.target import Device
from packager.json_values import JsonObject
from packager.predict.forecast import NO_EXTRA, Extra
from packager.predict.memory import Footprint
from packager.predict.sequences import ALONE, Sequences, expert_growth, with_sequences
from packager.recipe import Recipe
from packager.shape import Shape


@dataclass(frozen=True, slots=True)
class Split:
    """A model with `gpu_layers` of its `all_layers` on the GPU, counted as the engine's own option
    counts them. Bytes.

    `device` and `host` are what lies in the GPU's memory and in the system's; `device_read` and
    `host_read` what a token reads of each; `host_weights` the layers that a batch of a prompt
    brings to the GPU. With several GPUs `device` is what they hold together, and `gpus` what each
    one does; it is empty for a single one.
    """

    gpu_layers: int
    all_layers: int
    device: Footprint
    host: Footprint
    device_read: int
    host_read: int
    host_weights: int
    gpus: tuple[Footprint, ...] = ()

    @property
    def fullest(self) -> Footprint:
        """What the GPU holds that has to hold most."""
        return max(self.gpus, key=lambda one: one.peak, default=self.device)

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
            **({"gpus": [part.as_dict() for part in self.gpus]} if self.gpus else {}),
        }

    def of(self, shape: Shape, count: int) -> Split:
        """The same layers with the caches of `count` sequences."""
        if count == 1:
            return self
        last = len(self.gpus) - 1
        on_gpu = self.gpu_layers > 0
        return replace(
            self,
            device=with_sequences(self.device, shape, count, logits=on_gpu),
            host=with_sequences(self.host, shape, count, logits=not on_gpu),
            gpus=tuple(
                with_sequences(part, shape, count, logits=place == last)
                for place, part in enumerate(self.gpus)
            ),
        )

    def sequences(self, count: int, cache_bytes: int) -> Sequences:
        """What a step of `count` sequences reads of the caches, where all layers together hold
        `cache_bytes` of one."""
        whole = self.device.kv_cache + self.host.kv_cache
        behind = cache_bytes * self.host.kv_cache // whole if whole else 0
        return Sequences(count, cache_bytes - behind, behind)


def together(parts: Sequence[Footprint]) -> Footprint:
    """What several memories hold at once."""
    return Footprint(
        sum(part.weights for part in parts),
        sum(part.kv_cache for part in parts),
        sum(part.compute for part in parts),
        sum(part.overhead for part in parts),
    )


@runtime_checkable
class Offloads(Protocol):
    """What a runtime has beside packager.runtime.Runtime if it can keep a part of a model on a
    GPU."""

    def split(
        self,
        shape: Shape,
        recipe: Recipe,
        context: int,
        filled: int,
        gpu_layers: int,
        gpus: int = 1,
    ) -> Split:
        """The model with that many layers on `gpus` GPUs (more than it has: all), `filled` of
        `context` tokens in the cache."""


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
    count: int = 1,
) -> Split:
    """The split with most layers in `room` bytes of each GPU's memory; the whole model where not
    one layer fits, or the rest has no place. `count` sequences have a cache each.

    The rest has a place only where the device's file says how fast the system's memory is.
    """

    def with_layers(gpu_layers: int) -> Split:
        # A runtime that knows of one GPU alone is asked as ever.
        many = {"gpus": device.gpus} if device.gpus > 1 else {}
        return runtime.split(shape, recipe, context, filled, gpu_layers, **many).of(shape, count)

    whole = with_layers(2**31 - 1)
    if whole.fullest.peak <= room or device.host_bandwidth is None:
        return whole
    # What the GPU holds grows with the layers: the largest number that fits lies between `low`,
    # which fits, and `high`, which does not.
    low, high, found = 0, whole.all_layers, whole
    while high - low > 1:
        middle = (low + high) // 2
        tried = with_layers(middle)
        if tried.fullest.peak <= room:
            low, found = middle, tried
        else:
            high = middle
    return found if found.host.peak <= device.host_available_bytes else whole


HOP_SECONDS = 0.2e-3
"""What a token takes from one GPU to the next. XiongjieDai/GPU-Benchmarks-on-LLM-Inference@00dd2bd,
README.md: Llama-3-8B Q4_K_M with 1, 2, 4 and 6 RTX 3090 decodes at 111.74, 108.07, 104.94 and
101.07 tok/s, which is .30, .19 and .19 ms a step."""


def host_seconds(
    split: Split, device: Device, shape: Shape | None = None, sequences: Sequences = ALONE
) -> Extra:
    """What several memories add to a step: the layers in the system's memory, which are read there
    for all sequences and multiplied for each, and the way from GPU to GPU. None for a whole model
    on one GPU."""
    hops = HOP_SECONDS * max(0, len(split.gpus) - 1)
    if split.whole or device.host_bandwidth is None:
        return Extra(hops, hops) if hops else NO_EXTRA
    more = sequences.count - 1
    growth = expert_growth(shape, sequences.count) if shape and more else 1.0
    weights = (split.host_read - sequences.host_cache_bytes) * growth
    read = weights + sequences.count * sequences.host_cache_bytes
    multiplied = (
        # Half of a processor's rate for prompts, as packager.predict.forecast has it for a batch.
        more * 2 * shape.active_parameters() * _behind(split) / (device.host_compute * 0.5)
        if shape and more and device.host_compute
        else 0.0
    )
    return Extra(
        hops + read / device.host_bandwidth + multiplied,
        hops + split.host_weights / (device.link_bandwidth or device.host_bandwidth),
    )


def _behind(split: Split) -> float:
    """The share of the layers that stays in the system's memory."""
    return 1 - split.gpu_layers / split.all_layers
