"""Our own code as a wheel, from the files that run here: what a device with Python gets.

An installation from a checkout has no wheel, and one from an index keeps none, so it is made of the
imported packages. The same code gives the same bytes. Format: the binary distribution format of the
Python Packaging User Guide.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from packager.errors import PackError, usage

_DISTRIBUTION = "qwen-pack"
_WHEEL = "Wheel-Version: 1.0\nGenerator: qwen-pack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The first moment that a ZIP file knows."""


def own_wheel(folder: Path) -> Path:
    """Write the wheel into a folder. Raises PackError (usage) where this installation does not say
    what it needs."""
    try:
        known = distribution(_DISTRIBUTION)
    except PackageNotFoundError:
        raise _unknown() from None
    # In the folder of a checkout its build has left the same under an older name, found first.
    texts = {
        "METADATA": known.read_text("METADATA") or known.read_text("PKG-INFO"),
        "entry_points.txt": known.read_text("entry_points.txt"),
    }
    if not texts["METADATA"]:
        raise _unknown()
    stem = f"qwen_pack-{known.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, data: bytes) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
            wheel.writestr(zipfile.ZipInfo(name, _OLDEST), data, zipfile.ZIP_DEFLATED)

        for name, file in _code():
            add(name, file.read_bytes())
        add(f"{stem}.dist-info/WHEEL", _WHEEL.encode())
        for name, text in texts.items():
            if text:
                add(f"{stem}.dist-info/{name}", text.encode())
        record.append(f"{stem}.dist-info/RECORD,,\n")
        last = zipfile.ZipInfo(f"{stem}.dist-info/RECORD", _OLDEST)
        wheel.writestr(last, "".join(record), zipfile.ZIP_DEFLATED)
    return path


def _code() -> list[tuple[str, Path]]:
    """Name in the wheel and file of everything that is imported or read at run time, in order."""
    rows = []
    for package in ("packager", "targets", "tui"):
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            top = Path(location)
            rows += [
                (f"{package}/{file.relative_to(top).as_posix()}", file)
                for file in top.rglob("*")
                if file.is_file() and file.suffix != ".pyc" and not file.is_symlink()
            ]
    return sorted(rows)


def _unknown() -> PackError:
    return usage(
        "This installation of qwen-pack does not say which version it is.",
        "Install it with pip, or name an agent with --agent.",
    )
