"""Mutants of bytes, of JSON and of texts, each a function of a seeded random generator."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_WORDS: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 31,
    1 << 63,
    10**40,
    1.5,
    1e308,
    float("nan"),
    "",
    "a" * 5000,
    "../../etc/passwd",
    "/etc/passwd",
    "x\ny\x1b[31m",
    "\u202e\ud800",
    "null\0byte",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [{"a": [1, {}]}] * 50,
)
_NUMBERS = (
    0,
    1,
    0x7F,
    0xFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_LONGEST_PART = 10_000
_TOKENS = (
    b"\0",
    b"\xff",
    b"\n",
    b"{",
    b"[",
    b"]}",
    b'"',
    b"\\",
    b"\\ud800",
    b"..",
    b"=",
    b"'''",
    b"{{",
    b"{%",
    b"- &a",
    b"*a",
    b"<<: *a",
    b"|",
    b"1e999",
    b"9" * 5000,
    b"NaN",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"a." * 3000,
)


def of_bytes(random_: random.Random, data: bytes) -> bytes:
    """Bits, bytes, numbers and stretches changed, moved, doubled, cut or put in."""
    out = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
        place = random_.randrange(len(out) + 1)
        length = min(len(out) - place, random_.choice((1, 2, 4, 8, 64, 4096)))
        match random_.randrange(9):
            case 0 if length:
                out[random_.randrange(len(out))] ^= 1 << random_.randrange(8)
            case 1:
                del out[place : place + length]
            case 2:
                out[place:place] = random_.choice(_TOKENS)
            case 3:
                out[place : place + length] = out[place : place + length] * random_.choice((2, 9))
            case 4:
                width = random_.choice((2, 4, 8))
                value = random_.choice(_NUMBERS) & ((1 << (8 * width)) - 1)
                out[place : place + width] = value.to_bytes(
                    width, random_.choice(("little", "big"))
                )
            case 5:
                out[place : place + length] = random_.randbytes(length)
            case 6:
                del out[place:]
            case 7:
                out += random_.randbytes(length)
            case _:
                other = random_.randrange(len(out) + 1)
                out[place : place + length] = out[other : other + length]
        if not out:
            break
    return bytes(out)


def of_json(random_: random.Random, data: bytes) -> bytes:
    """Values replaced, removed, doubled, moved or nested in each other; every third time as
    bytes."""
    if random_.randrange(3) == 0:
        return of_bytes(random_, data)
    value = json.loads(data)
    for _ in range(random_.choice((1, 1, 2, 5))):
        value = _changed(random_, value)
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return of_bytes(random_, data)


def _changed(random_: random.Random, value: Any) -> Any:
    value = copy.copy(value)
    places = list(_places(random_, value))
    if not places:
        return random_.choice(_WORDS)
    holder, key = random_.choice(places)
    match random_.randrange(6):
        case 0:
            del holder[key]
        case 1:
            holder[key] = [holder[key]]
        case 2 if isinstance(holder, dict):
            holder[random_.choice(("", "files", "path", "id", "content", "../x", key + "x"))] = (
                holder[key]
            )
        case 3 if isinstance(holder[key], int):
            holder[key] = holder[key] * random_.choice((-1, 2, 1000)) + random_.choice((-1, 0, 1))
        case 4:
            inner, other = random_.choice(places)
            if isinstance(inner, dict) == isinstance(holder, dict) and other in inner:
                holder[key] = copy.deepcopy(inner[other])
        case _:
            holder[key] = random_.choice(_WORDS)
    return value


def _places(random_: random.Random, value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Some of the places in objects and lists: the outer ones all, of long lists a few. What they
    hold is copied, so that the original stays."""
    if not isinstance(value, dict | list):
        return
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys if len(keys) < 200 else random_.sample(keys, 20):
        yield value, key
        if isinstance(value[key], dict | list) and depth < 6:
            value[key] = copy.copy(value[key])
            yield from _places(random_, value[key], depth + 1)


def of_text(random_: random.Random, data: bytes) -> bytes:
    """Lines and words moved, doubled or removed; every third time as bytes."""
    if random_.randrange(3) == 0:
        return of_bytes(random_, data)
    split = b"\n" if random_.randrange(2) else b" "
    parts = data.split(split)
    for _ in range(random_.choice((1, 2, 4))):
        place = random_.randrange(len(parts))
        match random_.randrange(4):
            case 0:
                parts[place] = random_.choice(_TOKENS)
            case 1:
                parts.insert(place, parts[random_.randrange(len(parts))])
            case 2:
                # Four times a hundred of a large part would be more than the worker may hold.
                parts[place] = parts[place][:_LONGEST_PART] * random_.choice((2, 100))
            case _:
                parts[place] = of_bytes(random_, parts[place])
    return split.join(parts)
