"""What the user adds to a recipe: an importance matrix or the text it is collected from, and types
of single tensors; that the groups of a quantized checkpoint are taken over as they are; or that the
graph gets inputs for the matrices of an adapter.

Only some runtimes know what to do with it. One that does has a method `with_additions(additions)`,
for the groups `with_repack(group)` or for inputs `with_adapter_inputs()`, which returns an adapter
whose recipes carry them: in their id, their settings and so in the cache key and the manifest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject
from packager.recipe import marks_of, split_id
from packager.runtime import Runtime


@dataclass(frozen=True)
class Additions:
    """Files of the user's as they were named, and patterns over tensor names with the type each
    asks for, the first hit counting. `group`: columns that share a scale in the checkpoint whose
    groups are taken over, where that is known before it is read.
    """

    imatrix: Path | None = None
    calibration: Path | None = None
    tensor_types: Mapping[str, str] = field(default_factory=dict)
    repack: bool = False
    group: int | None = None
    adapter_inputs: bool = False

    def __bool__(self) -> bool:
        return bool(self.flags())

    def flags(self) -> list[str]:
        """The options that were given, as they are typed."""
        given = {
            "--imatrix": self.imatrix,
            "--calibration": self.calibration,
            "--tensor-type": self.tensor_types,
            "--repack": self.repack,
            "--adapter-inputs": self.adapter_inputs,
        }
        return [flag for flag, value in given.items() if value]


def parse(
    imatrix: Path | None,
    calibration: Path | None,
    tensor_types: Sequence[str],
    repack: bool = False,
    adapter_inputs: bool = False,
) -> Additions:
    """From the options of a command. Raises PackError (usage) for a contradiction, a missing file,
    a pattern without a type."""
    if imatrix is not None and calibration is not None:
        raise usage(
            "--imatrix and --calibration both give an importance matrix.",
            "Leave one of the two out.",
        )
    if repack and (imatrix or calibration or tensor_types):
        raise usage(
            "--repack takes the checkpoint's own 4-bit numbers, which nothing is added to.",
            "Leave --imatrix, --calibration and --tensor-type out.",
        )
    if adapter_inputs and (imatrix or calibration or tensor_types or repack):
        raise usage(
            "--adapter-inputs is for ONNX Runtime, which knows none of the other additions.",
            "Leave --imatrix, --calibration, --tensor-type and --repack out.",
        )
    for flag, path in (("--imatrix", imatrix), ("--calibration", calibration)):
        if path is not None and not path.is_file():
            raise usage(f"{flag} names {str(path)!r}, which is not a file.", "Check the path.")
    if imatrix is not None and not _is_matrix(imatrix):
        raise bad_input(
            f"{imatrix} is not an importance matrix.",
            "Name a .gguf or .dat that llama-imatrix wrote.",
        )
    types: dict[str, str] = {}
    for text in tensor_types:
        pattern, equals, kind = text.rpartition("=")
        if not (equals and pattern and kind):
            raise usage(
                f"{text!r} is not PATTERN=TYPE.", "Write for example --tensor-type 'attn_v=Q8_0'."
            )
        types.setdefault(pattern, kind.upper())
    return Additions(imatrix, calibration, types, repack, adapter_inputs=adapter_inputs)


def _is_matrix(path: Path) -> bool:
    """Whether a file begins as one of llama-imatrix does, in GGUF or in the older form: counts of
    entries and of a name's letters."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"GGUF"):
        return True
    entries, letters = struct.unpack("<ii", head) if len(head) == 8 else (0, 0)
    return bool(0 < entries <= 1 << 16 and 0 < letters <= 256)


def applied(
    runtimes: Sequence[Runtime], additions: Additions, recipe: str | None = None
) -> tuple[Runtime, ...]:
    """The runtimes that a choice is made among: with additions only those that know them, each
    offering recipes that carry them.

    Raises PackError (usage) where none does, or where `recipe` is of one that does not.
    """
    marks = marks_of(recipe) if recipe is not None else []
    if marks and not additions:
        raise usage(
            f"{recipe!r} names more than a recipe.",
            "Write the recipe alone; add --imatrix, --calibration, --tensor-type, --repack or "
            "--adapter-inputs.",
        )
    if not additions:
        return tuple(runtimes)
    flags = " and ".join(additions.flags())
    method = _method(additions)
    able = [runtime for runtime in runtimes if hasattr(runtime, method)]
    prefixes = [runtime.prefix for runtime in able]
    if not able:
        raise usage(f"No runtime that is installed knows {flags}.", "Leave it out.")
    if recipe is not None and split_id(recipe)[0] not in prefixes:
        raise usage(
            f"{flags} cannot be added to {recipe}.",
            f"Take a recipe that begins with {prefixes[0]}.",
        )
    carrying: list[Any] = able
    if method == "with_additions":
        return tuple(runtime.with_additions(additions) for runtime in carrying)
    if additions.repack:
        return tuple(runtime.with_repack(additions.group) for runtime in carrying)
    return tuple(runtime.with_adapter_inputs() for runtime in carrying)


def _method(additions: Additions) -> str:
    if additions.repack:
        return "with_repack"
    return "with_adapter_inputs" if additions.adapter_inputs else "with_additions"


def for_folder(additions: Additions, weights: str) -> Additions:
    """With the size of the groups that a checkpoint folder stores, where its config.json says it;
    anything wrong with the folder is found when it is opened."""
    if not additions.repack:
        return additions
    # Late: only a folder that is taken over is looked into here.
    from packager.checkpoint.folder import read_json
    from packager.checkpoint.quantized import group_of
    from packager.files import expanded

    path = expanded(weights) / "config.json"
    if not path.is_file():
        return additions
    return replace(additions, group=group_of(read_json(path)))


def file_facts(path: Path) -> JsonObject:
    """What a recipe keeps of a file of the user's: its name without the folders above it, and its
    digest."""
    from packager.files import sha256

    try:
        return {"file": path.name, "sha256": sha256(path)}
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
