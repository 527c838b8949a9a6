"""JSON as a type: fields are given as the kind that they are, or named where they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.json_values import (
    JsonObject,
    JsonValue,
    WrongKind,
    as_object,
    at,
    at_or_none,
    list_at,
    object_at,
    object_or_empty,
    objects_at,
    texts_at,
    wholes_at,
)

REPOSITORY = Path(__file__).resolve().parent.parent
KINDS: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
DATA: JsonObject = {
    "text": "a",
    "flag": True,
    "whole": 3,
    "number": 0.5,
    "null": None,
    "table": {"inner": 1},
    "rows": [{"a": 1}, {}],
    "texts": ["a", "b"],
    "wholes": (1, 2),
}


def test_a_field_comes_as_the_kind_that_it_is_and_as_it_was_written() -> None:
    assert (at(DATA, "text", str), at(DATA, "flag", bool), at(DATA, "whole", int)) == ("a", True, 3)
    assert at(DATA, "number", float) == 0.5
    assert repr(at(DATA, "whole", float)) == "3", "a whole number is written as one again"
    assert at_or_none(DATA, "null", str) is None and at_or_none(DATA, "absent", int) is None
    assert object_at(DATA, "table") == {"inner": 1} and object_or_empty(DATA, "absent") == {}
    assert objects_at(DATA, "rows") == [{"a": 1}, {}] and objects_at(DATA, "null") == []
    assert texts_at(DATA, "texts") == ["a", "b"] and wholes_at(DATA, "wholes") == [1, 2]
    assert list_at(DATA, "absent") == ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: at(DATA, "absent", str),
        lambda: at(DATA, "null", str),
        lambda: at(DATA, "text", int),
        lambda: at(DATA, "flag", int),
        lambda: at(DATA, "flag", float),
        lambda: at(DATA, "whole", bool),
        lambda: at(DATA, "number", int),
        lambda: at_or_none(DATA, "table", str),
        lambda: object_at(DATA, "absent"),
        lambda: object_or_empty(DATA, "rows"),
        lambda: objects_at(DATA, "texts"),
        lambda: objects_at(DATA, "table"),
        lambda: texts_at(DATA, "wholes"),
        lambda: texts_at(DATA, "text"),
        lambda: wholes_at({"wholes": [1, True]}, "wholes"),
        lambda: as_object("text", "it"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(ask: Callable[[], object]) -> None:
    with pytest.raises(WrongKind, match=r"^'\w+' is missing or is not ") as caught:
        ask()
    assert isinstance(caught.value, TypeError) and caught.value.field in str(caught.value)


@given(VALUES)
def test_every_value_is_of_its_kind_or_refused_and_nothing_is_changed(value: JsonValue) -> None:
    data = {"field": value}
    for kind in KINDS:
        try:
            given_back = at(data, "field", kind)
        except WrongKind:
            assert type(value) is not kind
        else:
            assert given_back is value and isinstance(
                value, (int, float) if kind is float else kind
            )


def test_objects_without_a_shape_stay_few_and_say_why() -> None:
    """Whoever needs one more: a record, a dataclass or a JsonObject says more than `Any`."""
    lines = [
        line
        for folder in ("packager", "targets", "tui")
        for file in (REPOSITORY / folder).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "dict[str, Any]" in line
    ]
    assert 0 < len(lines) < 80
