"""Schemas of requests: ordinary ones pass, and those that end or stop an engine are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.shipping.server import requests
from packager.shipping.server.refused import Refused
from packager.shipping.server.settings import Settings
from tests.support.shipping_packages import CHATML

KNOWN = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)


def asked(schema: Any) -> requests.Request:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "x"}], "response_format": form}
    return requests.parse(json.dumps(body).encode(), KNOWN)


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
        (text(minLength=10**8), "repeats something 100000000 times"),
        (text(minLength=1e300), "repeats something 1e\\+300 times"),
        (text(minLength=float("nan")), "repeats something nan times"),
        ({"anyOf": [[{"type": "array", "maxItems": 9999}]]}, "repeats something 9999 times"),
        (text(pattern="^a{100000}$"), "repeats something 100000"),
        (text(pattern="^[a-z]{0,99999}$"), "repeats something 99999"),
        (text(pattern="^[a-z]{99999,}$"), "repeats something 99999"),
        ({"anyOf": [text(maxLength=4096)] * 9}, "repeats 36864 parts"),
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
