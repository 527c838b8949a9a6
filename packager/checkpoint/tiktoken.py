"""The vocabulary file of the first generation: one token in base64 and its rank on every line.

The checkpoint's own Python is never run; the special tokens that it would add are fixed for the
whole generation.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from pathlib import Path

from packager.errors import bad_input
from packager.foreign import bounded_bytes
from packager.limits import TEXT_BYTES, TOKEN_BYTES

FILE = "qwen.tiktoken"

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
)
"""Tokens behind the ranks. Source: SPECIAL_TOKENS in tokenization_qwen.py of Qwen/Qwen-7B."""


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token bytes -> rank. Raises PackError (bad input) naming the line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(bounded_bytes(path, TEXT_BYTES).splitlines(), 1):
        try:
            text, rank = line.split()
            token = base64.b64decode(text, validate=True)
            if len(token) > TOKEN_BYTES:
                raise ValueError
            ranks[token] = int(rank)
        except (ValueError, binascii.Error):
            raise bad_input(
                f"{path}, line {number} is not a token and its rank.", "Fetch it again."
            ) from None
    if not ranks or sorted(ranks.values()) != list(range(len(ranks))):
        raise bad_input(f"{path} has ranks that do not count from 0.", "Fetch it again.")
    return ranks


def read_ranks_for(path: Path, rows: int) -> dict[bytes, int]:
    """`read_ranks`, where every token of the file and every special one has a row in an embedding
    of `rows`."""
    ranks = read_ranks(path)
    tokens = len(ranks) + len(SPECIAL)
    if tokens > rows:
        raise bad_input(
            f"{path} has {tokens} tokens, but the embedding has only {rows} rows.",
            "Take both from one revision.",
        )
    return ranks


def merges(ranks: dict[bytes, int]) -> list[tuple[str, str]]:
    """The merges that make the tokens, best first, in byte letters."""
    letters = byte_letters()
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = halves(ranks, token, rank)
            pairs.append(
                ("".join(letters[byte] for byte in left), "".join(letters[byte] for byte in right))
            )
    return pairs


def halves(ranks: dict[bytes, int], token: bytes, rank: int) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins last to make this one."""
    # A heap of pairs over a list linked both ways: a token of N bytes takes N log N steps.
    parts: list[bytes | None] = [token[index : index + 1] for index in range(len(token))]
    after = list(range(1, len(parts) + 1))
    before = list(range(-1, len(parts) - 1))
    pairs = [
        (ranks[joined], index, joined)
        for index in range(len(token) - 1)
        if (joined := token[index : index + 2]) in ranks
    ]
    heapq.heapify(pairs)
    left = len(parts)
    while left > 2 and pairs:
        best, index, joined = heapq.heappop(pairs)
        if best >= rank:
            break
        first, second = parts[index], after[index]
        if first is None or second >= len(parts) or first + (parts[second] or b"") != joined:
            continue  # one of the two has become a part of something else
        parts[index], parts[second] = joined, None
        left -= 1
        after[index] = after[second]
        if after[index] < len(parts):
            before[after[index]] = index
        for start in (before[index], index):
            if start >= 0 and after[start] < len(parts):
                both = (parts[start] or b"") + (parts[after[start]] or b"")
                if both in ranks:
                    heapq.heappush(pairs, (ranks[both], start, both))
    kept = [part for part in parts if part is not None]
    if len(kept) != 2:
        raise bad_input(
            f"The token of rank {rank} cannot be made of two earlier ones.",
            "Fetch qwen.tiktoken again.",
        )
    return kept[0], kept[1]


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level BPE: itself where it prints, one from 256
    up where it does not (GPT-2)."""
    printing = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = {byte: chr(byte) for byte in printing}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printing))
    return letters
