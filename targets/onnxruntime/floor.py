"""The oldest ONNX Runtime GenAI that reads an artifact written here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from packager.package.floor import Floor, read
from packager.records.contents import Minimum
from packager.shape import Shape, as_qwen2


def minimum(shape: Shape) -> tuple[Minimum, ...]:
    """See packager.package.floor.HasFloor; vectors and scores are made without GenAI, and
    nothing is known of their floor."""
    if shape.task != "generate":
        return ()
    return data().minimum([("architecture", as_qwen2(shape).model_type)])


@cache
def data() -> Floor:
    """What is known of the releases of ONNX Runtime GenAI."""
    return read(Path(__file__).with_name("floor.toml"))
