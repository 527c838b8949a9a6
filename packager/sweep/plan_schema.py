"""What a plan file may hold: every key with its type and the range outside which it is a slip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packager.errors import PackError
from packager.need.usecases import MODALITIES
from packager.units import parse_bytes

KEEP = ("all", "best", "none")
OBJECTIVES = ("quality", "memory", "size", "speed")
MOST_TOKENS = 2**24


@dataclass(frozen=True, slots=True)
class Number:
    """A number between `low` and `high`; `whole` numbers refuse fractions."""

    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A text that is not empty; one of `choices` where there are any."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A list of texts that is not empty, each one of `choices` where there are any."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of whole numbers that is not empty."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes as people write them, `"20 GB"`, or a whole number of them."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A table of benchmarks with the least score of each, 0 to 100."""


@dataclass(frozen=True, slots=True)
class Sets:
    """A list of texts, or of lists of texts that belong together."""


Rule = Number | Word | Words | Sets | Numbers | Flag | Size | Scores

TOP: Mapping[str, Rule] = {"name": Word()}
SECTIONS: Mapping[str, Mapping[str, Rule]] = {
    "axes": {
        "variants": Words(),
        "checkpoints": Words(),
        "adapters": Sets(),
        "recipes": Words(),
        "kv": Words(),
        "contexts": Numbers(16, MOST_TOKENS),
        "targets": Words(),
        "profiles": Words(),
    },
    "filter": {
        "family": Words(),
        "kind": Words(),
        "license": Words(),
        "modality": Words(),
        "min_params": Number(0, 1e14),
        "max_params": Number(0, 1e14),
        "base": Flag(),
    },
    "weights": {"source": Word(("hub", "dummy")), "offline": Flag()},
    "budgets": {
        "use_case": Word(),
        "prompt": Number(1, MOST_TOKENS, whole=True),
        "min_decode_tps": Number(0, 1e6),
        "max_ttft_ms": Number(1, 1e9),
        "documents_per_second": Number(0.001, 1e6),
        "query_ms": Number(1, 1e9),
        "max_artifact_bytes": Size(),
        "max_file_bytes": Size(),
        "max_memory_bytes": Size(),
        "min_scores": Scores(),
        "modality": Words(MODALITIES),
        "licenses": Words(),
        "languages": Words(),
    },
    "limits": {"disk": Size(), "keep_packages": Word(KEEP)},
    "prune": {"keep": Number(1, 1e6, whole=True), "by": Words(OBJECTIVES)},
    "route": {
        "tasks": Words(),
        "behaviour_percent": Number(0, 100),
    },
}
EXCLUDE: Mapping[str, Rule] = {
    "variant": Word(),
    "adapter": Word(),
    "recipe": Word(),
    "kv": Word(),
    "context": Number(16, MOST_TOKENS, whole=True),
    "target": Word(),
    "profile": Word(),
    "why": Word(),
}


def complaint(rule: Rule, value: Any) -> str | None:
    """What is wrong with a value, as the end of a sentence; None where it is right."""
    match rule:
        case Number():
            return _number(rule, value)
        case Word():
            return _word(rule.choices, value)
        case Words():
            return _list(value, "texts") or next(
                (wrong for each in value if (wrong := _word(rule.choices, each))), None
            )
        case Sets():
            flat = (
                [each for one in value for each in (one if isinstance(one, list) else [one])]
                if isinstance(value, list)
                else value
            )
            return complaint(Words(), flat)
        case Numbers():
            whole = Number(rule.low, rule.high, whole=True)
            return _list(value, "whole numbers") or next(
                (wrong for each in value if (wrong := _number(whole, each))), None
            )
        case Flag():
            return None if isinstance(value, bool) else "must be true or false."
        case Size():
            return _size(value)
        case Scores():
            return _scores(value)


def _list(value: Any, what: str) -> str | None:
    if not isinstance(value, list) or not value:
        return f"must be a list of {what}, with one at least."
    return None


def _number(rule: Number, value: Any) -> str | None:
    kind = "a whole number" if rule.whole else "a number"
    wanted = int if rule.whole else int | float
    if isinstance(value, bool) or not isinstance(value, wanted):
        return f"must be {kind}."
    # A comparison with NaN is false, so it is refused as well.
    if not rule.low <= value <= rule.high:
        return f"is {value:g}, but must be between {rule.low:.15g} and {rule.high:.15g}."
    return None


def _word(choices: tuple[str, ...], value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return "must be a text that is not empty."
    if not value.isprintable() or len(value) > 4096:
        return "must be one line of printable text."
    if choices and value not in choices:
        return f"is {value!r}, but must be one of {', '.join(choices)}."
    return None


def size_of(value: Any) -> int:
    """The bytes of a Size that has no complaint."""
    return value if isinstance(value, int) else parse_bytes(value)


def _size(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None if 0 < value < 1 << 62 else "must be above zero, and below 4 EB."
    if not isinstance(value, str):
        return 'must be a size, for example "20 GB".'
    try:
        parse_bytes(value)
    except PackError as error:
        return f"is {value!r}, which is not a valid size. {error.hint}"
    return None


def _scores(value: Any) -> str | None:
    if not isinstance(value, dict) or not value:
        return "must be a table of benchmarks, each with its least score."
    for name, least in value.items():
        if wrong := _number(Number(0, 100), least):
            return f"has {name!r}, which {wrong}"
    return None
