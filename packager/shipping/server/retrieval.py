"""Requests of /v1/embeddings and /v1/rerank, checked whole before they wait for the engine, and
their answers."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

from .answers import Gone
from .refused import Refused
from .settings import Settings

PATHS = {"embed": "/v1/embeddings", "rerank": "/v1/rerank"}
_MOST_TEXTS = 2048
"""Texts of a request at most, as OpenAI has it."""
ROOM = 512
"""Tokens that are computed at once, padding counted; a longer text is computed alone."""


class Engine(Protocol):
    """What a runtime's module for vectors and scores has. `texts` are as they go to the
    tokenizer."""

    def count(self, text: str) -> int:
        """Tokens of a text."""

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, of length 1."""

    def scores(self, query: str, documents: list[str]) -> list[float]:
        """The probability of yes for each document."""


@dataclass(frozen=True)
class Embeddings:
    """A request for vectors; `dimension` numbers of each are kept."""

    texts: list[str]
    dimension: int | None
    packed: bool


@dataclass(frozen=True)
class Ranking:
    """A request for scores; the `most` best of them are returned."""

    query: str
    documents: list[str]
    most: int
    instruction: str | None


def _object(body: bytes) -> dict[str, object]:
    try:
        given = json.loads(body)
        # Half a surrogate pair of UTF-16 is not text, and no engine takes it.
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused("the request is not JSON") from None
    if not isinstance(given, dict):
        raise Refused("the request is not a JSON object")
    return given


def embeddings(body: bytes, settings: Settings) -> Embeddings:
    """The request in a body. Raises Refused with a sentence for whatever cannot be answered."""
    given = _object(body)
    texts = given.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused("`input` must be a text or a list of texts")
    if len(texts) > _MOST_TEXTS:
        raise Refused(f"`input` has more than {_MOST_TEXTS} texts")
    form = given.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise Refused("`encoding_format` must be float or base64")
    dimension = given.get("dimensions")
    if dimension is None:
        dimension = settings.dimension
    elif type(dimension) is not int or not 1 <= dimension <= settings.hidden:
        raise Refused(f"`dimensions` must be from 1 to {settings.hidden}")
    return Embeddings(texts, dimension, form == "base64")


def ranking(body: bytes) -> Ranking:
    """The request in a body. Raises Refused with a sentence for whatever cannot be answered."""
    given = _object(body)
    query, rows = given.get("query"), given.get("documents")
    if not isinstance(query, str) or not query:
        raise Refused("`query` must be a text")
    if not isinstance(rows, list) or not rows or len(rows) > _MOST_TEXTS:
        raise Refused(f"`documents` must be a list of 1 to {_MOST_TEXTS} texts")
    given_rows = [row.get("text") if isinstance(row, dict) else row for row in rows]
    documents = [row for row in given_rows if isinstance(row, str)]
    if len(documents) < len(rows):
        raise Refused("`documents` must be a list of texts, or of objects with a `text`")
    most = given.get("top_n")
    if most is None:
        most = len(documents)
    elif type(most) is not int or most < 1:
        raise Refused("`top_n` must be a whole number of at least 1")
    instruction = given.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise Refused("`instruction` must be a text")
    return Ranking(query, documents, most, instruction)


Left = Callable[[], bool]
"""Whether the client has left, asked before each group of texts: thousands of long ones take the
engine for a quarter of an hour."""


def answer(engine: Engine, settings: Settings, body: bytes) -> Callable[[Left], dict[str, object]]:
    """What computes the answer to a request once it is its turn; the request is checked before.
    Raises Gone where the client leaves meanwhile."""
    if settings.task == "embed":
        asked = embeddings(body, settings)
        return lambda left: _vectors(engine, settings, asked, left)
    wanted = ranking(body)
    return lambda left: _ranked(engine, settings, wanted, left)


def _vectors(
    engine: Engine, settings: Settings, asked: Embeddings, left: Left
) -> dict[str, object]:
    used = [_fitting(engine.count(text), settings) for text in asked.texts]
    rows: list[list[float]] = [[] for _ in asked.texts]
    for group in groups(used):
        if left():
            raise Gone
        vectors = engine.vectors([asked.texts[number] for number in group])
        for number, row in zip(group, vectors, strict=True):
            rows[number] = shortened(row, asked.dimension)
    data = [
        {"object": "embedding", "index": number, "embedding": _packed(row) if asked.packed else row}
        for number, row in enumerate(rows)
    ]
    return {"object": "list", "model": settings.name, "data": data, "usage": _usage(sum(used))}


def _ranked(engine: Engine, settings: Settings, asked: Ranking, left: Left) -> dict[str, object]:
    # The query is put in last: no other text may be put into what it says.
    opened, _, closed = settings.prompt.partition("{document}")
    if asked.instruction is not None:
        opened = opened.replace(settings.instruction, asked.instruction)
    head = opened.replace("{query}", asked.query)
    texts = [document + closed for document in asked.documents]
    used = [_fitting(engine.count(head + text), settings) for text in texts]
    scores = [0.0] * len(texts)
    for group in groups(used):
        if left():
            raise Gone
        computed = engine.scores(head, [texts[number] for number in group])
        for number, score in zip(group, computed, strict=True):
            scores[number] = score
    order = sorted(range(len(scores)), key=lambda number: -scores[number])[: asked.most]
    results = [{"index": number, "relevance_score": scores[number]} for number in order]
    return {"model": settings.name, "results": results, "usage": _usage(sum(used))}


def groups(sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of texts of like length whose tokens are computed at once, padding counted."""
    made: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number]):
        if not made or sizes[number] * (len(made[-1]) + 1) > ROOM:
            made.append([])
        made[-1].append(number)
    return made


def shortened(row: list[float], dimension: int | None) -> list[float]:
    """The first numbers of a vector, of length 1 again."""
    if dimension is None or dimension >= len(row):
        return row
    kept = row[:dimension]
    length = sqrt(sum(number * number for number in kept))
    return [number / length for number in kept] if length else kept


def _packed(row: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()


def _fitting(tokens: int, settings: Settings) -> int:
    if tokens > settings.context:
        raise Refused(f"a text has {tokens} tokens, but the context holds {settings.context}")
    return tokens


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}
