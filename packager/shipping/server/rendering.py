"""A process that renders chat templates and does nothing else: a line of JSON in, a line of JSON
out. A template comes with the package, from outside: its time and memory are bounded here.

The server starts this file; of qwen-pack's other modules it reads the sandbox alone.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import sys
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError

# Any: what a template is given.

SECONDS = 10.0
"""A template of Qwen's renders in milliseconds: what takes longer does not mean to end."""
_MEMORY_BYTES = 1 << 30
_MOST_CHARACTERS = 1 << 24


@cache
def _environment() -> Any:
    """The sandbox of qwen-pack, in which a template acts on nothing and prints data alone."""
    path = Path(__file__).parents[2] / "checkpoint" / "sandbox.py"
    spec = importlib.util.spec_from_file_location("sandbox", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Sandbox()


@lru_cache(maxsize=2)
def _compiled(template: str) -> Template:
    compiled: Template = _environment().from_string(template)
    return compiled


# Any: JSON from the process that asks, and never from outside.
def _answer(asked: dict[str, Any]) -> dict[str, str]:
    try:
        text = _compiled(asked["template"]).render(asked["variables"])
        text.encode("utf-8")  # half a surrogate pair is no text
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
