"""An ONNX graph: operators of the known domains only, weights in files of the package only.

The few fields that matter are read from protobuf's own encoding, so that no engine is needed to
look. Field numbers: github.com/onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packager.inspection.rules import rules
from packager.inspection.unsafe import Unsafe, shown, whole

_GRAPH, _OPSET_IMPORT, _TRAINING, _FUNCTIONS = 7, 8, 20, 25
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15
_OP_TYPE, _ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_T, _G, _TENSORS, _GRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LARGEST_KEY = 0xFFFF_FFFF
_DEEPEST = 16  # graphs within graphs

_Fields = Iterator[tuple[int, int | memoryview]]


def refuse(data: memoryview, beside: Mapping[str, int]) -> None:
    """Raise Unsafe for a graph that runs more than known operators. `beside` maps the files in its
    folder to their bytes."""
    graphs = 0
    for field, value in _fields(data):
        if field in (_TRAINING, _FUNCTIONS):
            raise Unsafe("defines functions, which no package of qwen-pack has")
        if field == _OPSET_IMPORT:
            _domain(_text_of(_bytes(value), 1))
        elif field == _GRAPH:
            graphs += 1
            _graph(_bytes(value), beside, 0)
    if graphs != 1:
        raise Unsafe("is not an ONNX graph")


def _graph(data: memoryview, beside: Mapping[str, int], depth: int) -> None:
    if depth > _DEEPEST:
        raise Unsafe(f"has more than {_DEEPEST} graphs within one another")
    for field, value in _fields(data):
        if field == _NODE:
            _node(_bytes(value), beside, depth)
        elif field == _INITIALIZER:
            _tensor(_bytes(value), beside)
        elif field == _SPARSE_INITIALIZER:
            _sparse(_bytes(value), beside)


def _node(data: memoryview, beside: Mapping[str, int], depth: int) -> None:
    operator = domain = ""
    for field, value in _fields(data):
        if field == _OP_TYPE:
            operator = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field == _ATTRIBUTE:
            _attribute(_bytes(value), beside, depth)
    _domain(domain)
    if domain == "com.microsoft" and operator not in rules().microsoft_operators:
        raise Unsafe(
            f"uses the operator {shown(f'{domain}.{operator}')}, which no package of qwen-pack has"
        )


def _attribute(data: memoryview, beside: Mapping[str, int], depth: int) -> None:
    for field, value in _fields(data):
        if field in (_T, _TENSORS):
            _tensor(_bytes(value), beside)
        elif field in (_SPARSE, _SPARSES):
            _sparse(_bytes(value), beside)
        elif field in (_G, _GRAPHS):
            _graph(_bytes(value), beside, depth + 1)


def _sparse(data: memoryview, beside: Mapping[str, int]) -> None:
    for field, value in _fields(data):
        if field in (1, 2):
            _tensor(_bytes(value), beside)


def _tensor(data: memoryview, beside: Mapping[str, int]) -> None:
    outside: dict[str, str] = {}
    for field, value in _fields(data):
        if field == _EXTERNAL_DATA:
            key, text = _text_of(_bytes(value), 1), _text_of(_bytes(value), 2)
            if key in outside:
                raise Unsafe("names the place of a tensor twice")
            outside[key] = text
        elif field == _DATA_LOCATION and value not in (0, 1):
            raise Unsafe("has a tensor at an unknown place")
    if outside:
        _place(outside, beside)


def _place(outside: dict[str, str], beside: Mapping[str, int]) -> None:
    location = outside.get("location", "")
    if location not in beside:
        raise Unsafe(
            f"takes weights from {shown(location)}, which is not a file of the package next to it"
        )
    offset, length = (whole(outside.get(name) or "0") for name in ("offset", "length"))
    if offset is None or length is None:
        raise Unsafe("has a tensor whose place is not a number")
    if offset + length > beside[location]:
        raise Unsafe(
            f"takes weights from outside of {shown(location)} ({offset} and {length} bytes)"
        )


def _domain(name: str) -> None:
    if name not in rules().onnx_domains:
        raise Unsafe(f"uses operators of the domain {shown(name)}, which needs an extra library")


def _text_of(data: memoryview, wanted: int) -> str:
    """The text in one field of a message; the last one counts, as in protobuf."""
    text = ""
    for field, value in _fields(data):
        if field == wanted:
            text = _text(value)
    return text


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "surrogateescape")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Unsafe("is not an ONNX graph")
    return value


def _fields(data: memoryview) -> _Fields:
    """Field numbers with their values: the bytes of what has a length, an integer for everything
    else, which is never taken for a text."""
    offset, size = 0, len(data)
    while offset < size:
        key, offset = _varint(data, offset)
        if key > _LARGEST_KEY:
            # Protobuf's own readers drop the upper bits: they would see another field.
            raise Unsafe("is not an ONNX graph")
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, offset = _varint(data, offset)
            yield field, value
            continue
        if wire == _LENGTH:
            length, offset = _varint(data, offset)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise Unsafe("is not an ONNX graph")
        if field == 0 or length > size - offset:
            raise Unsafe("is not an ONNX graph, or is incomplete")
        piece = data[offset : offset + length]
        yield field, piece if wire == _LENGTH else int.from_bytes(piece, "little")
        offset += length


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[offset : offset + 10]:
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset
    raise Unsafe("is not an ONNX graph, or is incomplete")
