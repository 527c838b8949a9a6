"""What a shape takes in one way on the target, and how fast it is there; variants share both."""

from __future__ import annotations

from typing import NamedTuple

from packager.device.target import Target
from packager.errors import PackError
from packager.need.workload import Workload
from packager.predict.forecast import AS_RATED, NO_EXTRA, Forecast, Speed, predict_on
from packager.predict.memory import Footprint, kv_cache_bytes
from packager.predict.offload import Offloads, Split, best_split, host_seconds, splits
from packager.predict.sequences import ALONE, Sequences, with_sequences
from packager.runtime import Retrieves, Runtime, Sees
from packager.select import device_rules
from packager.select.candidate import Alone
from packager.select.ways import Way
from packager.shape import Shape
from packager.shape.audio import AudioTower, audio_tokens

_NOTHING = Footprint(0, 0, 0, 0)
_ROOMY = 0.9
"""Share of the memory up to which a model leaves room: for what else runs, and for a longer
talk."""


class Size(NamedTuple):
    """What a shape takes in one way, or the obstacle; it depends on the context but on no limit.

    Everything counts all sequences of the workload; `one` and `one_split` are those of a single
    one, on as many layers of the GPU.
    """

    obstacle: str | None
    artifact: int = 0
    footprint: Footprint = _NOTHING
    decode_bytes: int = 0
    speed: Speed = AS_RATED
    split: Split | None = None
    least_file: int = 0
    sequences: Sequences = ALONE
    one: Footprint = _NOTHING
    one_split: Split | None = None


def sound_prompt(tower: AudioTower | None, workload: Workload) -> int:
    """Tokens of the prompt with those that an encoder makes of the workload's longest sound: needs
    are planned with Qwen3-ASR's."""
    seconds = workload.max_audio_seconds
    if tower is None or seconds is None:
        return workload.prompt
    return workload.prompt + max(0, tower.tokens(seconds) - audio_tokens(seconds))


def _half(runtime: Runtime, part: type) -> str | None:
    # Late: for a plug-in of another version alone.
    from packager.parts import half

    return half(runtime, part)


def _deaf(runtime: Runtime, unit: str) -> str | None:
    """Why a runtime builds no audio encoder for a unit of a device; None where it does."""
    # Late: sessions are for who plans with sound alone.
    from packager.hearing import Hears, HearsApart

    if isinstance(runtime, Hears):
        if isinstance(runtime, HearsApart) and unit not in runtime.sounds_on:
            return f"{runtime.name} was not tried with sound on the device's {unit.upper()}"
        return None
    return _half(runtime, Hears) or (
        f"{runtime.name} builds the text decoder alone here, and no audio encoder"
    )


