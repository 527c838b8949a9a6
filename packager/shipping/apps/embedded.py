"""The package for embedded devices: one tar as input of RAUC and Mender, and C that compares before
it hands anything on.

The C brings its own SHA-256: it needs a compiler and POSIX and nothing else, where OpenSSL and its
like are a choice (and a version) of the device's own image. Sources: FIPS 180-4;
rauc.readthedocs.io, reference of the manifest; mendersoftware/mender, support/modules/directory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO

from packager.errors import usage
from packager.escapes import Safe, slug
from packager.files import folder_that_appears_whole, let_all_read, write_json
from packager.json_values import JsonObject
from packager.shipping import archive
from packager.shipping.apps import snippets
from packager.shipping.apps.server_settings import drafting_flags
from packager.shipping.shipment import Shipment, free_place

_LONGEST = 100


def write(
    shipment: Shipment, out: Path, limit: int | None = None, *, device_type: str | None = None
) -> Generator[int, None, None]:
    """Write the folder `out`; yields sizes. `device_type` is what the fleet calls its devices, by
    default the target's name."""
    free_place(out)
    own = snippets.facts(shipment)
    name = own.device if device_type is None else device_type
    if not name.isprintable() or not 0 < len(name) <= _LONGEST or name != name.strip():
        raise usage(
            f"{name!r} is not a valid device type.",
            f"Give --device-type up to {_LONGEST} printable characters.",
        )
    with folder_that_appears_whole(out) as folder:
        tar = folder / "rauc/update.tar"
        tar.parent.mkdir()
        with tar.open("xb") as raw:
            sink = _Hashed(raw)
            yield from archive.write_tar(shipment, sink, snippets.FOLDER)
            raw.flush()
            os.fsync(raw.fileno())
            let_all_read(raw)
        offload = shipment.manifest.contents.offload
        values = {
            **own.values(),
            "gpu_layers": (offload.gpu_layers if offload else None) or 0,
            "drafting_flags": drafting_flags(shipment, f"FOLDER/{snippets.FOLDER}"),
            "device_type": name,
            "artifact": f"{slug(shipment.name)}-{own.version}",
            "tar_size": sink.size,
            "tar_sha256": sink.digest.hexdigest(),
            **_constants(),
        }
        for path, template in (
            ("c/qwen_pack.c", "qwen_pack.c"),
            ("c/qwen_pack.h", "qwen_pack.h"),
            ("c/main.c", "main.c"),
            ("rauc/manifest.raucm", "rauc.ini"),
            ("mender/write-artifact.sh", "mender.sh"),
            ("README.md", "embedded.md"),
        ):
            snippets.write(folder, path, template, values)
        write_json(folder / "mender/meta-data.json", _meta_data(own, name, sink, shipment))


def _meta_data(
    own: snippets.Facts, device_type: str, tar: _Hashed, shipment: Shipment
) -> JsonObject:
    """What a fleet's server shows of the artifact."""
    return {
        "package": own.name,
        "version": own.version,
        "device_type": device_type,
        "license": own.spdx,
        "minimum_memory_bytes": own.memory,
        "payload": {
            "path": "update.tar",
            "size": tar.size,
            "sha256": tar.digest.hexdigest(),
        },
        "manifest_sha256": shipment.files[0].sha256,
    }


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def _constants() -> snippets.Values:
    """The numbers of SHA-256, from their definition: 32 bits of the fractions of the roots of the
    first primes."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
    words = [f"0x{_root(prime << 96, 3) & 0xFFFFFFFF:08x}" for prime in primes[:64]]
    rows = [", ".join(words[at : at + 8]) + ("," if at < 56 else "") for at in range(0, 64, 8)]
    initial = ", ".join(f"0x{_root(prime << 64, 2) & 0xFFFFFFFF:08x}" for prime in primes[:8])
    return {"sha256_constants": [Safe(row) for row in rows], "sha256_initial": Safe(initial)}


def _root(number: int, degree: int) -> int:
    """The whole part of a root."""
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
    return low
