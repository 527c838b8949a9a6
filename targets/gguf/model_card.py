"""The front matter of a checkpoint's README.md, as far as it is clean YAML.

The gguf package reads it whole and lets any fault in it end the conversion. A card only names the
model: one that is no clean YAML, or more of it than a card has, counts as none.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from packager.json_values import JsonObject
from packager.limits import CARD_BYTES, FRONT_MATTER_BYTES, YAML_DEPTH, YAML_EVENTS

_NAME = "README.md"


def front_matter(folder: Path) -> JsonObject:
    """The front matter of `folder`/README.md; empty where there is none that can be read."""
    try:
        status = (folder / _NAME).stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > CARD_BYTES:
            return {}
        lines = (folder / _NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    text = "\n".join(lines[1 : lines.index("---", 1)]) + "\n"
    # Like the gguf package: Norwegian is no "no", and a tab is two spaces.
    text = text.replace("- no\n", '- "no"\n').replace("\t", "  ")
    return _parsed(text) if len(text) <= FRONT_MATTER_BYTES else {}


def _parsed(text: str) -> JsonObject:
    depth = 0
    try:
        # An alias may stand for what holds aliases itself: ten lines for a billion values.
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if number > YAML_EVENTS or depth > YAML_DEPTH or isinstance(event, yaml.AliasEvent):
                return {}
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        return {}
    if not isinstance(value, dict):
        return {}
    kept = {key: _plain(entry) for key, entry in value.items() if isinstance(key, str)}
    return {key: entry for key, entry in kept.items() if entry is not None}


def _plain(value: Any) -> str | list[str] | None:
    """A text, a number as text, or a list of them; None for what the keys of a GGUF cannot say."""
    if isinstance(value, list):
        texts = [_plain(entry) for entry in value]
        return [text for text in texts if isinstance(text, str)]
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return str(value)
    return None
