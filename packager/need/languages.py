"""Languages: which a model's publisher names, and what published score a need for one asks; as data
with sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.catalog.schema import check, read, wrong
from packager.errors import usage
from packager.names import did_you_mean
from packager.need.floors import Floor

FILE = Path(__file__).with_name("languages.toml")
ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """A language by its code of ISO 639-1, or of ISO 639-3 where there is none.

    `also` are other names and codes of it, `tests` benchmarks, nearest to the language first.
    """

    code: str
    name: str
    also: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """The languages that the publisher names for some families of the catalogue."""

    languages: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True)
class Languages:
    """The whole file: languages by code, what is named by family, and the floor that every test
    shares."""

    by_code: Mapping[str, Language]
    by_family: Mapping[str, Named]
    benchmarks: Mapping[str, str]
    score: float
    reason: str
    source: str


@cache
def _data() -> Languages:
    return parse(FILE)


def languages() -> tuple[Language, ...]:
    """Every language that is known, by code."""
    return tuple(_data().by_code.values())


def language(text: str) -> Language:
    """The language of a code or an English name, of many also by their own, case and region aside:
    `German`, `de`, `deu`, `de-AT`, `Deutsch`.

    Raises PackError (usage) for an unknown one, naming the nearest.
    """
    shown = text.strip()
    wanted = shown.casefold()
    spoken = _by_word().get(wanted) or _by_word().get(wanted.replace("_", "-").partition("-")[0])
    if spoken is not None:
        return spoken
    near = did_you_mean(shown, [known.name for known in languages()])
    raise usage(
        f"There is no language {shown if len(shown) <= 40 else shown[:37] + '...'!r}.{near}"
        if shown
        else "No language is named.",
        "Give an English name, a code of ISO 639, or of many the own name, such as German, de or "
        "Deutsch; those of a model: "
        "qwen-pack models NAME.",
    )


@cache
def _by_word() -> dict[str, Language]:
    return {
        word.casefold(): known
        for known in languages()
        for word in (known.code, known.name, *known.also)
    }


def codes(texts: Iterable[str]) -> tuple[str, ...]:
    """The codes of codes or names, each once, in the order given. Raises PackError (usage) for an
    unknown one."""
    return tuple(dict.fromkeys(language(text).code for text in texts))


def in_words(wanted: Iterable[object]) -> str:
    """` in German and Swahili`, behind what somebody wants to do; codes that are not known, as a
    manifest may have, are left out."""
    by_code = _data().by_code if wanted else {}
    names = [by_code[code].name for code in wanted if isinstance(code, str) and code in by_code]
    return f" in {', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]}" if names else ""


def named(family: str) -> Named | None:
    """What the publisher names for a family of the catalogue; None where no source lists it."""
    return _data().by_family.get(family)


def floor(code: str) -> Floor | None:
    """The published score that a language asks for; None where no benchmark is about it, and for
    English, which all are about."""
    data = _data()
    tests = data.by_code[code].tests
    return (
        Floor(tuple((name, data.score) for name in tests), data.reason, data.source)
        if tests
        else None
    )


def unproven(code: str) -> bool:
    """Whether no benchmark is about a language."""
    return code != ENGLISH and floor(code) is None


def bare_word(unproven: Iterable[str]) -> str:
    """What is to be said of such languages."""
    return (
        f"No benchmark is about answers{in_words(unproven)}: only the publisher's claim supports "
        "them."
    )


def benchmarks() -> Mapping[str, str]:
    """The benchmarks of single languages, each with what it measures."""
    return _data().benchmarks


def parse(path: Path) -> Languages:
    """The languages of a TOML file. Raises PackError that names file and key of the first
    mistake."""
    tables = {"floor": dict, "benchmark": dict, "named": dict, "languages": dict}
    document = check(read(path), tables, tuple(tables), str(path))
    least = check(
        document["floor"],
        {"score": float, "reason": str, "source": str},
        ("score", "reason", "source"),
        f"{path}: floor",
    )
    by_code = {
        code: _language(code, table, f"{path}: languages.{code}")
        for code, table in document["languages"].items()
    }
    by_family: dict[str, Named] = {}
    types = {"families": list, "languages": list, "source": str}
    for key, table in document["named"].items():
        where = f"{path}: named.{key}"
        check(table, types, tuple(types), where)
        for code in table["languages"]:
            if code not in by_code:
                raise wrong(
                    f"{where}.languages",
                    f"has {code!r}, which [languages] does not "
                    f"define.{did_you_mean(str(code), by_code)}",
                )
        for family in table["families"]:
            if family in by_family:
                raise wrong(
                    f"{where}.families", f"has {family!r}, which another table has as well."
                )
            by_family[family] = Named(frozenset(table["languages"]), table["source"])
    for name, what in document["benchmark"].items():
        if not isinstance(what, str) or not what:
            raise wrong(f"{path}: benchmark.{name}", "must say what it measures.")
    return Languages(by_code, by_family, document["benchmark"], **least)


def _language(code: str, table: Any, where: str) -> Language:
    check(table, {"name": str, "also": list, "tests": list}, ("name", "tests"), where)
    for key in ("also", "tests"):
        if not all(isinstance(name, str) for name in table.get(key, ())):
            raise wrong(f"{where}.{key}", "must be a list of texts.")
    return Language(code, table["name"], tuple(table.get("also", ())), tuple(table["tests"]))
