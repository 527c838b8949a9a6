"""A GGUF that somebody else wrote, offered as it is: its own types, its own bytes.

Importing this imports the gguf package: only a build that adopts a file does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf

from packager.errors import PackError, usage
from packager.escapes import line
from packager.json_values import JsonDict, JsonObject
from packager.plan.adopted import Adopted, grade_of, mixture_of
from packager.recipe import IMATRIX, Recipe
from packager.records.contents import Minimum
from packager.runtime import BuildNeeds
from packager.shape import Shape
from targets.gguf import given_types
from targets.gguf.given import Given, read_given
from targets.gguf.given_shape import ARCHITECTURES, shape_of
from targets.gguf.given_types import MIXED, Known
from targets.gguf.layers import Layers
from targets.gguf.presets import DEFAULT_KV, KV_BITS
from targets.gguf.sizes import Sizes
from targets.llama_cpp import LlamaCpp, memory

_HUB = "https://huggingface.co/"
_REPOSITORY = re.compile(r"[\w-][\w.-]{0,99}/[\w-][\w.-]{0,99}", re.ASCII)
_LONGEST = 200
"""Characters of what a file says of itself, in a manifest."""


def adopt(path: Path) -> Adopted:
    """The model whose first file that is. Raises PackError as packager.plan.adopted.Adopts."""
    given = read_given(path)
    if pooling_of(given) == gguf.PoolingType.RANK:
        # It has a head, which no text generator has.
        raise pooled(given)
    shape = shape_of(given)
    known = given_types.recognised(given, shape)
    runtime: Any = AdoptedGguf(given, shape, known)
    return Adopted(
        runtime=runtime,
        recipe=_recipe(given, known),
        shape=shape,
        files=given.files,
        name=given.name,
        kind="gguf",
        describe="targets.llama_cpp.adopt:describe",
        model_types=ARCHITECTURES[str(given.head.text("general.architecture"))],
        chats=given.head.text("tokenizer.chat_template") is not None,
        attest="targets.gguf.attest:attest",
        says=_says(given),
        types=known.counts,
    )


def pooling_of(given: Given) -> float | None:
    """How the file says that states are pooled, by llama.cpp's number; None where they are not."""
    architecture = given.head.text("general.architecture")
    return given.head.number(f"{architecture}.pooling_type") or None


def pooled(given: Given) -> PackError:
    """Of a file that makes vectors or scores."""
    return usage(
        f"{given.files[0]} pools the states of its tokens, so it makes vectors or scores and no "
        "text.",
        "Build an embedder or a reranker from its checkpoint, with --use-case embed or rerank.",
    )


class AdoptedGguf(LlamaCpp):
    """The adapter with the one recipe of one file; sizes are those of the file."""

    build_job = "targets.llama_cpp.adopt:take"

    def __init__(self, given: Given, shape: Shape, known: Known) -> None:
        super().__init__()
        self.engine = LlamaCpp()
        self._given, self._shape, self._known = given, shape, known

    def recipes(self) -> Sequence[Recipe]:
        """The file's own."""
        return [_recipe(self._given, self._known)]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The file's own, with that cache type. Raises PackError (usage) for another one."""
        own = _recipe(self._given, self._known)
        if weights != own.weights:
            raise usage(
                f"{self._given.files[0].name} is {own.id}, not gguf:{weights}.",
                "Leave --recipe out: the file is taken as it is.",
            )
        if kv is None or kv == DEFAULT_KV:
            return own
        bits = super().recipe("Q8_0", kv).kv_bits
        return own.with_kv(kv, bits)

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """As for what is converted here; and no other shape."""
        if replace(shape, model_type=self._shape.model_type, context=0) != replace(
            self._shape, context=0
        ):
            return f"{self._given.files[0].name} holds another decoder."
        if recipe.kv != DEFAULT_KV:
            return super().obstacle(shape, LlamaCpp().recipe("F16", recipe.kv))
        return None

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The files'."""
        return self._given.size

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """A copy."""
        return BuildNeeds(memory.constants().build["memory_bytes"], self._given.size)

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The files are not split again."""
        return max(header.size for header in self._given.headers)

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """As for what is converted here; empty where the file holds what nothing is known of."""
        with suppress(PackError):
            return super().minimum(artifact, shape, recipe, facts)
        return ()

    def _sizes(self, shape: Shape, recipe: Recipe) -> Sizes:
        return given_types.sizes_of(self._given)

    def _layers(self, shape: Shape, recipe: Recipe) -> Layers:
        return given_types.layers_of(self._given, self._shape, self._known.types)


def _recipe(given: Given, known: Known) -> Recipe:
    settings: JsonDict = {"adopted": True, "types": known.counts}
    if known.preset is not None:
        own = LlamaCpp().recipe(known.preset.name)
        name, summary, grade = own.weights, own.summary, own.grade
        settings["file_type"] = own.settings["file_type"]
    else:
        name, summary = MIXED, mixture_of(known.counts)
        grade = grade_of(given.bits_per_weight)
    recipe = Recipe(
        *("llama.cpp", "gguf", name, DEFAULT_KV, KV_BITS[DEFAULT_KV], summary),
        settings=settings,
        grade=grade,
    )
    told = given_types.imatrix_of(given)
    if told is not None:
        return recipe.added(IMATRIX, importance=told)
    return recipe.added(IMATRIX) if known.imatrix else recipe


def _says(given: Given) -> JsonObject:
    """The file's own words about itself."""
    head = given.head
    count = head.number("general.base_model.count")
    bases = [
        _repository(head.text(f"general.base_model.{number}.repo_url"))
        for number in range(min(int(count or 0), 8))
    ]
    # Any: what a file from outside says, as JSON.
    told: dict[str, Any] = {
        "name": head.text("general.name"),
        "base_models": [base for base in bases if base],
        "repo": _repository(head.text("general.source.repo_url") or head.text("general.repo_url")),
        "license": head.text("general.license"),
        "quantized_by": head.text("general.quantized_by"),
        "file_type": head.number("general.file_type"),
        "importance": given_types.imatrix_of(given),
    }
    told |= {key: line(text)[:_LONGEST] for key, text in told.items() if isinstance(text, str)}
    return {key: value for key, value in told.items() if value not in (None, [])}


def _repository(address: str | None) -> str | None:
    """OWNER/NAME of an address on the hub; None for any other."""
    if not address or not address.startswith(_HUB):
        return None
    name = "/".join(address.removeprefix(_HUB).split("/")[:2])
    return name if _REPOSITORY.fullmatch(name) else None
