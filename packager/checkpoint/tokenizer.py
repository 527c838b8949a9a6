"""The tokenizer files of a checkpoint: present, readable, no larger than the embedding; and its
chat template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packager.checkpoint import tiktoken
from packager.checkpoint.added_tokens import LISTED, check_added
from packager.checkpoint.byte_level_bpe import QWEN_PATTERN
from packager.checkpoint.chat_templates import DEFAULT, templates_of
from packager.checkpoint.folder import read_json, read_text
from packager.errors import bad_input
from packager.json_values import JsonObject, list_at, object_at, object_or_empty

EXPRESSIONS = (
    QWEN_PATTERN,
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
"""The expressions by which Qwen's tokenizers split text: from 1.5 to 3, and from 3.5 on. Source:
pre_tokenizer of tokenizer.json in the official repositories."""

_SHOWN = 60
_GET_AGAIN = "Get the file again from where it was published."


def check_tokenizer(
    folder: Path, files: dict[str, Path], vocab: int, tokenizer_config: JsonObject
) -> tuple[str, ...]:
    """Notes on a tokenizer whose token ids all have a row in the embedding of `vocab` rows.

    Raises PackError (exit code 6) where there is no such tokenizer, or the files of it disagree.
    """
    if "tokenizer.json" in files:
        path = files["tokenizer.json"]
        tokenizer = read_json(path)
        model = tokenizer.get("model")
        ids = model.get("vocab") if isinstance(model, dict) else None
        listed = tokenizer.get("added_tokens")
        added = [] if listed is None else listed
        if not isinstance(ids, dict) or not ids or not isinstance(added, list):
            raise bad_input(f"{path} holds no vocabulary.", _GET_AGAIN)
        check_definition(path, tokenizer)
        all_ids = [
            *ids.values(),
            *(token.get("id") if isinstance(token, dict) else None for token in added),
        ]
    elif "vocab.json" in files and "merges.txt" in files:
        path = files["vocab.json"]
        vocabulary = read_json(path)
        tokenizer = {"model": {"vocab": vocabulary}}
        all_ids = [*vocabulary.values(), *_added_ids(files)]
        if not any(
            line and not line.startswith("#version")
            for line in read_text(files["merges.txt"]).splitlines()
        ):
            raise bad_input(f"{files['merges.txt']} holds no merges.", _GET_AGAIN)
    elif tiktoken.FILE in files:
        tiktoken.read_ranks_for(files[tiktoken.FILE], vocab)
        return ()
    else:
        raise bad_input(
            f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt nor "
            f"{tiktoken.FILE}.",
            "Get it from where the weights were published.",
        )
    all_ids += map(int, object_or_empty(tokenizer_config, LISTED))
    if not all(type(token) is int and token >= 0 for token in all_ids):
        raise bad_input(f"{path} has token ids that are not whole numbers.", _GET_AGAIN)
    if max(all_ids) >= vocab:
        raise bad_input(
            f"{path} has the token id {max(all_ids)}, but the embedding has only {vocab} rows.",
            "Take the tokenizer and the weights from one and the same revision.",
        )
    return check_added(path, tokenizer, tokenizer_config)


def check_definition(path: Path, tokenizer: JsonObject) -> None:
    """Raise PackError (exit code 6) unless its merges are pairs, its added tokens have a text, and
    its expressions are Qwen's own.

    A regular expression is a program, and the engines that run it set no limit: one of a few dozen
    letters takes years over a text of as many.
    """
    merges = object_at(tokenizer, "model").get("merges")
    if merges is not None and not (isinstance(merges, list) and all(map(_is_merge, merges))):
        raise bad_input(f"{path} has merges that are not pairs of tokens.", _GET_AGAIN)
    for token in list_at(tokenizer, "added_tokens"):
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise bad_input(f"{path} has an added token without a text.", _GET_AGAIN)
    for stage in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        part = tokenizer.get(stage)
        if part is not None and not isinstance(part, dict):
            raise bad_input(f"{path}: {stage} is not an object.", _GET_AGAIN)
        for expression in _expressions(part):
            if expression not in EXPRESSIONS:
                raise bad_input(
                    f"{path}: {stage} splits text by an expression that is not one of Qwen's: "
                    f"{str(expression)[:_SHOWN]!r}.",
                    "Take the tokenizer of the model's own repository.",
                )


def _is_merge(merge: Any) -> bool:
    if isinstance(merge, list):
        return len(merge) == 2 and all(isinstance(half, str) for half in merge)
    return isinstance(merge, str)


def _expressions(part: Any) -> Iterator[Any]:
    """What stands under the key Regex, however deep: nesting is no reason to give up."""
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "Regex" in value:
                yield value["Regex"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _added_ids(files: dict[str, Path]) -> list[Any]:
    return (
        list(read_json(files["added_tokens.json"]).values()) if "added_tokens.json" in files else []
    )


def chat_template(files: dict[str, Path], tokenizer_config: JsonObject) -> str | None:
    """The Jinja text of the default chat template, from the file that takes precedence; None for a
    base model.

    Order as in transformers: chat_template.jinja, chat_template.json, tokenizer_config.json.
    """
    return templates_of(files, tokenizer_config).get(DEFAULT)
