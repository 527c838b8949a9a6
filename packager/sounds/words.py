"""How many words of a transcript are wrong: the word error rate, as speech recognizers are compared
by it (NIST's sclite: substitutions, deletions and insertions over the words that were said)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Letters of scripts that are written without spaces are words of their own, so that the rate is
# the character error rate there: Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar.
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+(?:['\u2019][^\W_{_ALONE}]+)*")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Edits that make the right words of the transcript's, and how many right words there are."""

    edits: int
    words: int

    @property
    def rate(self) -> float:
        """Edits per right word: 0 is right, and more than 1 is possible."""
        return self.edits / self.words if self.words else float(self.edits > 0)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.edits + other.edits, self.words + other.words)


def words_of(text: str) -> list[str]:
    """The words of a text: without case, punctuation and the width of letters (NFKC)."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _WORD.findall(plain)


def word_errors(said: str, right: str) -> WordErrors:
    """The transcript `said` beside what is `right`."""
    return WordErrors(_distance(words_of(said), wanted := words_of(right)), len(wanted))


def _distance(one: list[str], other: list[str]) -> int:
    """Levenshtein's distance, a row at a time."""
    # Late: numpy comes with the engine, and the command line does without.
    import numpy as np

    number = {word: place for place, word in enumerate({*one, *other})}
    columns = np.array([number[word] for word in other], np.int64)
    step = np.arange(len(other) + 1)
    row = step.copy()
    for count, word in enumerate(one, 1):
        kept = row[:-1] + (columns != number[word])
        best = np.concatenate([[count], np.minimum(row[1:] + 1, kept)])
        # What is left of a place may reach it by insertions, one each.
        row = np.minimum.accumulate(best - step) + step
    return int(row[-1])
