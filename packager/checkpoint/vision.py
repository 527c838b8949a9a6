"""The vision tower of a checkpoint: what config.json describes, the tensors that are stored of it,
and how pictures are normalized before it sees them.

Whoever builds text alone never comes here: a checkpoint whose tower was left out or cut off is a
good text model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.checkpoint.folder import PREPROCESSORS, read_json
from packager.checkpoint.header import ITEM_BYTES, TensorInfo
from packager.checkpoint.naming import tower_name
from packager.errors import PackError, bad_input
from packager.shape import Shape
from packager.shape.fields import Fields
from packager.shape.tower import CHANNELS, FRAMES, MERGE, Tower, tower_of

_NAMED = 3
_EIGHT_BITS = 1 / 255
_ROUNDING = 1e-6
TEXT_ALONE = "Take the whole checkpoint, or build the text model alone with --modality text."


@dataclass(frozen=True, slots=True)
class Vision:
    """A tower that is whole. `tensors` by the names of `Tower.tensors`; `mean` and `deviation` are
    those of red, green and blue between 0 and 1, which are taken off and divided by."""

    tower: Tower
    tensors: Mapping[str, TensorInfo]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def read(
    files: Mapping[str, Path],
    config: Mapping[str, Any],
    shape: Shape,
    stored: Mapping[str, TensorInfo],
) -> Vision:
    """The tower among the `stored` tensors of a checkpoint with these files.

    Raises PackError (exit code 6) with the reason: config.json describes none, the weights have
    none, or not all of it, or a part in another shape or quantized; nothing says how pictures are
    normalized.
    """
    path = files["config.json"]
    tower = tower_of(config, shape, str(path))
    tensors = matched(path, stored, dict(tower.tensors()), tower_name, "vision tower")
    mean, deviation = _normalization(files, tower)
    return Vision(tower, tensors, mean, deviation)


def matched(
    path: Path,
    stored: Mapping[str, TensorInfo],
    expected: Mapping[str, tuple[int, ...]],
    name_of: Callable[[str], str | None],
    what: str,
) -> dict[str, TensorInfo]:
    """The `stored` tensors that are part of `what`, in the order of those that config.json (at
    `path`) describes; `name_of` gives a tensor's own name there, None for one of another part.

    Raises PackError (exit code 6) where none is stored, one twice, or they are not those.
    """
    tensors: dict[str, TensorInfo] = {}
    for tensor in stored.values():
        name = name_of(tensor.name)
        if name is None:
            continue
        if name in tensors:
            raise bad_input(
                f"{tensor.file.name} holds {tensors[name].name!r} and {tensor.name!r}, which are "
                "the same tensor.",
                f"Keep the one that is meant; {path} describes one network.",
            )
        tensors[name] = tensor
    if not tensors:
        raise bad_input(
            f"{path.parent} has no {what}: {path.name} describes one, and none of its "
            f"{len(expected)} tensors is in the weights.",
            TEXT_ALONE,
        )
    refuse_damage(path, expected, tensors, what)
    return {name: tensors[name] for name in expected}


def refuse_damage(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, TensorInfo],
    what: str,
    way_on: str = TEXT_ALONE,
) -> None:
    """Raise PackError (exit code 6) unless the tensors of `what` are those that config.json (at
    `path`) describes; `way_on` is its hint."""
    missing = [name for name in expected if name not in tensors]
    problems = [f"tensor {name!r} is missing" for name in missing[:_NAMED]]
    for name, tensor in tensors.items():
        where = f"tensor {tensor.name!r} in {tensor.file.name}"
        if name not in expected:
            problems.append(f"{where} is not part of the model")
        elif tensor.shape != expected[name]:
            problems.append(
                f"{where} has the shape {list(tensor.shape)} instead of {list(expected[name])}"
            )
        elif tensor.dtype not in ITEM_BYTES:
            problems.append(f"{where} is stored as {tensor.dtype}")
    if not problems:
        return
    count = len(problems) + len(missing[_NAMED:])
    more = f", and {count - _NAMED} more" if count > _NAMED else ""
    raise bad_input(
        f"The {what} in {path.parent} is not the one that {path.name} describes: "
        f"{'; '.join(problems[:_NAMED])}{more}.",
        way_on,
    )


def _normalization(
    files: Mapping[str, Path], tower: Tower
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation; the later of two files counts, and in it the table of the image
    processor, as for llama.cpp's converter."""
    # Any: JSON from outside, each field checked below.
    settings: dict[str, Any] = {}
    where = ""
    for name in PREPROCESSORS:
        if name in files:
            table = read_json(files[name])
            inner = table.get("image_processor")
            settings |= {**table, **(inner if isinstance(inner, dict) else {})}
            where = str(files[name])
    if "image_mean" not in settings or "image_std" not in settings:
        raise bad_input(
            f"{files['config.json'].parent} does not say how pictures are normalized: "
            f"{' and '.join(PREPROCESSORS)} have no image_mean and image_std.",
            "Copy preprocessor_config.json from the model that it was trained from.",
        )
    fields = Fields(settings, where)
    fixed = {
        "patch_size": tower.patch,
        "merge_size": MERGE,
        "temporal_patch_size": FRAMES,
    }
    for key, only in fixed.items():
        if fields.count(key, only) != only:
            raise fields.wrong(key, f"is {settings[key]!r}, and the tower takes {only}")
    for key in ("do_normalize", "do_rescale"):
        if not fields.flag(key, True):
            raise fields.wrong(key, "is false, and every engine does so")
    if abs(fields.number("rescale_factor", _EIGHT_BITS) - _EIGHT_BITS) > _ROUNDING:
        raise fields.wrong("rescale_factor", "is not 1/255, which is all that engines compute")
    return _colours(fields, "image_mean", zero=True), _colours(fields, "image_std", zero=False)


def _colours(fields: Fields, key: str, *, zero: bool) -> tuple[float, ...]:
    values = fields.listing(key)
    least = 0.0 if zero else _ROUNDING
    good = all(type(value) in (int, float) and least <= value <= 1 for value in values)
    if len(values) != CHANNELS or not good:
        raise fields.wrong(key, f"is not a list of {CHANNELS} numbers between 0 and 1")
    return tuple(float(value) for value in values)


def wrong_tower(folder: Path, repo_id: str, planned: Tower, has: Tower) -> PackError:
    """The refusal (exit code 6) of a checkpoint whose tower is not the one that was planned for."""
    return bad_input(
        f"{folder} is not {repo_id}: its vision tower has {has.parameters():,} weights in "
        f"{has.depth} layers instead of {planned.parameters():,} in {planned.depth}.",
        "Name the variant that it was made from with --model.",
    )
