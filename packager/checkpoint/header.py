"""The header of a safetensors file, read and checked without touching the weights.

Format: eight bytes (little-endian length N), N bytes of JSON that start with `{`, then the data of
all tensors without a gap. Source: the README of huggingface/safetensors. The library checks the
same rules but keeps the offsets to itself and lets the last of two equal names win; a converter
needs the first and must not have the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from packager.errors import PackError, bad_input
from packager.foreign import parse_json
from packager.json_values import JsonObject
from packager.limits import TENSOR_NAME_CHARACTERS, TENSORS

if TYPE_CHECKING:
    import numpy

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
"""The types that weights are taken in."""

_OTHER_BITS = {
    "BOOL": 8,
    "I16": 16,
    "U16": 16,
    "I32": 32,
    "U32": 32,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "I8": 8,
    "U8": 8,
}
_OTHER_BITS |= {
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_BITS = _OTHER_BITS | {dtype: 8 * size for dtype, size in ITEM_BYTES.items()}

_GET_AGAIN = "Get the file again from where it was published."
_LFS = b"version https://git-lfs"
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ", b"(\xb5/\xfd", b"7z\xbc\xaf")
"""How files of zip, gzip, xz, zstd and 7z begin. Bytes 4 to 7 of a length that is allowed are 0."""
_SHOWN = 40
"""Bytes of another file's beginning that are shown."""


class Rows(Protocol):
    """The numbers of a tensor that no file holds as they are."""

    def rows(self, first: int, end: int) -> numpy.ndarray[Any, Any]:
        """Rows `first` to `end` as float32 (rows, columns), where a row is the innermost dimension
        and all others are counted through.

        The same row has the same numbers, whatever is asked for beside it. Threads may ask at once.
        """


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: `nbytes` bytes from `offset` of `file`, little-endian, row-major,
    outermost dimension first.

    With `made` it lies nowhere: it is computed when it is asked for, `nbytes` are those of the
    numbers in `dtype`, and `file` is where most of what it is made of lies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    made: Rows | None = None


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of a safetensors file in stored order. Raises PackError (exit code 6) that names
    the file and the rule it breaks."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        beginning = stream.read(_SHOWN)
        refuse_pointer(file, beginning)
        _refuse_other_files(file, beginning)
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise _broken(
                file,
                f"it claims a header of {length} bytes, and no more than {MAX_HEADER_BYTES} are "
                "allowed",
            )
        if size < 8 + length:
            raise _broken(file, f"it ends inside its header, after {size} bytes")
        text = stream.read(length)
    return _tensors(file, text, 8 + length, size)


def refuse_pointer(file: Path, beginning: bytes) -> None:
    """Raise PackError (exit code 6) for a file that begins as a pointer of Git LFS: three lines in
    place of the file itself."""
    if beginning.startswith(_LFS):
        raise bad_input(
            f"{file} is a pointer of Git LFS and not the file itself.",
            "Run `git lfs pull` in the repository that it was cloned into.",
        )


def _refuse_other_files(file: Path, beginning: bytes) -> None:
    """Raise PackError (exit code 6) for what a download has left in place of weights: a page, an
    error's text, an archive.

    No header is as long as the first eight bytes of a text would say.
    """
    if beginning.startswith(_ARCHIVES):
        raise bad_input(
            f"{file} is an archive and holds no tensors as it is.",
            "Unpack it, and name the folder with the safetensors files.",
        )
    text = beginning.split(b"\n")[0].decode("ascii", "replace").strip()
    if len(beginning) >= 8 and len(text) >= 8 and text.isascii() and text.isprintable():
        raise _broken(file, f"it is text that begins {text[:_SHOWN]!r}")


def _tensors(file: Path, text: bytes, start: int, size: int) -> list[TensorInfo]:
    if not text.startswith(b"{"):
        raise _broken(file, "its header does not start with '{'")
    # Each tensor is an object: counted before any of them is made.
    if text.count(b"{") > TENSORS:
        raise _broken(file, f"its header has more than {TENSORS} tensors")
    header = parse_json(
        text,
        f"{file} is not a whole safetensors file: its header",
        _GET_AGAIN,
        hook=lambda pairs: _once(file, pairs),
        constant=_no_constant,
    )
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise _broken(file, "its __metadata__ is not a map from text to text")
    tensors = [_tensor(file, name, entry, start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            what = (
                "overlaps the tensor before it" if tensor.offset < end else "leaves a gap before it"
            )
            raise _broken(file, f"tensor {tensor.name!r} {what}")
        end += tensor.nbytes
    if end > size:
        raise _broken(
            file, f"it is cut short: its tensors end at byte {end}, the file at byte {size}"
        )
    if end < size:
        raise _broken(file, f"{size - end} bytes after the last tensor belong to none")
    return tensors


def _tensor(file: Path, name: str, entry: Any, start: int) -> TensorInfo:
    # Names are searched by patterns, whose time grows faster than a name.
    if len(name) > TENSOR_NAME_CHARACTERS:
        raise _broken(file, f"the name of a tensor has {len(name)} characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(file, f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(file, f"tensor {name!r} has the unknown type {dtype!r}")
    if not _counts(shape) or len(shape) > 8:
        raise _broken(file, f"tensor {name!r} has the impossible shape {shape!r}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(file, f"tensor {name!r} has the impossible data_offsets {offsets!r}")
    nbytes = offsets[1] - offsets[0]
    needed = prod(shape) * _BITS[dtype] // 8
    if nbytes != needed:
        raise _broken(
            file,
            f"tensor {name!r} of shape {shape} in {dtype} takes {needed} bytes, its data_offsets "
            f"span {nbytes}",
        )
    return TensorInfo(name, dtype, tuple(shape), file, start + offsets[0], nbytes)


def _counts(value: Any) -> bool:
    """Whether it is a list of whole numbers from 0 to the largest offset of a file."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 63 for item in value
    )


def _once(file: Path, pairs: list[tuple[str, Any]]) -> JsonObject:
    entries = {}
    for name, value in pairs:
        if name in entries:
            raise _broken(file, f"its header has {name!r} twice")
        entries[name] = value
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _broken(file: Path, why: str) -> PackError:
    return bad_input(f"{file} is not a whole safetensors file: {why}.", _GET_AGAIN)
