"""The bytes in front of the weights: GGUF version 3, little-endian.

The gguf package's writer packs element by element; a vocabulary of 150,000 tokens and as many
merges takes it longer than quantizing a small model. Its GGUFWriter still names and types the keys:
what is encoded here is the `kv_data` it collected.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import gguf

from targets.gguf.tensors import TypedTensor, padded

_SCALARS = {
    gguf.GGUFValueType.UINT8: "<B",
    gguf.GGUFValueType.INT8: "<b",
    gguf.GGUFValueType.UINT16: "<H",
    gguf.GGUFValueType.INT16: "<h",
    gguf.GGUFValueType.UINT32: "<I",
    gguf.GGUFValueType.INT32: "<i",
    gguf.GGUFValueType.FLOAT32: "<f",
    gguf.GGUFValueType.UINT64: "<Q",
    gguf.GGUFValueType.INT64: "<q",
    gguf.GGUFValueType.FLOAT64: "<d",
    gguf.GGUFValueType.BOOL: "<?",
}
_LENGTH = struct.Struct("<Q")


def encode(kv: Mapping[str, gguf.GGUFValue], tensors: Sequence[TypedTensor]) -> bytes:
    """The whole header, padded so that the data section starts aligned."""
    out = [struct.pack("<IIQQ", gguf.GGUF_MAGIC, gguf.GGUF_VERSION, len(tensors), len(kv))]
    out += [pair(key, value) for key, value in kv.items()]
    out += map(_line, tensors)
    header = b"".join(out)
    return header.ljust(padded(len(header)), b"\0")


def pair(key: str, value: gguf.GGUFValue) -> bytes:
    """One key with its value."""
    return (
        _string(key)
        + struct.pack("<I", value.type)
        + _value(value.value, value.type, value.sub_type)
    )


def line_bytes(typed: TypedTensor) -> int:
    """What a tensor takes in the header."""
    return len(_line(typed))


def _line(typed: TypedTensor) -> bytes:
    shape = typed.tensor.shape
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return (
        _string(typed.tensor.name)
        + sizes
        + struct.pack("<IQ", gguf.GGMLQuantizationType[typed.type], typed.offset)
    )


def _value(value: Any, kind: gguf.GGUFValueType, sub: gguf.GGUFValueType | None) -> bytes:
    if kind == gguf.GGUFValueType.STRING:
        return _string(value)
    if kind == gguf.GGUFValueType.ARRAY:
        return _array(value, sub)
    return struct.pack(_SCALARS[kind], value)


def _array(values: Sequence[Any], sub: gguf.GGUFValueType | None) -> bytes:
    """An array of one type; without `sub` the first element decides, as in the gguf package."""
    kind = sub if sub is not None else gguf.GGUFValueType.get_type(values[0])
    head = struct.pack("<IQ", kind, len(values))
    if kind == gguf.GGUFValueType.STRING:
        return head + b"".join(map(_string, values))
    return head + struct.pack(f"<{len(values)}{_SCALARS[kind][1]}", *values)


def _string(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _LENGTH.pack(len(data)) + data
