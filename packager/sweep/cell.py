"""One cell of the matrix: what is built, in which form, for which target."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from packager.digests import key_of
from packager.names import plain_name

DEFAULT = "default"
"""The recipe's own cache type, and the profile that fixes nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Coordinates of one build.

    `variant` is a repository id of the catalogue, or the absolute path of a local checkpoint, and
    then `local`. `recipe` is an id without its cache type, `kv` the type or "default". `context` is
    in tokens, None for the target's own. `target` is a name or the path of a device file, `profile`
    the path of a profile file or "default". `lora` are adapters that are merged into the
    weights, as `--lora` takes them.
    """

    variant: str
    recipe: str
    target: str
    kv: str = DEFAULT
    context: int | None = None
    profile: str = DEFAULT
    local: bool = False
    lora: tuple[str, ...] = ()

    @property
    def weights(self) -> str:
        """What is converted: cells with the same differ in their form alone."""
        return "\n".join((self.variant, *self.lora))

    @property
    def adapters(self) -> str:
        """The adapters in a line of text; empty without any."""
        return " + ".join(_adapter(spec) for spec in self.lora)

    @property
    def short(self) -> str:
        """The variant's short name: the end of the repository id or of the path."""
        return plain_name(Path(self.variant).name) if self.local else self.variant.split("/")[-1]

    @property
    def recipe_id(self) -> str:
        """The recipe with its cache type, as `--recipe` takes it."""
        return self.recipe if self.kv == DEFAULT else f"{self.recipe}/kv_{self.kv}"

    @property
    def id(self) -> str:
        """A name for files, the same in every run: readable, and told apart by a digest."""
        words = [self.short, *map(_adapter, self.lora), self.recipe_id, Path(self.target).stem]
        words += [str(self.context)] if self.context else []
        name = "-".join(plain_name(word.replace(":", "-").replace("/", "-")) for word in words)
        # A folder's name has at most 255 bytes everywhere, and temporaries stand beside it.
        short = name.lower().encode()[:120].decode(errors="ignore").rstrip(" .")
        # A cell without adapters has the name that it had before there were any.
        known = {key: value for key, value in asdict(self).items() if key != "lora" or value}
        return f"{short}-{key_of(known)[:10]}"

    @property
    def label(self) -> str:
        """The cell in a line of text."""
        words = [self.short]
        words += [f"with {self.adapters}"] if self.lora else []
        words += [self.recipe_id]
        words += [f"context {self.context}"] if self.context else []
        words += [] if self.profile == DEFAULT else [Path(self.profile).stem]
        return f"{' '.join(words)} for {Path(self.target).stem}"

    # Any: JSON, written to the rows of a sweep.
    def to_json(self) -> dict[str, Any]:
        """JSON form, one key per field."""
        return {**asdict(self), "lora": list(self.lora)}

    # Any: JSON of such a row.
    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cell:
        """From what `to_json` gave. Raises ValueError for anything else."""
        kinds = {"context": (int, type(None)), "local": (bool,), "lora": (tuple,)}
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or set(data) - set(names):
            raise ValueError("is not a cell")
        lora = data.get("lora", [])
        if not isinstance(lora, list) or not all(isinstance(spec, str) for spec in lora):
            raise ValueError("is not a cell")
        data = {**data, "lora": tuple(lora)}
        cell = cls(**data) if {"variant", "recipe", "target"} <= set(data) else None
        if cell is None or not all(
            isinstance(getattr(cell, name), kinds.get(name, (str,))) for name in names
        ):
            raise ValueError("is not a cell")
        return cell


def _adapter(spec: str) -> str:
    """The name of an adapter: the end of its folder or repository, with its scale."""
    return plain_name(Path(spec).name.replace(":", "-"))
