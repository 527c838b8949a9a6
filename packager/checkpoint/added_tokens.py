"""The added tokens of a checkpoint, whichever of its files lists them, as transformers 5.5 puts
them together (tokenization_utils_base.py, models/qwen2/tokenization_qwen2.py).

tokenizer_config.json counts where it lists them, added_tokens.json where it does not;
tokenizer.json brings those that neither has. Each gets the next free id, whatever a file says, so
that a file which says otherwise describes another tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from packager.errors import PackError, bad_input
from packager.foreign import GET_AGAIN
from packager.json_values import (
    JsonDict,
    JsonObject,
    at,
    list_at,
    object_at,
    object_or_empty,
    objects_at,
)

LISTED = "added_tokens_decoder"
"""The key of tokenizer_config.json that lists added tokens by id."""

_OF_ITS_OWN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that read tokenizer.json as it stands; Qwen's own ones build it anew, from vocabulary and
merges."""
_NFC = {"type": "NFC"}
_SAVE = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes files that agree."


def with_added_file(
    tokenizer_config: JsonObject, path: Path, added: JsonObject, definition: JsonObject
) -> JsonObject:
    """tokenizer_config.json with the tokens of added_tokens.json (at `path`), where it lists none
    itself.

    `definition` is tokenizer.json, empty where there is none: its tokens are listed too. Raises
    PackError (exit code 6) for ids that are none.
    """
    if LISTED in tokenizer_config or not added:
        return tokenizer_config
    if not all(type(number) is int and number >= 0 for number in added.values()):
        raise bad_input(f"{path} has token ids that are not whole numbers.", GET_AGAIN)
    named = _named(tokenizer_config)
    listed: dict[str, JsonObject] = {
        str(number): {"content": text, "special": text in named} for text, number in added.items()
    }
    own = definition.get("added_tokens")
    for entry in own if isinstance(own, list) else ():
        # What is not as it should be is named where tokenizer.json is looked at.
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), str):
            flags = {key: value for key, value in entry.items() if key != "id"}
            listed |= {str(entry["id"]): flags} if type(entry.get("id")) is int else {}
    return {**tokenizer_config, LISTED: listed}


def completed(definition: JsonObject, tokenizer_config: JsonObject) -> JsonObject:
    """tokenizer.json as it is used: with the tokens that only tokenizer_config.json lists, without
    the cutting and padding of a training run, composed as Qwen's own classes compose text.

    The same object where nothing of that is to be done.
    """
    changes: JsonDict = {
        key: None for key in ("truncation", "padding") if definition.get(key) is not None
    }
    entries = entries_of(definition, tokenizer_config)
    if entries != list(objects_at(definition, "added_tokens")):
        changes["added_tokens"] = entries
    if not definition.get("normalizer") and _built_anew(tokenizer_config):
        changes["normalizer"] = _NFC
    return {**definition, **changes} if changes else definition


def entries_of(definition: JsonObject, tokenizer_config: JsonObject) -> list[JsonObject]:
    """All added tokens, each as tokenizer.json has it (`id`, `content`, flags), by rising id: that
    is the order in which a library takes them in."""
    entries = list(objects_at(definition, "added_tokens"))
    listed = object_or_empty(tokenizer_config, LISTED)
    known = {at(entry, "id", int) for entry in entries}
    entries += [
        {"id": int(number), **_FLAGS, **object_at(listed, number)}
        for number in listed
        if int(number) not in known
    ]
    return sorted(entries, key=lambda entry: at(entry, "id", int))


_FLAGS: JsonObject = {
    "content": "",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def check_added(
    path: Path, definition: JsonObject, tokenizer_config: JsonObject
) -> tuple[str, ...]:
    """Notes on tokens that one file has and the other has not.

    Raises PackError (exit code 6) where two files disagree about a token, and for an id that no
    tokenizer gives.
    """
    listed = object_or_empty(tokenizer_config, LISTED)
    by_id: dict[int, str] = {}
    for entry in [
        *entries_of(definition, tokenizer_config),
        *({**object_at(listed, number), "id": int(number)} for number in listed),
    ]:
        number, text = at(entry, "id", int), at(entry, "content", str)
        if by_id.setdefault(number, text) != text:
            raise bad_input(
                f"{path.parent} calls the token {number} both {by_id[number]!r} and {text!r}.",
                f"Keep the one that is meant: {_SAVE}",
            )
    _check_ids(path, definition, by_id)
    return tuple(_notes(by_id, listed, tokenizer_config))


def _check_ids(path: Path, definition: JsonObject, by_id: Mapping[int, str]) -> None:
    vocab = object_or_empty(object_or_empty(definition, "model"), "vocab")
    numbers: dict[str, int] = {}
    free = len(vocab)
    for number, text in sorted(by_id.items()):
        if text in numbers:
            raise _elsewhere(path, text, number, numbers[text])
        if text in vocab:
            numbers[text] = at(vocab, text, int)
        else:
            numbers[text], free = free, free + 1
        if numbers[text] != number:
            raise _elsewhere(path, text, number, numbers[text])


def _elsewhere(path: Path, text: str, number: int, other: int) -> PackError:
    return bad_input(
        f"{path.parent} gives the added token {text!r} the id {number}, but tokenizers give it "
        f"{other}.",
        f"Added tokens take the next free ids, one each. {_SAVE}",
    )


def _notes(
    by_id: Mapping[int, str], listed: JsonObject, tokenizer_config: JsonObject
) -> Iterable[str]:
    if not listed or not _built_anew(tokenizer_config):
        return
    known = {*map(int, listed)}
    named = _named(tokenizer_config)
    alone = [text for number, text in by_id.items() if number not in known and text not in named]
    if alone:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        yield (
            f"tokenizer.json has the added token {alone[0]!r}{more}, which tokenizer_config.json "
            "does not list: it is one token here, and several for transformers 5."
        )


def _built_anew(tokenizer_config: JsonObject) -> bool:
    """Whether transformers builds the tokenizer from vocabulary and merges."""
    return tokenizer_config.get("tokenizer_class") not in _OF_ITS_OWN


def _named(tokenizer_config: JsonObject) -> set[str]:
    """Texts of the tokens that tokenizer_config.json gives a part to play."""
    tokens = [value for key, value in tokenizer_config.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = tokenizer_config.get(key)
        tokens += more.values() if isinstance(more, Mapping) else list_at(tokenizer_config, key)
    texts = (token.get("content") if isinstance(token, Mapping) else token for token in tokens)
    return {text for text in texts if isinstance(text, str)}
