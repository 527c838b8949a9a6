"""Reading what comes from outside: bounded in size and in number before anything is made of it."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from packager import limits
from packager.errors import bad_input

GET_AGAIN = "Get the file again from where it was published."

_HALF_A_LETTER = re.compile(rb"\\u[dD][89a-fA-F]")


def bounded_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises PackError (exit code 6) naming it where there are more than
    `most`, and for a pipe or a device, which is not waited for."""
    with open(path, "rb", opener=_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise bad_input(f"{path} is a pipe or a device, not a file.", GET_AGAIN)
        # Python makes room for what is asked for, not for what there is.
        data = file.read(min(most, status.st_size) + 1)
    if len(data) > most:
        raise bad_input(
            f"{path} has more than {most} bytes, far more than a file of its kind can have.",
            GET_AGAIN,
        )
    return data


def _at_once(path: str, flags: int) -> int:
    """Opened also where it is a pipe into which nobody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(
    data: bytes,
    where: str,
    hint: str = GET_AGAIN,
    *,
    hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:
    """The value of a JSON text in UTF-8. `hook` and `constant` are json.loads' object_pairs_hook
    and parse_constant.

    Raises PackError (exit code 6) beginning with `where` for what is no JSON, is nested too deeply,
    holds too much, or has half a surrogate pair, which is not text.
    """
    # Counted with those that stand in strings: never too few, and at the speed of memory.
    if data.count(b"{") + data.count(b"[") > limits.JSON_CONTAINERS:
        raise bad_input(
            f"{where} holds more than {limits.JSON_CONTAINERS} objects and lists.", hint
        )
    if data.count(b",") > limits.JSON_VALUES:
        raise bad_input(f"{where} holds more than {limits.JSON_VALUES} values.", hint)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=hook, parse_constant=constant)
        if _HALF_A_LETTER.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise bad_input(f"{where} is not valid JSON: {error}.", hint) from None
    return value


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder. Raises PackError (exit code 6) where there are more than any
    checkpoint or package has."""
    names = [path.name for path in islice(folder.iterdir(), limits.FOLDER_NAMES + 1)]
    if len(names) > limits.FOLDER_NAMES:
        raise bad_input(
            f"{folder} holds more than {limits.FOLDER_NAMES} files.",
            "Name the folder that holds the model alone.",
        )
    return sorted(names)


def file_below(folder: Path, name: str) -> Path:
    """The file that a list in a folder names, below that folder. Raises ValueError with what
    follows the list's name: "names 'x.wav', and there is no such file"."""
    problem = f"names {name[:80]!r}"
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve()) and not Path(name).is_absolute()
        there = inside and path.is_file()
    except (ValueError, OSError):
        # No name of a file: too long, with a NUL, or not text.
        inside, there = True, False
    if not inside:
        raise ValueError(f"{problem}, which is not below the folder of the list")
    if not there:
        raise ValueError(f"{problem}, and there is no such file")
    return path


def load_toml(text: str) -> dict[str, Any]:  # Any: nothing in it has been checked
    """tomllib.loads for a text from outside. Raises ValueError (TOMLDecodeError is one) also for
    what is nested too deeply or too large."""
    if len(text) > limits.TOML_CHARACTERS:
        raise ValueError(f"more than {limits.TOML_CHARACTERS} characters")
    # The library copies the beginning of a dotted key once for each of its parts.
    lines = (line for line in text.splitlines() if len(line) > limits.TOML_DOTS)
    if any(line.count(".") > limits.TOML_DOTS for line in lines):
        raise ValueError(f"more than {limits.TOML_DOTS} dots in one line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("tables are nested too deeply") from None