class Sizes:
    """Sizes and forecasts of one workload on one target; a shape is measured once in each way."""

    def __init__(self, target: Target, workload: Workload, available: int) -> None:
        self._target, self._workload, self._available = target, workload, available
        self._sizes: dict[tuple[int, str], Size] = {}
        self._forecasts: dict[tuple[int, str], tuple[Forecast, Alone | None]] = {}
        self._shapes: dict[Shape, int] = {}
        self._numbers: dict[int, tuple[Shape, int]] = {}

    def of(self, shape: Shape, way: Way) -> Size:
        """The size of a shape in one way."""
        key = (self._number(shape), way.id)
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = self._measure(shape, way)
        return size

    def forecast(self, shape: Shape, size: Size, way: Way) -> tuple[Forecast, Alone | None]:
        """Its speed; with several sequences also footprint and speed of a single one."""
        key = (self._number(shape), way.id)
        if key not in self._forecasts:
            alone = (
                Alone(size.one, self._predicted(shape, size, size.one_split, ALONE))
                if size.sequences.count > 1
                else None
            )
            self._forecasts[key] = (
                self._predicted(shape, size, size.split, size.sequences),
                alone,
            )
        return self._forecasts[key]

    def crowded(self, size: Size) -> bool:
        """Whether less than a tenth of the memory stays free, or not all of it is on the GPU."""
        if size.split is not None and not size.split.whole:
            return True
        fullest = size.split.fullest if size.split else size.footprint
        gpus = self._target.device.gpus if size.split else 1
        room = device_rules.room(self._workload, self._available, gpus)
        return fullest.peak > _ROOMY * room

    def _number(self, shape: Shape) -> int:
        """The same for equal shapes; an object that is met again is not hashed again, which its
        many fields make slow."""
        known = self._numbers.get(id(shape))
        if known is None:
            known = self._numbers[id(shape)] = (
                shape,
                self._shapes.setdefault(shape, len(self._shapes)),
            )
        return known[1]

    def _measure(self, shape: Shape, way: Way) -> Size:
        try:
            return self._measured(shape, way)
        except PackError as error:
            # What one recipe cannot be sized for is no reason to say nothing about the others.
            return Size(error.message)

    def _measured(self, shape: Shape, way: Way) -> Size:
        runtime, recipe = way.runtime, way.recipe
        obstacle = runtime.obstacle(shape, recipe)
        if obstacle is None and shape.task != "generate" and not isinstance(runtime, Retrieves):
            obstacle = f"{runtime.name} is built for text here, not for vectors and scores"
        if obstacle is None and shape.vision is not None and not isinstance(runtime, Sees):
            obstacle = _half(runtime, Sees) or (
                f"{runtime.name} builds the text decoder alone here, and no vision tower"
            )
        if obstacle is None and shape.vision is not None and isinstance(runtime, Sees):
            unit = self._target.device.runs_on
            if unit not in runtime.pictures_on:
                obstacle = (
                    f"{runtime.name} was not tried with pictures on the device's {unit.upper()}"
                )
        if obstacle is None and shape.audio is not None:
            obstacle = _deaf(runtime, self._target.device.runs_on)
        if obstacle is not None:
            return Size(obstacle)
        workload, device = self._workload, self._target.device
        context, count = workload.context, workload.parallel
        # The rate is that at the beginning of an answer: the typical prompt is in the cache, as the
        # benchmark measures it.
        filled = min(sound_prompt(shape.audio, workload), context)
        artifact = runtime.artifact_bytes(shape, recipe)
        least_file = (
            0 if workload.max_file_bytes is None else runtime.least_file_bytes(shape, recipe)
        )
        speed = runtime.speed(shape, recipe, device.computes_with)
        cached = kv_cache_bytes(shape, filled, recipe.kv_bits) if count > 1 else 0
        if splits(device) and isinstance(runtime, Offloads):
            room = device_rules.room(workload, self._available, device.gpus)
            split = best_split(runtime, shape, recipe, context, filled, device, room, count)
            single = split
            if count > 1:
                many = {"gpus": device.gpus} if device.gpus > 1 else {}
                single = runtime.split(shape, recipe, context, filled, split.gpu_layers, **many)
            return Size(
                None,
                artifact,
                split.device,
                split.device_read,
                speed,
                split,
                least_file,
                split.sequences(count, cached),
                single.device,
                single,
            )
        footprint = runtime.footprint(shape, recipe, context)
        return Size(
            None,
            artifact,
            with_sequences(footprint, shape, count) if count > 1 else footprint,
            runtime.decode_bytes(shape, recipe, filled),
            speed,
            None,
            least_file,
            Sequences(count, cached),
            footprint,
        )

    def _predicted(
        self, shape: Shape, size: Size, split: Split | None, sequences: Sequences
    ) -> Forecast:
        device = self._target.device
        extra = host_seconds(split, device, shape, sequences) if split else NO_EXTRA
        # Two memories, two processors and the way between them, or a batch: no figure of whole
        # models answering one sequence says how well those work.
        guessed = sequences.count > 1 or (split is not None and not split.whole)
        return predict_on(
            shape,
            size.decode_bytes,
            sound_prompt(shape.audio, self._workload),
            device,
            size.speed,
            extra,
            "estimated" if guessed else device.confidence,
            sequences,
        )
