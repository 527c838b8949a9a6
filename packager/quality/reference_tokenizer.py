"""The checkpoint's tokenizer as the tokenizers library reads it: what an artifact's is held
against."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from packager.checkpoint import Checkpoint
from packager.checkpoint.added_tokens import completed
from packager.checkpoint.folder import read_json
from packager.errors import PackError, bad_input
from packager.json_values import JsonObject, at, object_at, object_or_empty

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def reference_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizers library's own reading of the checkpoint's files, put together as transformers
    does (packager.checkpoint.added_tokens). Raises PackError (exit code 6) for what it cannot
    read."""
    try:
        return _reference_tokenizer(checkpoint)
    except PackError:
        raise
    except BaseException as error:
        # The library raises bare exceptions, and where its Rust panics, one that is none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise bad_input(
            f"{checkpoint.folder} has a tokenizer that cannot be read: {error}.",
            "Get its files again from where they were published.",
        ) from None


def _reference_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    # Late: only a build that measures needs it.
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    from packager.checkpoint.byte_level_bpe import QWEN_PATTERN
    from packager.checkpoint.rewrite import bpe_of

    if checkpoint.tokenizer_json is not None:
        path = checkpoint.tokenizer_json
        definition = read_json(path)
        used = completed(definition, checkpoint.tokenizer_config)
        if used is definition:
            return Tokenizer.from_file(str(path))
        return Tokenizer.from_str(json.dumps(used, ensure_ascii=False))
    if checkpoint.tiktoken is not None:
        return Tokenizer.from_str(bpe_of(checkpoint.tiktoken).decode())
    # What Qwen2Tokenizer makes of the two files.
    tokenizer = Tokenizer(
        models.BPE.from_file(str(checkpoint.vocab_json), str(checkpoint.merges_txt))
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    listed = object_or_empty(checkpoint.tokenizer_config, "added_tokens_decoder")
    for number in sorted(listed, key=int):
        entry = object_at(listed, number)
        tokenizer.add_tokens([AddedToken(at(entry, "content", str), **_flags(entry))])
    return tokenizer


def _flags(entry: JsonObject) -> dict[str, bool]:
    flags = ("special", "lstrip", "rstrip", "single_word", "normalized")
    return {name: bool(entry.get(name)) for name in flags}
