"""Schemas of requests: ordinary ones pass, and those that end or stop an engine are refused."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager.shipping.server import requests
from packager.shipping.server.refused import Refused
from packager.shipping.server.schemas import check
from packager.shipping.server.settings import Settings
from tests.support.shipping_packages import CHATML

KNOWN = Settings("x", "llama.cpp", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)


def asked(schema: Any, known: Settings = KNOWN) -> requests.Request:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "x"}], "response_format": form}
    return requests.parse(json.dumps(body).encode(), known)


def text(**rules: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", **rules}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        text(maxLength=1000),
        text(minLength=3, maxLength=1990),
        {"type": "array", "items": text(maxLength=4096), "minItems": 1, "maxItems": 500},
        # A property may have the name of a rule.
        {"type": "object", "properties": {"maxLength": {"type": "integer"}, "pattern": {}}},
        {"enum": [f"word {number}" for number in range(1000)]},
        text(pattern=r"^(\(\d{3}\) ?)?\d{3}-\d{4}$"),
        text(pattern=r"^[A-Za-z0-9._%+-]+@([a-z0-9-]+\.)+[a-z]{2,}$"),
        text(pattern=r"^([a-z]{1,3}){300}$"),
        text(pattern=r"^\d{4}-(0[1-9]|1[0-2])-\d{2}(T\d{2}:\d{2}(:\d{2})?)?$"),
        text(pattern=r"^[(*?+{]+\{?\(*$"),
        text(pattern=r"^a+?b*?$"),
        text(pattern=r"^(a|b\|)+$"),
        text(pattern=r"^a{,}$"),
        text(pattern=r"^(?:ab)+(?<c>de)*$"),
    ],
)
def test_an_ordinary_schema_reaches_the_engine_as_it_is(schema: dict[str, Any]) -> None:
    made = asked(schema).schema
    assert made is not None and json.loads(made) == schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (text(maxLength=20_000), "repeats something 20000 times: 4096 is the most"),
        (text(minLength=10**8), r"repeats something 1e\+08 times"),
        (text(minLength=1e300), r"repeats something 1e\+300 times"),
        (text(minLength=float("nan")), "repeats something nan times"),
        ({"anyOf": [[{"type": "array", "maxItems": 9999}]]}, "repeats something 9999 times"),
        (text(pattern="^a{100000}$"), "repeats something 100000"),
        (text(pattern="^[a-z]{0,99999}$"), "repeats something 99999"),
        (text(pattern="^[a-z]{99999,}$"), "repeats something 99999"),
        ({"anyOf": [text(maxLength=4096)] * 9}, "repeats 36864 parts"),
        (text(pattern="^a{ " + "9" * 5000 + " }$"), "repeats something inf times"),
        (text(pattern="^((a{40}b){40}c){40}$"), "repeats something 64000 times"),
        (text(pattern="^([a-z]?){1000}$"), "repeats what may be empty"),
        (text(pattern="^(([a-z]?[a-z]?){30}){30}$"), "repeats what may be empty"),
        (text(pattern="^((a*)*)*$"), "repeats what may be empty"),
        (text(pattern="^(a|)+$"), "repeats what may be empty"),
        (text(pattern="^(|a){9}$"), "repeats what may be empty"),
        (text(pattern="^(?:a?b?)*$"), "repeats what may be empty"),
        (text(pattern="^(?<x>a?b?)+$"), "repeats what may be empty"),
        (text(pattern="^(?=a?)+$"), "repeats what may be empty"),
        (text(pattern=r"^(a?\b)+$"), "repeats what may be empty"),
        (text(pattern="^(([)?]|a?)*)$"), "repeats what may be empty"),
        (text(pattern="^a?{1000}$"), "repeats what may be empty"),
        (text(pattern="^" + "[a-z]?" * 17 + "$"), "17 parts that may be left out: 16"),
        ({"enum": ["x" * 70_000]}, "longer than 65536 characters"),
    ],
)
def test_a_schema_that_would_end_or_stop_the_engine_is_refused(schema: Any, says: str) -> None:
    with pytest.raises(Refused, match=says) as refusal:
        asked(schema)
    assert refusal.value.status == 400


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_engine_that_counts_repetitions_is_given_more(runtime: str) -> None:
    known = replace(KNOWN, runtime=runtime)
    for schema in (
        text(maxLength=10**8),
        text(pattern="^([a-z]?){1000}$"),
        {"type": "array", "items": text(), "maxItems": 65_536},
    ):
        made = asked(schema, known).schema
        assert made is not None and json.loads(made) == schema
    for schema, says in (
        ({"type": "array", "items": text(), "minItems": 10**8}, r"repeats something 1e\+08 times"),
        ({"anyOf": [{"type": "array", "minItems": 65_000}] * 5}, "repeats 325000 parts"),
        (text(pattern="^((a{900}){900}){900}$"), r"repeats something 810000 times: 65536"),
        ({"patternProperties": {"^(b|(a{900}){900}x)$": {}}}, "repeats something 810000 times"),
        ({"enum": ["x" * 70_000]}, "longer than 65536 characters"),
    ):
        with pytest.raises(Refused, match=says):
            asked(schema, known)


@pytest.mark.parametrize(
    "piece", ["(", "[", "{", "{ ", "{9", "(?", "(?<", "{" + " " * 99, "a{1}", "\\"]
)
def test_a_pattern_is_read_in_time_whatever_it_is_made_of(piece: str) -> None:
    begun = time.process_time()
    with contextlib.suppress(Refused):
        check({"pattern": (piece * 60_000)[:60_000]}, "", "llama.cpp")
    assert time.process_time() - begun < 5
