"""What is asked of the quality gate by whoever builds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packager.json_values import JsonObject
from packager.quality import text, thresholds
from packager.quality.text import Text


@dataclass(frozen=True)
class Gate:
    """`file` is read in place of the text that ships with qwen-pack, `tokens` of it in place of the
    number that suits the size.

    With `allow_loss` a package is written although it lost more than its recipe may; the manifest
    says so.
    """

    file: Path | None = None
    tokens: int | None = None
    allow_loss: bool = False

    @cached_property
    def text(self) -> Text:
        """What is read. Raises PackError for a file that is not text."""
        return text.shipped() if self.file is None else text.of_file(self.file)

    def tokens_for(self, parameters: int) -> int:
        """How many tokens are read for a model of so many weights."""
        return self.tokens or thresholds.tokens_for(parameters)

    def as_dict(self) -> JsonObject:
        """JSON form, by the text's content."""
        return {"text": self.text.sha256, "tokens": self.tokens, "allow_loss": self.allow_loss}
