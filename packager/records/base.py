"""What all records share: frozen, made of checked JSON, and JSON again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec

from packager.json_values import JsonObject

Number = Annotated[float, msgspec.Meta(gt=-1e18, lt=1e18)]
"""A finite number of a size that can be shown."""
Count = Annotated[int, msgspec.Meta(gt=-(10**18), lt=10**18)]
"""The same without a fraction: bytes, cores, how many of something."""
Tokens = Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
"""A number of tokens that an engine's 32 bits hold."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"`([^`]+)`")


class Misfit(ValueError):
    """A field that is missing or of the wrong kind; `field` is its path, as `measured.ttft_ms`."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field!r} is missing or of the wrong kind")
        self.field = field


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One object of JSON. Null counts as absent, and fields that nothing reads are passed over.

    Texts do nothing to a terminal but show themselves: control characters are refused.
    """

    def __post_init__(self) -> None:
        self._check_texts()

    def _check_texts(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str) and not text.isprintable() for text in texts):
                raise ValueError(f"`{name}` holds control characters")

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The record of a JSON object. Raises Misfit with the path of the first field that is
        missing or of the wrong kind."""
        try:
            return msgspec.convert(without_nulls(data), cls)
        except msgspec.ValidationError as error:
            raise Misfit(_field_of(str(error))) from None
        except RecursionError:
            raise Misfit("$") from None

    def to_json(self) -> JsonObject:
        """The JSON object of the record: every field, null where there is none."""
        data: JsonObject = msgspec.json.decode(msgspec.json.encode(self))
        return data

    def but(self, **changes: Any) -> Self:
        """The same record with other values in some fields."""
        return msgspec.structs.replace(self, **changes)


class Free(Record, frozen=True, kw_only=True):
    """A record whose texts are for a model: they may hold line breaks, and no terminal is shown
    them as they are."""

    def _check_texts(self) -> None:
        """Any text is one."""


def without_nulls(data: Any) -> Any:
    """JSON with fields that are null left out; nulls in lists stay, and are refused later."""
    if isinstance(data, Mapping):
        return {key: without_nulls(value) for key, value in data.items() if value is not None}
    if isinstance(data, list):
        return [without_nulls(value) for value in data]
    return data


def _field_of(message: str) -> str:
    """The path of the field that a message of msgspec is about.

    Messages read "Expected `int`, got `str` - at `$.rows[1].size`", "Object missing required field
    `name` - at `$.runtime`", and those of __post_init__ "`name` holds ... - at `$`".
    """
    parts = _AT.match(message)
    where = (parts["where"] or "") if parts else ""
    what = parts["what"] if parts else message
    if what.startswith(("Object missing required field", "`")):
        name = _FIELD.search(what)
        return ".".join(part for part in (where, name[1] if name else "") if part)
    return where or "$"
