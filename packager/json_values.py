"""JSON as a type: values whose shape is not known until they have been looked at.

Whatever has a known shape is a record (packager.records) or a dataclass. These types are for what
passes through unread, for JSON that is being put together, and for the first look at what comes
from outside: the functions give a value of a kind, and say which field is not of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
JsonObject: TypeAlias = Mapping[str, JsonValue]
"""An object that is read: nothing may be put into it."""
JsonDict: TypeAlias = dict[str, JsonValue]
"""An object that is being put together."""

Kind = TypeVar("Kind", bool, int, float, str)


class WrongKind(TypeError):
    """A field that is missing or not of the kind that it has to be."""

    def __init__(self, field: str, wanted: str) -> None:
        super().__init__(f"{field!r} is missing or is not {wanted}")
        self.field = field


def at(data: JsonObject, key: str, kind: type[Kind]) -> Kind:
    """The field as a text, a flag or a number; a whole number is a `float` too, and a flag is not
    a number. Raises WrongKind where it is missing, null or something else."""
    value = at_or_none(data, key, kind)
    if value is None:
        raise WrongKind(key, kind.__name__)
    return value


def at_or_none(data: JsonObject, key: str, kind: type[Kind]) -> Kind | None:
    """The same; None where the field is missing or null."""
    value = data.get(key)
    if value is None:
        return None
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or isinstance(value, bool) is not (kind is bool):
        raise WrongKind(key, kind.__name__)
    # Not kind(value): a whole number stays one, and is written as one again.
    return value


def object_at(data: JsonObject, key: str) -> JsonObject:
    """The object in a field. Raises WrongKind where there is none."""
    return as_object(data.get(key), key)


def object_or_empty(data: JsonObject, key: str) -> JsonObject:
    """The object in a field; an empty one where the field is missing or null."""
    value = data.get(key)
    return {} if value is None else as_object(value, key)


def objects_at(data: JsonObject, key: str) -> list[JsonObject]:
    """The objects in the list in a field; none where the field is missing or null. Raises WrongKind
    where it is not a list or something else stands in it."""
    return [as_object(row, key) for row in list_at(data, key)]


def texts_at(data: JsonObject, key: str) -> list[str]:
    """The texts in the list in a field; none where the field is missing or null."""
    values = list_at(data, key)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        raise WrongKind(key, "a list of texts")
    return texts


def wholes_at(data: JsonObject, key: str) -> list[int]:
    """The whole numbers in the list in a field; none where the field is missing or null."""
    values = list_at(data, key)
    wholes = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(wholes) != len(values):
        raise WrongKind(key, "a list of whole numbers")
    return wholes


def list_at(data: JsonObject, key: str) -> Sequence[JsonValue]:
    """The list in a field; an empty one where the field is missing or null."""
    value = data.get(key)
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise WrongKind(key, "a list")
    return value


def as_object(value: JsonValue, name: str) -> JsonObject:
    """The value, which is an object; `name` says what it is in the WrongKind that is raised where
    it is none."""
    if not isinstance(value, Mapping):
        raise WrongKind(name, "an object")
    return value
