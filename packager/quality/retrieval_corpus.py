"""The queries and documents on which an embedder or a reranker is compared: retrieval_corpus.toml,
checked as it is read."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packager.errors import bad_input

FILE = Path(__file__).with_name("retrieval_corpus.toml")
_LEAST_QUERIES = 2


@dataclass(frozen=True, slots=True)
class Query:
    """A query with its documents, the one that answers it first."""

    language: str
    text: str
    documents: tuple[str, ...]


@cache
def queries(file: Path = FILE) -> tuple[Query, ...]:
    """All of them. Raises PackError (exit code 6) naming file and key."""
    try:
        rows = tomllib.loads(file.read_text("utf-8")).get("query")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise bad_input(f"{file.name}: {error}.") from None
    if not isinstance(rows, list) or len(rows) < _LEAST_QUERIES:
        raise bad_input(f"{file.name}: query must list {_LEAST_QUERIES} tables or more.")
    asked = []
    for number, row in enumerate(rows):
        where = f"{file.name}: query[{number}]"
        if not isinstance(row, dict) or row.keys() != {"language", "text", "documents"}:
            raise bad_input(f"{where} needs exactly language, text and documents.")
        texts = [row["language"], row["text"], *row["documents"]]
        if len(texts) < 4 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise bad_input(f"{where} needs texts, and two documents or more.")
        asked.append(Query(row["language"], row["text"], tuple(row["documents"])))
    return tuple(asked)


def sha256(file: Path = FILE) -> str:
    """The digest of the file, as the manifest keeps it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
