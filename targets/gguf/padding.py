"""Spaces behind the keys, so that another chat template, name or licence does not move the tensors.

An update in blocks then sends the blocks of the keys alone; unpadded, a template that is one word
longer changes every block behind it. The text stands under a key of our own, which llama.cpp and
the gguf package read past like any they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping

import gguf

from targets.gguf import header
from targets.gguf.presets import ROOM

KEY = "qwen_pack.padding"
_VOCABULARY = {gguf.Keys.Tokenizer.LIST, gguf.Keys.Tokenizer.TOKEN_TYPE, gguf.Keys.Tokenizer.MERGES}


def text(kv: Mapping[str, gguf.GGUFValue]) -> str:
    """The spaces that fill the room with these keys, or a multiple of it where they need more."""
    used = sum(len(header.pair(key, value)) for key, value in kv.items() if key not in _VOCABULARY)
    used += len(header.pair(KEY, gguf.GGUFValue("", gguf.GGUFValueType.STRING)))
    return " " * (-used % ROOM)
