"""The package for Android: packs for Play's on-device AI, app assets, and Kotlin that compares
before it hands anything out.

Sources: developer.android.com/google/play/on-device-ai (1.5 GB a pack, 4 GB together),
/google/play/device-targeting (groups by RAM: a folder NAME#group_GROUP goes to devices of that
group only).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from packager.escapes import Safe, slug
from packager.files import folder_that_appears_whole
from packager.records import Contents
from packager.shipping import pieces
from packager.shipping.apps import snippets
from packager.shipping.apps.layout import copy_package
from packager.shipping.shipment import Shipment, free_place

PACK_BYTES = 1_500_000_000
PLAY_BYTES = 4_000_000_000
GROUP = Safe("enough_memory")


def write(
    shipment: Shipment, out: Path, limit: int | None = None, pack_bytes: int = PACK_BYTES
) -> Generator[int, None, None]:
    """Write the folder `out`; yields sizes. Files above `pack_bytes` are cut; what Play does not
    take has app assets only."""
    free_place(out)
    packs = _packs(shipment, pack_bytes) if shipment.total <= PLAY_BYTES else []
    pack_of = {path: name for name, paths in packs for path in paths}
    own = snippets.facts(shipment)
    least = least_memory(shipment.manifest.contents)
    values = {
        **own.values(),
        "packs": [name for name, _ in packs],
        "group": GROUP,
        "least": least,
        "least_words": Safe(f"{least / 1e9:g} GB"),
        "files": [
            replace(
                file,
                pieces=tuple(
                    snippets.Piece(path, pack_of.get(path, ""))
                    for path in _parts(file.path, file.size, pack_bytes)
                ),
            )
            for file in own.files
        ],
    }
    with folder_that_appears_whole(out) as folder:
        yield from copy_package(shipment, folder / "assets", pack_bytes)
        for name, paths in packs:
            base = folder / "play" / name
            snippets.write(base, "build.gradle.kts", "ai-pack.gradle.kts", {"pack": name})
            top = (
                base
                / "src/main/assets"
                / (f"{snippets.FOLDER}#group_{GROUP}" if least else snippets.FOLDER)
            )
            for path in paths:
                _same_file(folder / "assets" / snippets.FOLDER / path, top / path)
        if packs and least:
            snippets.write(
                folder, "play/device_targeting_config.xml", "device_targeting_config.xml", values
            )
        snippets.write(folder, "kotlin/ModelFiles.kt", "ModelFiles.kt", values)
        snippets.write(folder, "README.md", "android.md", values)


def least_memory(contents: Contents) -> int:
    """RAM from which a device gets the model: that of the phone it was planned for, else what the
    engine takes; 0 when unknown.

    Whole gigabytes of 10^9, because a phone of "8 GB" tells apps a little less than 8 GiB.
    """
    device, predicted = contents.device, contents.predicted
    peak = (predicted.footprint.peak if predicted and predicted.footprint else None) or 0
    if device is not None and device.kind == "phone" and device.memory_bytes:
        return device.memory_bytes // (1 << 30) * 10**9
    return -(-peak // 10**9) * 10**9


def _parts(path: str, size: int, pack_bytes: int) -> list[str]:
    count = pieces.count_of(size, pack_bytes) if size > pack_bytes else 1
    return [part.as_posix() for part in pieces.names(Path(path), count)]


def _packs(shipment: Shipment, pack_bytes: int) -> list[tuple[Safe, list[str]]]:
    """Name and paths of every pack: each piece goes into the first that has room."""
    room: list[int] = []
    paths: list[list[str]] = []
    for entry in shipment.files:
        left = entry.size
        for path in _parts(entry.path, entry.size, pack_bytes):
            size = min(left, pack_bytes)
            left -= size
            number = next((index for index, free in enumerate(room) if free >= size), len(room))
            if number == len(room):
                room.append(pack_bytes)
                paths.append([])
            room[number] -= size
            paths[number].append(path)
    base = slug(shipment.name).replace("-", "_")
    return [(Safe(f"{base}_{number}"), group) for number, group in enumerate(paths, 1)]


def _same_file(source: Path, target: Path) -> None:
    """A second name for one file; a copy on disks that have none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EOPNOTSUPP,
            errno.EMLINK,
            errno.ENOTSUP,
            errno.EINVAL,
        ):
            raise
        shutil.copyfile(source, target)
