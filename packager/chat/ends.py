"""Where a turn ends: every token that a file of the checkpoint, or its template, ends one with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packager.chat.special_tokens import text_of
from packager.errors import bad_input

_LAST_RESORT = ("<|im_end|>", "<|endoftext|>")
"""What ends a turn, or a text, of every Qwen: taken where no file says anything."""


@dataclass(frozen=True, slots=True)
class Ends:
    """`ids` end a turn, the one that the model was tuned to write first. `notes` say where files
    disagree."""

    ids: tuple[int, ...]
    notes: tuple[str, ...] = ()


def ends_of(
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    id_of: Mapping[str, int],
    template_end: str | None,
) -> Ends:
    """All ends that generation_config.json, tokenizer_config.json, config.json and the template
    name.

    `id_of` maps the texts of tokens to ids; `template_end` is the token that the chat template puts
    behind an answer. An id beyond the vocabulary, which a vocabulary that was cut leaves behind, is
    left out. Raises PackError (bad input) where no file and no template names an end.
    """
    eos = text_of(tokenizer_config.get("eos_token"))
    sources: Mapping[str, list[int]] = {
        "generation_config.json": _numbers(generation_config.get("eos_token_id")),
        "tokenizer_config.json": _numbers(id_of.get(eos) if eos else None),
        "config.json": _numbers(_text_config(config).get("eos_token_id")),
        "the chat template": _numbers(id_of.get(template_end) if template_end else None),
    }
    texts = {number: text for text, number in id_of.items()}
    sources, notes = _within(sources, _text_config(config, "vocab_size").get("vocab_size"))
    named = {where: ids for where, ids in sources.items() if ids}
    if not named:
        number = next((id_of[text] for text in _LAST_RESORT if text in id_of), None)
        if number is None:
            raise bad_input(
                "No file of the checkpoint says which token ends a turn.",
                "Write eos_token_id into generation_config.json.",
            )
        return Ends(
            (number,), (*notes, f"No file says where a turn ends: {texts[number]} is taken.")
        )
    first = next(iter(named))
    ids = tuple(dict.fromkeys(number for numbers in named.values() for number in numbers))
    others = {
        where: [number for number in numbers if number not in named[first]]
        for where, numbers in named.items()
    }
    beyond = [f"{where} at {_list(numbers, texts)}" for where, numbers in others.items() if numbers]
    if not beyond:
        return Ends(ids, notes)
    difference = f"{first} ends a turn at {_list(named[first], texts)}, {', '.join(beyond)}"
    return Ends(ids, (*notes, f"{difference}: the artifact stops at every one of them"))


def _within(
    sources: Mapping[str, list[int]], rows: Any
) -> tuple[Mapping[str, list[int]], tuple[str, ...]]:
    """The ids by file that a vocabulary of so many rows has, and a note for each other one."""
    if type(rows) is not int:
        return sources, ()
    notes = tuple(
        f"{where} ends a turn at {number}, which is beyond the vocabulary of {rows}: it is left out"
        for where, numbers in sources.items()
        for number in numbers
        if number >= rows
    )
    within = {where: [one for one in numbers if one < rows] for where, numbers in sources.items()}
    return within, notes


def _text_config(config: Mapping[str, Any], key: str = "eos_token_id") -> Mapping[str, Any]:
    """The configuration of the text decoder, where a checkpoint has others beside it and the `key`
    is only there; that of a model which also speaks is one deeper."""
    for name in ("thinker_config", "text_config"):
        inner = config.get(name)
        if config.get(key) is None and isinstance(inner, Mapping):
            config = inner
    return config


def _numbers(declared: Any) -> list[int]:
    values = declared if isinstance(declared, list) else [declared]
    return [value for value in values if type(value) is int and value >= 0]


def _list(numbers: list[int], texts: Mapping[int, str]) -> str:
    named = ((number, texts.get(number, "")) for number in numbers)
    return " and ".join(text if text and text.isprintable() else str(at) for at, text in named)
