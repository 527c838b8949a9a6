"""The oldest OpenVINO that reads an artifact written here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from packager.package.floor import Floor, read
from packager.records.contents import Minimum
from packager.shape import Shape, as_qwen2

_LAYER = re.compile(
    rb'<layer [^>]*type="(?P<type>[A-Za-z0-9_]+)" version="(?P<set>opset[0-9]+|extension)"'
)
_TEXT = "generate"


def minimum(artifact: Path, shape: Shape) -> tuple[Minimum, ...]:
    """See packager.package.floor.HasFloor: openvino for the IRs, openvino-tokenizers for the
    tokenizer's operations, and for text openvino-genai for the architecture."""
    sets: set[str] = set()
    operations: set[str] = set()
    for path in sorted(artifact.glob("*.xml")):
        # Of a line each: an IR of a large model has tens of thousands of layers.
        with path.open("rb") as lines:
            for line in lines:
                for layer in _LAYER.finditer(line):
                    kind, name = layer["set"].decode(), layer["type"].decode()
                    if kind == "extension":
                        operations.add(name)
                    else:
                        sets.add(kind)
    newest = max(sets, key=lambda name: int(name.removeprefix("opset")), default=None)
    rows = data().minimum([("opset", newest)] if newest else [])
    rows += data().minimum(
        sorted(("operation", name) for name in operations), "openvino-tokenizers"
    )
    if shape.task == _TEXT:
        model_type = as_qwen2(shape).model_type
        rows += data().minimum([("architecture", model_type)], "openvino-genai")
    return rows


@cache
def data() -> Floor:
    """What is known of OpenVINO's releases."""
    return read(Path(__file__).with_name("floor.toml"))
