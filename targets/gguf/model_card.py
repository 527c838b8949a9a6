"""The front matter of a checkpoint's README.md, as far as it is clean YAML.

The gguf package reads it whole and lets any fault in it end the conversion. A card only names the
model: one that is no clean YAML, or more of it than a card has, counts as none, and a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from packager.checkpoint.folder import safe_files
from packager.errors import PackError
from packager.limits import CARD_BYTES, FRONT_MATTER_BYTES, YAML_DEPTH, YAML_EVENTS

_NAME = "README.md"


@dataclass(frozen=True, slots=True)
class Card:
    """`entries` of the front matter; `unread` says why there are none though there is a card."""

    entries: Mapping[str, Any] = field(default_factory=dict)
    unread: str | None = None

    @property
    def note(self) -> str | None:
        """What whoever builds is told; None where nothing was passed over."""
        if self.unread is None:
            return None
        return (
            f"{_NAME} is passed over: {self.unread}. Name, licence and base model come from "
            "elsewhere."
        )


def read(folder: Path) -> Card:
    """The card in `folder`/README.md. A file without front matter is none."""
    try:
        safe_files(folder, [_NAME])
        if (folder / _NAME).stat().st_size > CARD_BYTES:
            return Card(unread=f"it has more than {CARD_BYTES} bytes")
        lines = (folder / _NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return Card()
    except PackError:
        return Card(unread="it is not a file of this folder")
    except (OSError, UnicodeDecodeError):
        return Card(unread="it is not readable UTF-8 text")
    if not lines or lines[0] != "---":
        return Card()
    if "---" not in lines[1:]:
        return Card(unread="its front matter has no end")
    text = "\n".join(lines[1 : lines.index("---", 1)]) + "\n"
    if len(text) > FRONT_MATTER_BYTES:
        return Card(unread=f"its front matter has more than {FRONT_MATTER_BYTES} characters")
    # Like the gguf package: Norwegian is no "no", and a tab is two spaces.
    return _parsed(text.replace("- no\n", '- "no"\n').replace("\t", "  "))


def _parsed(text: str) -> Card:
    depth = 0
    try:
        # An alias may stand for what holds aliases itself: ten lines for a billion values.
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if number > YAML_EVENTS or depth > YAML_DEPTH or isinstance(event, yaml.AliasEvent):
                return Card(unread="its front matter is larger or more nested than that of a model")
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The first line of the file stands before the text.
        where = f" at line {error.problem_mark.line + 2}" if error.problem_mark else ""
        return Card(unread=f"its front matter is not YAML{where}")
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        return Card(unread="its front matter is not YAML")
    if not isinstance(value, dict):
        return Card(unread="its front matter is not a table of keys")
    kept = {key: _plain(entry) for key, entry in value.items() if isinstance(key, str)}
    try:
        json.dumps(kept, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Card(unread="its front matter holds half a surrogate pair, which is not text")
    return Card({key: entry for key, entry in kept.items() if entry is not None})


def _plain(value: Any) -> str | list[str] | None:
    """A text, a number as text, or a list of them; None for what the keys of a GGUF cannot say."""
    if isinstance(value, list):
        texts = [_plain(entry) for entry in value]
        return [text for text in texts if isinstance(text, str)]
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return str(value)
    return None
