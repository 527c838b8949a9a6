"""Recipe: one runtime, one weight quantization, one key-value cache type."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from packager.errors import usage
from packager.json_values import JsonObject, at_or_none

IMATRIX = "imatrix"
"""The mark of a recipe with an importance matrix."""
TYPES = "types_"
"""Beginning of the mark of a recipe with types of single tensors; a digest of them follows."""
REPACK = "repack"
"""The mark of a recipe that takes over the groups of a quantized checkpoint as they are; also the
setting that says so."""
GROUP = "repack_group"
"""The setting with the columns that share a scale in the checkpoint, where that is known."""
PUBLISHED_GROUP = 128
"""Of the Int4 and AWQ repositories of Qwen. Source: config.json of Qwen/Qwen2.5-7B-Instruct-AWQ and
of Qwen/Qwen-7B-Chat-Int4 (group_size)."""
ADAPTERS = "adapters"
"""The mark of a recipe whose graph has inputs for the matrices of an adapter."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`prefix:weights`, and `/kv_TYPE` behind it where the cache type is not the runtime's default.

    `runtime` is the name the registry knows; `prefix` the short word of the recipe id, e.g. `gguf`
    for llama.cpp. `kv_bits` counts the scales of a quantized cache too (q8_0: 8.5). `settings` hold
    what the runtime needs to build it, in full: they go into the manifest. `grade` is the class
    whose losses the quality gate allows it, e.g. `4-bit`; None enforces nothing. `provider` is the
    execution provider it is built for, where the runtime has several (cpu, cuda, dml, webgpu).
    `marks` stand behind the id for what the user added to the recipe (an importance matrix, types
    of single tensors).
    """

    runtime: str
    prefix: str
    weights: str
    kv: str
    kv_bits: float
    summary: str
    default_kv: bool = True
    settings: JsonObject = field(default_factory=dict)
    provider: str | None = None
    grade: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name people type, e.g. `gguf:Q4_K_M` or `gguf:Q4_K_M/kv_q8_0`."""
        base = f"{self.prefix}:{self.weights}"
        return "/".join((base, *(() if self.default_kv else (f"kv_{self.kv}",)), *self.marks))

    def added(self, mark: str, **settings: Any) -> Recipe:
        """The same with something of the user's in it."""
        return replace(self, marks=(*self.marks, mark), settings={**self.settings, **settings})

    def with_kv(self, kv: str, bits: float) -> Recipe:
        """The same weights with another cache type."""
        return replace(self, kv=kv, kv_bits=bits, default_kv=False)


def repacked_recipe(recipe: Recipe, group: int | None) -> Recipe:
    """The recipe with what a checkpoint stores in groups of 4 bits taken over; `group` columns
    share a scale where that is known."""
    summary = f"{recipe.summary}; groups of 4 bits as the checkpoint stores them"
    known = {} if group is None else {GROUP: group}
    return replace(recipe.added(REPACK, repack=True, **known), summary=summary)


def repacked_group(recipe: Recipe) -> int | None:
    """Columns that share a scale in the matrices of the layers that a recipe takes over: those of
    the checkpoint, else as most are published. None for a recipe that takes nothing over."""
    if recipe.settings.get(REPACK) is not True:
        return None
    return at_or_none(recipe.settings, GROUP, int) or PUBLISHED_GROUP


def split_id(text: str) -> tuple[str, str, str | None]:
    """`gguf:Q4_K_M/kv_q8_0` -> ("gguf", "Q4_K_M", "q8_0"). Raises PackError for anything else.

    Marks behind it are passed over: they stand for files and patterns that an id does not hold; see
    packager.plan.additions.
    """
    head, *more = text.split("/")
    prefix, colon, weights = head.partition(":")
    kv = [part for part in more if part.startswith("kv_") and len(part) > 3]
    if (
        not (colon and prefix and weights)
        or len(kv) > 1
        or len(kv) + len(marks_of(text)) != len(more)
    ):
        raise usage(
            f"{text!r} is not a recipe.",
            "Write RUNTIME:WEIGHTS, for example gguf:Q4_K_M or openvino:int4_sym_g128.",
        )
    return prefix, weights, kv[0].removeprefix("kv_") if kv else None


def marks_of(text: str) -> list[str]:
    """The marks of a recipe's id."""
    return [
        part
        for part in text.split("/")[1:]
        if part in (IMATRIX, REPACK, ADAPTERS) or part.startswith(TYPES)
    ]
