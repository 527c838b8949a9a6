"""How far the texts of a converted model are from those of a checkpoint: its configuration and its
tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.escapes import line
from packager.json_values import JsonObject, JsonValue

_DESCRIPTION = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
"""Keys of config.json that describe the file and say nothing of its network."""
_SHOWN = 120


def texts_that_differ(files: Mapping[str, Path], checkpoint: Checkpoint) -> JsonObject:
    """Keys of config.json that a folder has otherwise than the checkpoint, and parts of its
    tokenizer that are others, as `network` and `description`: lists of `key`, `file` and
    `recipe`, what the checkpoint has. Raises PackError (exit code 6) for what cannot be read."""
    try:
        return _texts_that_differ(files, checkpoint)
    except RecursionError:
        # What json.loads still takes may be too deep for whatever goes through it afterwards.
        raise bad_input(
            f"A text of {next(iter(files.values())).parent} is nested too deeply to be compared.",
            "Get the folder again from where it was published.",
        ) from None


def _texts_that_differ(files: Mapping[str, Path], checkpoint: Checkpoint) -> JsonObject:
    network: list[JsonObject] = []
    description: list[JsonObject] = []
    if "config.json" in files:
        mine, other = read_json(files["config.json"]), checkpoint.config
        for key in sorted({*mine, *other}):
            if mine.get(key) != other.get(key):
                # What one of them leaves out is written or left out by whatever saved it.
                both = mine.get(key) is not None and other.get(key) is not None
                row = _row(key, mine.get(key), other.get(key))
                (network if both and key not in _DESCRIPTION else description).append(row)
    theirs = checkpoint.files.get("tokenizer.json")
    if "tokenizer.json" in files and theirs is not None:
        mine, other = read_json(files["tokenizer.json"]), read_json(theirs)
        network += [
            _row(f"tokenizer.json {key}", mine.get(key), other.get(key))
            for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")
            if _without_offsets(mine.get(key)) != _without_offsets(other.get(key))
        ]
    return {"network": network, "description": description}


def _without_offsets(value: JsonValue) -> JsonValue:
    """A part of a tokenizer without what says where a token stands in the text: whoever saves it
    again sets that, and no token is another for it."""
    if isinstance(value, dict):
        return {key: _without_offsets(row) for key, row in value.items() if key != "trim_offsets"}
    return [_without_offsets(row) for row in value] if isinstance(value, list) else value


def _row(key: str, mine: JsonValue, other: JsonValue) -> JsonObject:
    return {"key": line(key), "file": _shown(mine), "recipe": _shown(other)}


def _shown(value: JsonValue) -> str | None:
    """A value as it fits into a line; of a large one, how many items it has."""
    if value is None:
        return None
    if isinstance(value, dict | list) and len(str(value)) > _SHOWN:
        return f"{len(value)} items"
    return line(str(value))[:_SHOWN]
