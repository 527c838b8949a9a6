"""Limits by class of recipe: a TOML file of tables that all have the same numbers, checked as it is
read."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from packager.errors import bad_input

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Limits = TypeVar("Limits", bound=DataclassInstance)
else:
    Limits = TypeVar("Limits")


@cache
def read_classes(file: Path, kind: type[Limits], most: int = 1) -> dict[str, Limits]:
    """A `kind`, a dataclass of numbers above 0 and at most `most`, for each class, strictest first.
    Raises PackError (exit code 6) that names file and key."""
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise bad_input(f"{file.name}: {error}.") from None
    classes = data.get("classes")
    if data.keys() != {"classes"} or not isinstance(classes, dict) or not classes:
        raise bad_input(f"{file.name}: classes is needed, and nothing else.")
    wanted = {field.name for field in fields(kind)}
    for grade, table in classes.items():
        where = f"{file.name}: classes.{grade}"
        if not isinstance(table, dict) or table.keys() != wanted:
            raise bad_input(f"{where} needs exactly {', '.join(sorted(wanted))}.")
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, float) or not 0 < value <= most:
                raise bad_input(f"{where}.{key} is not a number above 0 and at most {most}.")
    return {grade: kind(**table) for grade, table in classes.items()}
