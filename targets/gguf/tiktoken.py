"""The first generation's vocabulary: a tiktoken file of ranks, from which merges follow, and
special tokens by number."""

from __future__ import annotations

from pathlib import Path

from packager.checkpoint.tiktoken import (
    FILE,
    SPECIAL,
    byte_letters,
    halves,
    merges,
    read_ranks,
    read_ranks_for,
)
from targets.gguf.tokenizer import CONTROL, NORMAL, UNUSED, Vocabulary

__all__ = ["FILE", "SPECIAL", "byte_letters", "halves", "read_ranks", "read_tiktoken"]


def read_tiktoken(path: Path, rows: int) -> Vocabulary:
    """The vocabulary for an embedding of `rows` rows. Raises PackError (bad input)."""
    ranks = read_ranks_for(path, rows)
    letters = byte_letters()
    tokens = [""] * len(ranks)
    for token, rank in ranks.items():
        tokens[rank] = "".join(letters[byte] for byte in token)
    end = len(tokens)
    types = [NORMAL] * end + [CONTROL] * len(SPECIAL)
    tokens += SPECIAL
    padding = range(len(tokens), rows)
    tokens += [f"[PAD{number}]" for number in padding]
    types += [UNUSED] * len(padding)
    joined = [f"{left} {right}" for left, right in merges(ranks)]
    return Vocabulary(
        tokens, types, joined, "qwen2", {"bos": end, "eos": end, "unk": end}, {}, end + 2
    )
