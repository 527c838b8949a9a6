"""The tokenizer as GGUF keeps it: tokens, their types, merges, pre-tokenizer, special ids.

The pre-tokenizer follows from the tokenizer's own definition, so a fine-tune that adds tokens is
recognised as what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packager.checkpoint import two_files
from packager.checkpoint.tokenizer import EXPRESSIONS, check_definition
from packager.errors import bad_input
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonObject, at, at_or_none, object_at, object_or_empty, objects_at
from packager.limits import TEXT_BYTES

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types of GGUF (gguf.TokenType)."""

KNOWN_ENDS = ("<|im_end|>", "<|endoftext|>")
"""Control tokens of Qwen that end a turn for llama.cpp whatever the slots say."""
_SLOTS = 2
_WHOLE = "tokenizer.json"
_FILES = (_WHOLE, two_files.VOCABULARY, two_files.MERGES)

SPECIAL_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

_PRE_TOKENIZERS = dict(zip(EXPRESSIONS, ("qwen2", "qwen35"), strict=True))
"""The splitting expression of tokenizer.json -> what llama.cpp calls it (src/llama-vocab.cpp quotes
both expressions)."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE.

    `tokens` and `types` stand by id, `merges` best first; `special` maps a kind to its id, `add` a
    kind to whether it is added by itself.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    special: dict[str, int] = field(default_factory=dict)
    add: dict[str, bool] = field(default_factory=dict)
    end_of_turn: int | None = None
    end_of_message: int | None = None


def read_vocabulary(folder: Path, config: JsonObject, tokenizer_config: JsonObject) -> Vocabulary:
    """The vocabulary in tokenizer.json, or in vocab.json and merges.txt where those stand in its
    place, as many tokens as the embedding has rows. Raises PackError (bad input) naming the file.
    """
    files = {name: folder / name for name in _FILES if (folder / name).is_file()}
    two = two_files.has_two(files)
    path = files.get(two_files.VOCABULARY if two else _WHOLE)
    if path is None:
        raise bad_input(
            f"{folder} has no tokenizer.json.",
            "Save it from the tokenizer once: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
        )
    try:
        definition: Any = (
            two_files.definition_of(files, tokenizer_config)
            if two
            else parse_json(bounded_bytes(path, TEXT_BYTES), str(path))
        )
        check_definition(path, definition)
        model, added = definition["model"], definition.get("added_tokens") or []
        vocab: dict[str, int] = model["vocab"]
        merges = _merges(model["merges"])
        rows = at(config, "vocab_size", int)
        by_id = {number: token for token, number in vocab.items()}
        extra = _added(added, tokenizer_config)
        pre = pre_tokenizer(definition, path)
        flags = _add_flags(definition, tokenizer_config)
        highest = max((*by_id, *extra), default=-1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_input(
            f"{path} is not a byte-level BPE tokenizer ({type(error).__name__}: {error}).",
            "Fetch it again.",
        ) from error
    if highest >= rows:
        raise bad_input(
            f"{path} has the token id {highest}, but the embedding has only {rows} rows.",
            "Take tokenizer and weights from one revision.",
        )
    tokens, types = [], []
    for number in range(rows):
        text, kind = extra.get(number) or (
            by_id.get(number, f"[PAD{number}]"),
            NORMAL if number in by_id else UNUSED,
        )
        tokens.append(text)
        types.append(kind)
    special = special_ids(
        config, tokenizer_config, {text: number for number, (text, _) in extra.items()}
    )
    return Vocabulary(
        tokens,
        types,
        merges,
        pre,
        special,
        flags,
        end_of_turn(tokens, types),
    )


def pre_tokenizer(definition: JsonObject, path: Path) -> str:
    """llama.cpp's name for the way this tokenizer splits text. Raises PackError (bad input) for an
    unknown one."""
    normalizer = (object_or_empty(definition, "normalizer") or {"type": "NFC"}).get("type")
    stages = _stages(object_or_empty(definition, "pre_tokenizer"), "pretokenizers")
    expressions = [
        at_or_none(object_or_empty(entry, "pattern"), "Regex", str) or ""
        for entry in stages
        if entry.get("type") == "Split"
    ]
    byte_level = any(entry.get("type") == "ByteLevel" for entry in stages)
    name = _PRE_TOKENIZERS.get(expressions[0]) if len(expressions) == 1 else None
    if name is None or not byte_level or normalizer != "NFC":
        raise bad_input(
            f"{path} splits text in a way that llama.cpp has no name for (normalizer {normalizer}, "
            f"expression {expressions or None}).",
            "Qwen's own pre-tokenizers are known; a tokenizer of another family would give wrong "
            "tokens.",
        )
    return name


def _stages(part: JsonObject, key: str) -> list[JsonObject]:
    """The stages of a part of tokenizer.json: those that it lists, or itself."""
    return objects_at(part, key) if key in part else [part]


def special_ids(
    config: JsonObject, tokenizer_config: JsonObject, ids: dict[str, int]
) -> dict[str, int]:
    """Kind -> id: tokenizer_config.json decides, then config.json."""
    found: dict[str, int] = {}
    for kind in SPECIAL_KINDS:
        entry = tokenizer_config.get(f"{kind}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text in ids:
            found[kind] = ids[text]
    for kind in SPECIAL_KINDS:
        number = config.get(f"{kind}_token_id")
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            found.setdefault(kind, number)
    return found


def end_of_turn(tokens: list[str], types: list[int]) -> int | None:
    """The id of ChatML's end of turn, where the vocabulary has it as a control token."""
    for number in range(len(tokens) - 1, -1, -1):
        if types[number] == CONTROL and tokens[number] == "<|im_end|>":
            return number
    return None


