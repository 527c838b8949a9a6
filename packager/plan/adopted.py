"""What a runtime says of a model that somebody else has converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from packager.json_values import JsonObject
from packager.recipe import Recipe
from packager.runtime import Runtime
from packager.shape import Shape


@dataclass(frozen=True)
class Adopted:
    """A model that somebody else has converted, as a runtime found it.

    `runtime` is an adapter that offers the model as it is and nothing else, in its one `recipe`.
    `attest` is a job that compares it with what its checkpoint gives, None where there is none:
    `(report, *, files, checkpoint, recipe, imatrix, out)`, see targets.gguf.attest and
    packager.plan.attested. `files` are the
    model's, `describe` is `module:function`, a job `(report, *, files, out)` that
    writes the texts of a checkpoint into `out` (packager.checkpoint.described). `model_types` are
    those whose checkpoints become such a file. `says` are the model's own words about itself:
    `name`, `base_models[]` and `repo` as OWNER/NAME, `license`, `quantized_by`; none of it is
    proved. `types` counts tensors by type. `untold` are fields of the shape that the model does not
    tell.
    """

    runtime: Runtime
    recipe: Recipe
    shape: Shape
    files: tuple[Path, ...]
    name: str
    kind: Literal["gguf", "openvino", "onnx"]
    describe: str
    model_types: tuple[str, ...]
    chats: bool
    attest: str | None = None
    says: JsonObject = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    untold: frozenset[str] = frozenset()

    @property
    def place(self) -> Path:
        """What a person names: the file, or the folder of a model that is several."""
        return self.files[0] if self.kind == "gguf" else self.files[0].parent


_CLASSES = ((14, "16-bit"), (8, "8-bit"), (6, "6-bit"), (5, "5-bit"), (4, "4-bit"), (3, "3-bit"))


def grade_of(bits_per_weight: float) -> str:
    """The class of the quality gate of a mixture of its own: it has to keep what that class
    keeps."""
    return next((grade for bits, grade in _CLASSES if bits_per_weight >= bits), "2-bit")


def mixture_of(types: Mapping[str, int]) -> str:
    """The summary of a recipe that is none of those built here: tensors by type."""
    counts = ", ".join(f"{count} {kind}" for kind, count in types.items())
    return f"its own mixture of types: {counts}"


@runtime_checkable
class Adopts(Protocol):
    """What a Runtime has besides where it takes models that somebody else has converted."""

    def adopt(self, place: Path) -> Adopted | None:
        """The model at that place; None where it is none of this runtime's. Raises PackError: exit
        code 2 where the place holds several, 6 for one that no engine should be shown."""
