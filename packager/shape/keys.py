"""Whether every key of a config.json that changes the network is one that is computed here.

config_keys.json lists what transformers reads, with its version; config_keys.toml says what becomes
of each key. A key that transformers does not read changes nothing and is passed over.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.json_values import JsonObject, at, texts_at
from packager.shape.model import Widths
from packager.shape.names import FIRST_GENERATION, config_path
from packager.shape.tensors import naming_of

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Keys:
    """`version` of transformers; `read` by it, per decoder; `known` here; `only` the values with
    which a key is computed."""

    version: str
    read: Mapping[str, frozenset[str]]
    known: frozenset[str]
    only: Mapping[str, tuple[Any, ...]]


@cache
def keys() -> Keys:
    """Both files, read once."""
    listed: JsonObject = json.loads((_FOLDER / "config_keys.json").read_text("utf-8"))
    ours = tomllib.loads((_FOLDER / "config_keys.toml").read_text("utf-8"))
    version, common = at(listed, "transformers", str), texts_at(listed, "common")
    decoders = listed.keys() - {"transformers", "common"}
    without_effect = [key for group in ours["without_effect"].values() for key in group]
    only = {key: tuple(values) for key, values in ours["only"].items()}
    known = frozenset((*ours["computed"], *ours["refused_elsewhere"], *without_effect))
    read = {decoder: frozenset((*common, *texts_at(listed, decoder))) for decoder in decoders}
    # The first generation's own configuration class is not part of transformers: what it can say is
    # in the lists above.
    return Keys(
        version, read | {FIRST_GENERATION: frozenset((*common, *known, *only))}, known, only
    )


def check_keys(config: Mapping[str, Any], shape: Widths, where: str) -> None:
    """Raise PackError (exit code 6) naming the first key of a config.json that changes the network
    and is not computed.

    `config` is the whole file: the text decoder's own table within it is looked at as well.
    """
    table: Mapping[str, Any] = config
    _check(table, shape, where, "")
    path = ""
    for key in config_path(config, naming_of(shape)):
        table, path = table[key], f"{path}{key}."
        _check(table, shape, where, path)


def _check(table: Mapping[str, Any], shape: Widths, where: str, path: str) -> None:
    data = keys()
    read = data.read[naming_of(shape).decoder]
    for key, value in table.items():
        if value is None or key not in read or key in data.known:
            continue
        if key not in data.only:
            raise bad_input(
                f"{where}: transformers {data.version} reads {path}{key} ({value!r}), which is not "
                "computed here.",
                "Remove the key if the model was trained without it.",
            )
        if not any(_same(value, allowed) for allowed in data.only[key]):
            allowed = " or ".join(map(json.dumps, data.only[key])) or "null"
            raise bad_input(
                f"{where}: {path}{key} is {json.dumps(value)}, and only {allowed} is computed "
                "here.",
                "Take a checkpoint of an ordinary Qwen.",
            )


def _same(value: Any, allowed: Any) -> bool:
    """Equal, and not a truth value beside a number."""
    return bool(value == allowed and isinstance(value, bool) == isinstance(allowed, bool))
