"""The oldest llama.cpp that reads a GGUF written here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from packager.json_values import JsonObject, at, object_at
from packager.package.floor import Floor, read
from packager.recipe import Recipe
from packager.records.contents import Minimum
from packager.shape import Shape


def minimum(shape: Shape, recipe: Recipe, facts: JsonObject) -> tuple[Minimum, ...]:
    """See packager.package.floor.HasFloor; `facts` of targets.gguf.convert say what the file
    holds."""
    holds = [
        ("format", "gguf-v3"),
        ("architecture", at(facts, "architecture", str)),
        ("pre_tokenizer", at(facts, "pre_tokenizer", str)),
        *(("tensor", name) for name in object_at(facts, "types")),
    ]
    if shape.task == "generate":
        holds.append(("cache", recipe.kv))
    else:
        holds.append(("task", shape.task))
    if "projector" in facts:
        holds.append(("projector", at(object_at(facts, "projector"), "projector", str)))
    return data().minimum(holds)


@cache
def data() -> Floor:
    """What is known of llama.cpp's builds."""
    return read(Path(__file__).with_name("floor.toml"))
