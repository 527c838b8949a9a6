"""Is a package safe to open? That its files are those of its manifest says nothing about what they
make an engine do.

Whoever made a package chose its manifest as well. So before anything of a package is opened, every
file is looked at: configurations may have the keys that stand in keys.toml and no others, graphs
the operators that our builders write, offsets must lie within the files that they point into, and a
program, a library, Python code or a pickle is not a file of a package, whatever its name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import IO

from packager.errors import bad_input
from packager.files import open_to_read
from packager.inspection import gguf, json_file, native, onnx, onnx_adapter, openvino, safetensors
from packager.inspection.unsafe import Unsafe, shown
from packager.package.manifest import FileEntry, Manifest

__all__ = ["refuse_unsafe", "unsafe_artifact", "unsafe_files"]

_BUILT_IN = ("llama.cpp", "openvino", "onnxruntime")
_MODEL, _DRAFT = "model", "draft"
_ENDINGS = (
    ".bin",
    ".data",
    ".gguf",
    ".jinja",
    ".json",
    ".onnx",
    ".onnx_adapter",
    ".safetensors",
    ".txt",
    ".xml",
)
"""Of files below model/, for the runtimes whose artifacts we write ourselves."""


def refuse_unsafe(package: Path, known: Manifest, label: str | None = None) -> None:
    """Raise PackError (exit code 6) naming the first file that makes a package unsafe to open;
    files that are absent are passed over.

    `label` is what the package is called in the sentence, where it has no place of its own yet.
    """
    built_in = known.contents.runtime.name in _BUILT_IN
    reason = _reason(known.files, built_in, lambda name: package / name)
    if reason is not None:
        raise bad_input(
            f"{label or package} is not safe to open: its file {reason}.",
            "Do not use it. `qwen-pack build` makes a package from the checkpoint itself.",
        )


def unsafe_artifact(folder: Path, files: Sequence[FileEntry], runtime: str) -> str | None:
    """The first file of an artifact that no engine may open, and why not, as part of a sentence;
    None where there is none.

    An artifact is what a package has below model/. The paths of `files` are below `folder`.
    """
    rows = [replace(row, path=f"{_MODEL}/{row.path}") for row in files]
    return _reason(
        rows, runtime in _BUILT_IN, lambda name: folder / PurePosixPath(name).relative_to(_MODEL)
    )


def unsafe_files(files: Mapping[str, Path], runtime: str) -> str | None:
    """As `unsafe_artifact`, of files that lie anywhere, by their names in the artifact. What they
    are links to is looked at: that none leads astray is the caller's to check."""
    rows = [FileEntry(f"{_MODEL}/{name}", path.stat().st_size, "") for name, path in files.items()]
    return _reason(
        rows,
        runtime in _BUILT_IN,
        lambda name: files[str(PurePosixPath(name).relative_to(_MODEL))].resolve(),
    )


def _reason(files: Sequence[FileEntry], built_in: bool, place: Callable[[str], Path]) -> str | None:
    for entry in files:
        try:
            _look(place(entry.path), entry, files, built_in)
        except FileNotFoundError:
            continue
        except Unsafe as reason:
            return f"{shown(entry.path)} {reason}"
    return None


def _look(place: Path, entry: FileEntry, files: Sequence[FileEntry], built_in: bool) -> None:
    path = PurePosixPath(entry.path)
    native.refuse_name(entry.path)
    ending = path.suffix.casefold()
    within = path.parts[0] in (_MODEL, _DRAFT)
    if built_in and within and ending not in _ENDINGS:
        raise Unsafe("is of a kind that no package of qwen-pack has")
    beside = {
        PurePosixPath(row.path).name: row.size
        for row in files
        if PurePosixPath(row.path).parent == path.parent
    }
    # Neither a link nor a named pipe is followed or waited for.
    handle = open_to_read(place)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise Unsafe("is a pipe, a folder or a device")
    size = status.st_size
    with os.fdopen(handle, "rb") as file:
        native.refuse_bytes(file, size)
        file.seek(0)
        if ending == ".gguf":
            _mapped(file, size, lambda data: gguf.refuse(data, size))
        elif ending == ".onnx":
            _mapped(file, size, lambda data: _onnx(data, beside))
        elif ending == ".onnx_adapter":
            _mapped(file, size, onnx_adapter.refuse)
        elif ending == ".safetensors":
            safetensors.refuse(file, size)
        elif ending == ".xml" and within and built_in:
            openvino.refuse(file, beside.get(f"{path.stem}.bin", 0))
        elif ending == ".json" and within:
            _json(file, size, path, beside, built_in)


def _onnx(data: mmap, beside: dict[str, int]) -> None:
    reason = None
    with memoryview(data) as view:
        try:
            onnx.refuse(view, beside)
        except Unsafe as refusal:
            reason = str(refusal)
    if reason is not None:
        # Not from within: the traceback of the first would hold slices of the map, which then could
        # not be closed.
        raise Unsafe(reason)


def _json(
    file: IO[bytes], size: int, path: PurePosixPath, beside: dict[str, int], built_in: bool
) -> None:
    if not built_in and path.name != "genai_config.json":
        return
    if str(path.parent) not in (_MODEL, _DRAFT):
        raise Unsafe("is a configuration that no package of qwen-pack has")
    if path.suffix != ".json":
        raise Unsafe("is a configuration with an unusual spelling of its ending")
    longest = json_file.largest(path.stem)
    if size > longest:
        raise Unsafe(f"has {size} bytes, more than any file of that name")
    json_file.refuse(path.stem, file.read(longest + 1), beside)


def _mapped(file: IO[bytes], size: int, look: Callable[[mmap], None]) -> None:
    if size == 0:
        raise Unsafe("is empty")
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        look(data)
