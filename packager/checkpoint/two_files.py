"""tokenizer.json of a checkpoint that has vocab.json and merges.txt in its place, as the published
Qwen3-ASR has: what Qwen2Tokenizer of transformers makes of the two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packager.checkpoint.added_tokens import LISTED
from packager.checkpoint.byte_level_bpe import definition
from packager.checkpoint.folder import read_json, read_text
from packager.errors import bad_input
from packager.foreign import parse_json
from packager.json_values import JsonDict, JsonObject, as_object, object_at, object_or_empty

VOCABULARY, MERGES = "vocab.json", "merges.txt"
_VERSION = "#version"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def has_two(files: Mapping[str, Path]) -> bool:
    """Whether the two stand in place of tokenizer.json among a checkpoint's files."""
    return "tokenizer.json" not in files and VOCABULARY in files and MERGES in files


def definition_of(files: Mapping[str, Path], tokenizer_config: JsonObject) -> JsonObject:
    """The content of a tokenizer.json: tokens, merges, and the added tokens that
    tokenizer_config.json lists. Raises PackError (exit code 6) naming the file that is none."""
    vocab, path = read_json(files[VOCABULARY]), files[MERGES]
    # Line ends of any system; a token may hold what Unicode takes for one.
    lines = [line.rstrip("\r") for line in read_text(path).split("\n")]
    merges = [line.split(" ") for line in lines if line and not line.startswith(_VERSION)]
    if any(len(pair) != 2 for pair in merges):
        raise bad_input(f"{path} has a line that is not two tokens.", "Fetch it again.")
    listed, rows = object_or_empty(tokenizer_config, LISTED), list[JsonDict]()
    for number in sorted(listed, key=int):
        entry = object_at(listed, number)
        flags = {flag: bool(entry.get(flag)) for flag in _FLAGS}
        rows.append({"id": int(number), "content": entry["content"], **flags})
    whole = {token: number for token, number in vocab.items() if isinstance(number, int)}
    made = definition(whole, merges, rows)
    return as_object(parse_json(made, str(files[VOCABULARY]), "Fetch it again."), VOCABULARY)
