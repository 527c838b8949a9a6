"""A process that renders chat templates and does nothing else: a line of JSON in, a line of JSON
out. A template comes with the package, from outside: its time and memory are bounded here.

The server starts this file; it imports nothing that stands beside it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Any: what a template is given, and what it hands to its filters.

SECONDS = 10.0
"""A template of Qwen's renders in milliseconds: what takes longer does not mean to end."""
_MEMORY_BYTES = 1 << 30
_MOST_CHARACTERS = 1 << 24


@lru_cache(maxsize=2)
def _compiled(template: str) -> Template:
    """The template in the environment that transformers has, but for what only training uses."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _answer(asked: dict[str, Any]) -> dict[str, str]:
    try:
        text = _compiled(asked["template"]).render(asked["variables"])
    except MemoryError:
        return {"error": "it takes more memory than any prompt needs"}
    except (
        TemplateError,
        SyntaxError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        return {"error": str(error)[:1000]}
    if len(text) > _MOST_CHARACTERS:
        return {"error": f"it makes one prompt of {len(text)} characters"}
    return {"text": text}


def main() -> None:
    """Answer until no more comes. The asking process sees the end of this one where a template
    takes longer than SECONDS."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # not on every system

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, hard))
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin.buffer:
            # A thread without Python in it: no loop of a template, in Jinja or below, holds it up,
            # and it does its work when the server is long gone, too.
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
            answer = json.dumps(_answer(json.loads(line))).encode()
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
