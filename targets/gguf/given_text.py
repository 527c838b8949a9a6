"""The texts of a checkpoint, from the keys of a GGUF that somebody else wrote: config.json,
tokenizer.json, the chat template. The weights stay where they are.

With them a file speaks as a folder of the hub does: the same sandbox renders its template, the same
check compares its tokens, the same papers describe it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from packager.checkpoint.byte_level_bpe import added_token, definition
from packager.checkpoint.described import mark
from packager.checkpoint.tokenizer import EXPRESSIONS
from packager.errors import bad_input
from packager.files import write_atomically, write_json
from packager.inspection.unsafe import shown
from packager.json_values import JsonDict, JsonObject
from packager.limits import TEMPLATE_BYTES
from packager.shape import Shape
from packager.shape.names import config_path
from packager.shape.tensors import naming_of
from targets.gguf.given import Given
from targets.gguf.given_shape import rope_scaling
from targets.gguf.tokenizer import CONTROL, KNOWN_ENDS, NORMAL, USER_DEFINED

_PRE = dict(zip(("qwen2", "qwen35"), EXPRESSIONS, strict=True))
"""llama.cpp's name of a pre-tokenizer -> the expression by which it splits a text."""
_TOKENIZER = "tokenizer.ggml."
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "padding")
_ENDS = ("eos", "eot", "eom")
_TEMPLATE = "tokenizer.chat_template"
_GET_AGAIN = "Get a file that llama.cpp's own converter wrote from the checkpoint."


class Words:
    """The vocabulary of a file, checked: every token has a text and a type, and every special id a
    token."""

    def __init__(self, given: Given, rows: int) -> None:
        self._head, self._where = given.head, given.files[0]
        self.texts = self._head.texts(f"{_TOKENIZER}tokens")
        self.kinds = self._head.numbers(f"{_TOKENIZER}token_type")
        self.merges = self._head.texts(f"{_TOKENIZER}merges")
        self.expression = self._expression()
        if len(self.texts) != rows:
            raise self._wrong(f"has {len(self.texts)} tokens for an embedding of {rows} rows")
        if len(self.kinds) != rows:
            raise self._wrong(f"has types of {len(self.kinds)} of its {rows} tokens")
        if not self.merges or any(merge.count(" ") != 1 for merge in self.merges):
            raise self._wrong("has merges that are not pairs of tokens")
        self.special = {
            name: number for name in _SPECIAL if (number := self._id(name, rows)) is not None
        }
        for name in _ENDS:
            number = self.special.get(name)
            if number is not None and self.kinds[number] == NORMAL:
                raise self._wrong(
                    f"ends a turn at {shown(self.texts[number])} ({name}), which is an ordinary "
                    "word of its vocabulary"
                )

    def stops_at(self) -> frozenset[str]:
        """Texts of the tokens at which llama.cpp ends a turn (see tokenizer.with_ends)."""
        named = {self.texts[self.special[name]] for name in _ENDS if name in self.special}
        known = {
            text
            for text, kind in zip(self.texts, self.kinds, strict=True)
            if kind == CONTROL and text in KNOWN_ENDS
        }
        return frozenset(named | known)

    def tokenizer_json(self) -> bytes:
        """What the tokenizers library reads as the same vocabulary."""
        vocab = {
            text: number
            for number, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True))
            if kind == NORMAL
        }
        rows = [{"id": number, **flags} for number, flags in self.added().items()]
        merges = [merge.split(" ") for merge in self.merges]
        known = vocab.keys()
        strange = next(
            (pair for pair in merges if not {*pair, "".join(pair)} <= known),
            None,
        )
        if strange is not None:
            raise self._wrong(f"merges {shown(' '.join(strange))}, which makes no token of it")
        return definition(vocab, merges, rows, self.expression)

    def added(self) -> dict[int, JsonObject]:
        """Control tokens and those that the user defined, by id; what pads the embedding is left
        out."""
        return {
            number: added_token(text, special=kind == CONTROL)
            for number, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        }

    def _expression(self) -> str:
        model, pre = (self._head.text(f"{_TOKENIZER}{key}") for key in ("model", "pre"))
        if model != "gpt2":
            raise self._wrong(f"has a tokenizer of the kind {shown(model)}, which is not Qwen's")
        expression = _PRE.get(pre or "")
        if expression is None:
            raise self._wrong(
                f"splits text as {shown(pre or 'default')}, which no Qwen does: it would get "
                "other tokens than it was trained with"
            )
        return expression

    def _id(self, name: str, rows: int) -> int | None:
        value = self._head.keys.get(f"{_TOKENIZER}{name}_token_id")
        if value is None:
            return None
        # What has no such token is written as the highest number of 32 bits, too.
        if type(value) is not int or not 0 <= value < rows:
            if name in _ENDS:
                raise self._wrong(f"has {shown(value)} as the id of {name}, which no token has")
            return None
        return value

    def _wrong(self, what: str) -> Exception:
        return bad_input(f"{self._where} {what}.", _GET_AGAIN)


def describe(given: Given, shape: Shape, folder: Path) -> Words:
    """Write the texts of a checkpoint into a new folder. Raises PackError (exit code 6) for keys
    that describe none of Qwen's."""
    words = Words(given, shape.vocab)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", _config(given, shape, words))
    write_atomically(folder / "tokenizer.json", words.tokenizer_json())
    write_json(folder / "tokenizer_config.json", _tokenizer_config(words, shape))
    template = given.head.text(_TEMPLATE)
    if template is not None:
        if len(template.encode()) > TEMPLATE_BYTES:
            raise bad_input(
                f"{given.files[0]} has a chat template of {len(template)} characters.", _GET_AGAIN
            )
        write_atomically(folder / "chat_template.jinja", template.encode())
    settings = _generation(given)
    if settings:
        write_json(folder / "generation_config.json", settings)
    mark(folder, "gguf")
    return words


def _config(given: Given, shape: Shape, words: Words) -> JsonObject:
    config = dict(shape.to_config())
    tables: list[JsonDict] = [config]
    for key in config_path(config, naming_of(shape)):
        inner = dict(json.loads(json.dumps(tables[-1][key])))
        tables[-1][key] = inner
        tables.append(inner)
    ids = {"bos": "bos_token_id", "eos": "eos_token_id"}
    for name, key in ids.items():
        for table in tables:
            table.pop(key, None)
        if name in words.special:
            tables[-1][key] = words.special[name]
    scaling = rope_scaling(given)
    if scaling is not None:
        tables[-1]["rope_scaling"] = scaling
        tables[-1]["rope_parameters"] = {**scaling, "rope_theta": shape.rope_theta}
    return config


def _tokenizer_config(words: Words, shape: Shape) -> JsonObject:
    def text(name: str) -> str | None:
        number = words.special.get(name)
        return None if number is None else words.texts[number]

    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): row for number, row in words.added().items()},
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": text("eos"),
        "errors": "replace",
        "model_max_length": shape.context,
        "pad_token": text("padding"),
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


_SAMPLING: Mapping[str, str] = {
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.temp": "temperature",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


def _generation(given: Given) -> JsonDict:
    """The settings of sampling that the file brings, as generation_config.json names them."""
    settings: JsonDict = {}
    for key, name in _SAMPLING.items():
        value = given.head.number(key)
        if value is not None:
            settings[name] = value if isinstance(value, int) else float(f"{value:.7g}")
    return settings
