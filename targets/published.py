"""Published speeds: what others measured on devices of ours, read from published.toml and
checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from packager import catalog
from packager.errors import bad_input
from packager.json_values import JsonObject, at, at_or_none, object_at, object_or_empty, objects_at
from packager.shape import Shape

FILE = Path(__file__).with_name("published.toml")
Use = Literal["fit", "check"]
_KEYS: dict[str, type | tuple[type, ...]] = {
    "device": str,
    "variant": str,
    "shape": str,
    "recipe": str,
    "prompt": int,
    "prefill": float,
    "filled": int,
    "decode": float,
    "parallel": int,
    "use": str,
    "source": str,
    "note": str,
}
_WIDTHS = ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: a model in a recipe on a device, tokens per second; None where that figure
    was not published.

    `prefill` is the rate of a prompt of `prompt` tokens from an empty cache, `decode` the rate
    behind `filled` tokens, of each of `parallel` sequences. `known` says whether the model is
    one of the catalogue's. Rows that were fitted to have `use` "fit".
    """

    device: str
    model: str
    known: bool
    recipe: str
    use: Use
    source: str
    prompt: int = 512
    prefill: float | None = None
    filled: int = 0
    decode: float | None = None
    note: str = ""
    parallel: int = 1

    @property
    def shape(self) -> Shape:
        """The text decoder's."""
        if not self.known:
            return _shapes()[self.model]
        shape = catalog.find(self.model).shape
        assert shape is not None
        return shape


@cache
def rows(path: Path = FILE) -> tuple[Row, ...]:
    """All rows, in the file's order. Raises PackError (exit code 6) naming file and row for what is
    missing, unknown or absurd."""
    document = _document(path)
    sources, shapes = object_or_empty(document, "sources"), object_or_empty(document, "shapes")
    return tuple(
        _row(table, sources, shapes, f"{path.name}: rows[{number}]")
        for number, table in enumerate(objects_at(document, "rows"))
    )


@cache
def _document(path: Path) -> JsonObject:
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def _shapes() -> dict[str, Shape]:
    tables = object_at(_document(FILE), "shapes")
    # Biases are a few kilobytes; with them the layout is one that the llama.cpp adapter sizes.
    more: JsonObject = {
        "qkv_bias": True,
        "qk_norm": False,
        "context": 8192,
        "model_type": "qwen2",
    }
    return {name: _shape(object_at(tables, name), more) for name in tables}


def _shape(table: JsonObject, more: JsonObject) -> Shape:
    return Shape.from_dict({**{key: table[key] for key in (*_WIDTHS, "tied")}, **more})


def _row(table: JsonObject, sources: JsonObject, shapes: JsonObject, where: str) -> Row:
    for key, value in table.items():
        if key not in _KEYS or not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise bad_input(f"{where}: {key} = {value!r} is not what a published row may have.")
    if ("variant" in table) == ("shape" in table):
        raise bad_input(f"{where} must name either a variant or a shape.")
    if table.get("use") not in ("fit", "check") or table.get("source") not in sources:
        raise bad_input(f"{where} must have a use (fit or check) and a source of [sources].")
    if "shape" in table and table["shape"] not in shapes:
        raise bad_input(f"{where}: {table['shape']!r} is not in [shapes].")
    for rate, length in (("prefill", "prompt"), ("decode", "filled")):
        if (rate in table) != (length in table):
            raise bad_input(f"{where}: {rate} and {length} belong together.")
        if rate in table and not (
            0 < at(table, rate, float) < 1e6 and 0 < at(table, length, float) < 2**24
        ):
            raise bad_input(f"{where}: {rate} and {length} must be numbers above zero.")
    if not 0 < (at_or_none(table, "parallel", int) or 1) <= 4096:
        raise bad_input(f"{where}: parallel must be a number of sequences.")
    if "prefill" not in table and "decode" not in table:
        raise bad_input(f"{where} has no figure.")
    fields = {key: value for key, value in table.items() if key not in ("variant", "shape")}
    more = {
        "model": table.get("variant") or table["shape"],
        "known": "variant" in table,
        "source": sources[at(table, "source", str)],
    }
    return msgspec.convert({**fields, **more}, Row)
