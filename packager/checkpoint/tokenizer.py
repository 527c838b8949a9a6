"""The tokenizer files of a checkpoint: present, readable, no larger than the embedding; and its
chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.checkpoint import tiktoken
from packager.checkpoint.chat_templates import DEFAULT, templates_of
from packager.checkpoint.folder import read_json, read_text
from packager.errors import bad_input

_GET_AGAIN = "Get the file again from where it was published."


def check_tokenizer(folder: Path, files: dict[str, Path], vocab: int) -> None:
    """Raise PackError (exit code 6) unless there is a tokenizer whose token ids all have a row in
    the embedding of `vocab` rows."""
    if "tokenizer.json" in files:
        path = files["tokenizer.json"]
        tokenizer = read_json(path)
        model = tokenizer.get("model")
        ids = model.get("vocab") if isinstance(model, dict) else None
        added = tokenizer.get("added_tokens") or []
        if not isinstance(ids, dict) or not ids or not isinstance(added, list):
            raise bad_input(f"{path} holds no vocabulary.", _GET_AGAIN)
        all_ids = [
            *ids.values(),
            *(token.get("id") if isinstance(token, dict) else None for token in added),
        ]
    elif "vocab.json" in files and "merges.txt" in files:
        path = files["vocab.json"]
        all_ids = [*read_json(path).values(), *_added_ids(files)]
        if not any(
            line and not line.startswith("#version")
            for line in read_text(files["merges.txt"]).splitlines()
        ):
            raise bad_input(f"{files['merges.txt']} holds no merges.", _GET_AGAIN)
    elif tiktoken.FILE in files:
        tiktoken.read_ranks_for(files[tiktoken.FILE], vocab)
        return
    else:
        raise bad_input(
            f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt nor "
            f"{tiktoken.FILE}.",
            "Get it from where the weights were published.",
        )
    if not all(type(token) is int and token >= 0 for token in all_ids):
        raise bad_input(f"{path} has token ids that are no whole numbers.", _GET_AGAIN)
    if max(all_ids) >= vocab:
        raise bad_input(
            f"{path} has the token id {max(all_ids)}, but the embedding has only {vocab} rows.",
            "Take the tokenizer and the weights from one and the same revision.",
        )


def _added_ids(files: dict[str, Path]) -> list[Any]:
    return (
        list(read_json(files["added_tokens.json"]).values()) if "added_tokens.json" in files else []
    )


def chat_template(files: dict[str, Path], tokenizer_config: dict[str, Any]) -> str | None:
    """The Jinja text of the default chat template, from the file that takes precedence; None for a
    base model.

    Order as in transformers: chat_template.jinja, chat_template.json, tokenizer_config.json.
    """
    return templates_of(files, tokenizer_config).get(DEFAULT)
