"""A graph of OpenVINO: operations of its own sets and of its tokenizers, constants within its own
weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO
from xml.parsers import expat

from packager.inspection.rules import rules
from packager.inspection.unsafe import Unsafe, shown, whole

_OPSET = re.compile(r"opset[1-9][0-9]?")
_CHUNK = 1 << 20
_DEEPEST = 64


def refuse(file: IO[bytes], weights: int) -> None:
    """Raise Unsafe for a graph that is not safe to load; `weights` are the bytes of the .bin that
    goes with it.

    The file is read as a stream: neither its size nor its depth costs memory.
    """
    graph = _Graph(weights)
    parser = expat.ParserCreate()
    parser.StartElementHandler = graph.start
    parser.EndElementHandler = graph.end
    # Entities could grow without end, or name other files; OpenVINO writes none.
    parser.StartDoctypeDeclHandler = graph.doctype
    parser.EntityDeclHandler = graph.doctype
    try:
        while chunk := file.read(_CHUNK):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Unsafe(f"is not valid XML ({shown(error)})") from None


class _Graph:
    """What the parser reports, element by element."""

    def __init__(self, weights: int) -> None:
        self._weights = weights
        self._path: list[str] = []
        self._layers: list[str] = []  # the operations that are open, one within another

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if not self._path and name != "net":
            raise Unsafe(f"is not an OpenVINO graph: it begins with {shown(name)}")
        if len(self._path) >= _DEEPEST:
            raise Unsafe(f"has more than {_DEEPEST} elements within one another")
        above = self._path[-1] if self._path else ""
        if above == "runtime_options" and name not in rules().runtime_options:
            raise Unsafe(f"asks its device for {shown(name)}, which is not allowed")
        self._path.append(name)
        if name == "layer":
            self._operation(attributes)
        elif name == "data" and above == "layer":
            self._constant(attributes)

    def end(self, name: str) -> None:
        """An element ends."""
        self._path.pop()
        if name == "layer":
            self._layers.pop()

    def doctype(self, *_: object) -> None:
        """A document type or an entity is declared."""
        raise Unsafe("declares a document type or entities")

    def _operation(self, attributes: Mapping[str, str]) -> None:
        kind = attributes.get("type", "")
        self._layers.append(kind)
        version = attributes.get("version", "")
        if version == "extension" and kind in rules().openvino_extension:
            return
        if not _OPSET.fullmatch(version):
            raise Unsafe(
                f"uses the operation {shown(f'{version}.{kind}')}, which needs an extra library"
            )

    def _constant(self, attributes: Mapping[str, str]) -> None:
        if "offset" not in attributes:
            return
        if self._layers[-1] != "Const" and "size" not in attributes:
            return
        offset, size = whole(attributes["offset"]), whole(attributes.get("size", "0"))
        if offset is None or size is None:
            raise Unsafe("has a constant whose place is not a number")
        if offset + size > self._weights:
            raise Unsafe(f"has a constant at {offset} with {size} bytes, outside of its weights")
