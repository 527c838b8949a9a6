"""A long text with one fact in it, cut to the context that there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count

from packager.quality.text import shipped

SHARE = 0.75
"""Of the context, at most: what is left holds the question and the answer."""
MOST_TOKENS = 4096
"""Longer texts say little more and take minutes on a slow device."""
LEAST_TOKENS = 160
"""Below this nothing is long."""


def long_text(fact: str, depth: float, tokens: int, length: Callable[[str], int]) -> str | None:
    """Ordinary paragraphs of about `tokens` tokens at most, with `fact` as a sentence at `depth` of
    them (0 to 1).

    `length` counts the tokens of a text. None where the room is too small to be long.
    """
    if tokens < LEAST_TOKENS:
        return None
    sentences: list[str] = []
    used = length(fact)
    for sentence in _sentences():
        used += length(" " + sentence)
        if used > tokens:
            break
        sentences.append(sentence)
    position = round(depth * len(sentences))
    return " ".join([*sentences[:position], fact, *sentences[position:]])


def _sentences() -> Iterator[str]:
    """The English prose that the quality gate reads, sentence by sentence, begun again with its
    round named when it ends."""
    prose = next(part.text for part in shipped().parts if part.name == "english")
    sentences = [
        sentence
        for paragraph in prose.split("\n\n")
        for sentence in re.split(r"(?<=[.!?]) ", paragraph.strip())
        if len(sentence) > 3
    ]
    for number in count(1):
        yield from sentences
        yield f"So ends part {number}."