def renamed(vocabulary: Vocabulary, names: Mapping[str, str]) -> Vocabulary:
    """The vocabulary with the control tokens of `names` under their other names, but for those that
    it has already: ids stay."""
    taken = set(vocabulary.tokens) if names else set()
    names = {old: new for old, new in names.items() if new not in taken}
    if not names:
        return vocabulary
    return replace(vocabulary, tokens=[names.get(text, text) for text in vocabulary.tokens])


def with_ends(vocabulary: Vocabulary, ends: Sequence[int]) -> Vocabulary:
    """The vocabulary with every id of `ends` as an end of turn, where llama.cpp does not know it
    unasked.

    It stops at the ids of eos, eot and eom, and at tokens whose text says so: the second and third
    slot take what those do not cover. Raises PackError (bad input) for more than they hold.
    Source: llama.cpp, src/llama-vocab.cpp, special_eog_ids.
    """
    tokens, types = vocabulary.tokens, vocabulary.types
    special = dict(vocabulary.special)
    # A configuration class writes its own ids beside a smaller vocabulary; no token has them.
    ends = [number for number in ends if number < len(tokens)]
    if ends:
        # Without one llama.cpp takes number 11, an ordinary token.
        special.setdefault("eos", ends[0])
    known = {number for number in ends if types[number] == CONTROL and tokens[number] in KNOWN_ENDS}
    left = [number for number in ends if number not in known and number != special.get("eos")]
    if len(left) > _SLOTS:
        names = ", ".join(tokens[number] for number in left)
        raise bad_input(
            f"A GGUF has room for {_SLOTS} custom ends of turn, and this checkpoint has "
            f"{len(left)}: {names}.",
            "Leave those out of eos_token_id that never end a turn, or take another runtime.",
        )
    message, turn = ([None, *left] if len(left) == 1 else left[::-1]) or (None, None)
    return replace(
        vocabulary,
        special=special,
        end_of_turn=vocabulary.end_of_turn if turn is None else turn,
        end_of_message=message,
    )


def _added(added: list[JsonObject], tokenizer_config: JsonObject) -> dict[int, tuple[str, int]]:
    """Added tokens by id with their type; tokenizer_config.json may know more than
    tokenizer.json."""
    decoder = object_or_empty(tokenizer_config, "added_tokens_decoder")
    entries = {int(number): object_at(decoder, number) for number in decoder}
    entries |= {at(entry, "id", int): entry for entry in added}
    found = {}
    for number, entry in entries.items():
        text = at(entry, "content", str)
        if entry.get("special") or (text.startswith("<|") and text.endswith("|>")):
            found[number] = (text, CONTROL)
        else:
            found[number] = (text.replace("\u2581", " "), USER_DEFINED)
    return found


def _merges(merges: list[Any]) -> list[str]:
    """Merges as "left right"; a space within a half is written as its byte-level letter."""
    if merges and isinstance(merges[0], str):
        return merges
    for place, (left, right) in enumerate(merges):
        # In place: a second list of all pairs would stand beside the first.
        merges[place] = f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"
    return merges


def _add_flags(definition: JsonObject, tokenizer_config: JsonObject) -> dict[str, bool]:
    """Whether bos and eos are added by themselves. A byte-level post-processor adds nothing,
    whatever the configuration says."""
    stages = _stages(object_or_empty(definition, "post_processor"), "processors")
    flags = (
        {"bos": False, "eos": False}
        if any(stage.get("type") == "ByteLevel" for stage in stages)
        else {}
    )
    for kind in SPECIAL_KINDS:
        value = tokenizer_config.get(f"add_{kind}_token")
        if isinstance(value, bool):
            flags.setdefault(kind, value)
    return flags
