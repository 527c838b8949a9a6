"""Shape: a text decoder, with what follows from its widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from packager.json_values import JsonObject
from packager.shape.model import Widths
from packager.shape.tensors import parameters


@dataclass(frozen=True, slots=True, eq=False)
class Shape(Widths):
    """A text decoder of any Qwen generation; equal to another as its widths are."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """The shape that a Hugging Face config.json describes; a PackError (exit code 6) names
        `where` and the key."""
        # Late, as in to_config: the catalogue's shapes are read without any config.json.
        from packager.shape.from_config import from_config

        return from_config(cls, config, where)

    def to_config(self) -> JsonObject:
        """A config.json of this shape, which transformers reads and `from_config` turns back into
        the same shape."""
        from packager.shape.write_config import to_config

        return to_config(self)

    def parameters(self) -> int:
        """All weights of the text decoder; a tied output matrix counts once."""
        return parameters(self)

    def active_parameters(self) -> int:
        """The weights that one token touches: all but the experts that the router leaves out."""
        if self.experts is None:
            return self.parameters()
        idle = self.experts.count - self.experts.active
        return self.parameters() - self.layers * idle * 3 * self.hidden * self.experts.intermediate
