"""Published benchmark scores, read from `scores.toml` only when somebody asks for one, and from
`language_scores.toml` only for the benchmarks that the other has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from packager.catalog.schema import check, read, source_text, wrong
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.catalog.variant import Variant

FILE = Path(__file__).with_name("scores.toml")
BY_LANGUAGE = Path(__file__).with_name("language_scores.toml")
_CHOICES = {"kind": ("base", "instruct"), "mode": ("thinking", "non-thinking")}


class Score(NamedTuple):
    """One published score of the unquantized checkpoint, in the benchmark's own unit (mostly
    percent).

    `protocol` says how it was measured where a source does (shots, split, form of the benchmark):
    scores of different protocols do not compare, nor do those of `kind` "base" and "instruct".
    `mode` is "thinking" or "non-thinking", None where the checkpoint has no such switch or the
    source does not say.
    """

    benchmark: str
    value: float
    kind: str
    protocol: str | None
    mode: str | None
    source: str

    def as_dict(self) -> JsonObject:
        """JSON form, one key per field."""
        return self._asdict()


def scores(repo_id: str) -> tuple[Score, ...]:
    """The scores of one checkpoint, for each benchmark and mode the first published first; empty
    where there are none."""
    both = (_published(by_language).get(repo_id, ()) for by_language in (False, True))
    return tuple(chain.from_iterable(both))


def scores_in(repo_id: str, benchmark: str) -> tuple[Score, ...]:
    """Those in one benchmark, case aside."""
    name = benchmark.casefold()
    elsewhere = name not in _benchmarks(False)
    return _by_benchmark(elsewhere).get((repo_id, name), ())


def score_of(variant: Variant, benchmark: str, mode: str | None = None) -> Score | None:
    """The first published score of this very checkpoint in a benchmark, case aside; None without
    one.

    With `mode` only scores of that mode count; without, those that are not thinking come first.
    """
    for score in scores_in(variant.repo_id, benchmark):
        if mode in (None, score.mode):
            return score
    return None


@cache
def _by_benchmark(by_language: bool) -> dict[tuple[str, str], tuple[Score, ...]]:
    """The scores of one file by repo id and benchmark, the latter folded."""
    grouped: dict[tuple[str, str], list[Score]] = {}
    for repo_id, rows in _published(by_language).items():
        for score in rows:
            grouped.setdefault((repo_id, score.benchmark.casefold()), []).append(score)
    return {key: tuple(rows) for key, rows in grouped.items()}


@cache
def _benchmarks(by_language: bool) -> frozenset[str]:
    return frozenset(name for _, name in _by_benchmark(by_language))


def read_scores(path: Path) -> dict[str, tuple[Score, ...]]:
    """Every score of the file by repo id. Raises PackError that names file and key."""
    document = check(
        read(path), {"sources": dict, "published": list}, ("sources", "published"), str(path)
    )
    types: Mapping[str, type] = {
        "variant": str,
        "kind": str,
        "mode": str,
        "source": str,
        "protocol": str,
        "protocols": dict,
        "scores": dict,
    }
    by_variant: dict[str, list[Score]] = {}
    for index, table in enumerate(document["published"]):
        name = table.get("variant") if isinstance(table, dict) else None
        where = f"{path}: published[{index}] ({name})"
        check(table, types, ("variant", "kind", "source", "scores"), where, _CHOICES)
        source = source_text(table["source"], document["sources"], f"{where}.source")
        everywhere, single = table.get("protocol"), table.get("protocols", {})
        _refuse_stray(single, table["scores"], where)
        for benchmark, value in table["scores"].items():
            if not isinstance(value, float):
                raise wrong(
                    f"{where}.scores.{benchmark}", f"is {value!r}; a score is a decimal number."
                )
            score = Score(
                benchmark,
                value,
                table["kind"],
                single.get(benchmark, everywhere),
                table.get("mode"),
                source,
            )
            by_variant.setdefault(table["variant"], []).append(score)
    return {repo_id: tuple(rows) for repo_id, rows in by_variant.items()}


@cache
def _published(by_language: bool) -> dict[str, tuple[Score, ...]]:
    return read_scores(BY_LANGUAGE if by_language else FILE)


def _refuse_stray(protocols: Mapping[str, Any], values: Mapping[str, Any], where: str) -> None:
    for benchmark in protocols:
        if benchmark not in values:
            raise wrong(f"{where}.protocols.{benchmark}", "has no score in the same table.")
