"""The single chat template that a package carries, made of those that the checkpoint has by name.

transformers takes the template `tool_use` where a conversation has tools and `default` where not,
and gives every template variables that no engine has. The packaged template says all that in
Jinja alone, so that each engine writes what transformers would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from packager.checkpoint.chat_templates import DEFAULT, TOOLS
from packager.escapes import jinja

_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
_AS_EVER = re.compile(r"\btojson\(\s*ensure_ascii\s*=\s*[Ff]alse\s*\)")
_ABSENT = ("tools", "documents")
"""Variables that transformers always passes: None where a conversation has none."""


def chosen(templates: Mapping[str, str], tools: object) -> str | None:
    """The template that transformers takes for a conversation with these tools, or with None."""
    return templates.get(TOOLS if tools is not None and TOOLS in templates else DEFAULT)


def portable(
    templates: Mapping[str, str], tokens: Mapping[str, str], first: Sequence[str] = ()
) -> str | None:
    """One template for every engine; None for a base model. `first` are statements before all else.

    It is the default template letter by letter unless that needs what only transformers gives:
    variables for special tokens, None for absent tools, `generation` blocks, a second template.
    """
    plain = {name: _in_common(text) for name, text in templates.items()}
    if not plain:
        return None
    body = plain[DEFAULT]
    if TOOLS in plain:
        # The engines' own languages know no None from undefined: no tools are none.
        body = (
            "{%- if tools is defined and tools is not none -%}"
            + _inner(plain[TOOLS])
            + "{%- else -%}"
            + _inner(plain[DEFAULT])
            + "{%- endif -%}"
        )
    used = "\n".join(plain.values())
    sets = [
        f"{{%- set {name} = {literal(text)} -%}}"
        for name, text in tokens.items()
        if re.search(rf"\b{re.escape(name)}\b", used)
    ]
    sets += [
        f"{{%- if {name} is not defined -%}}{{%- set {name} = none -%}}{{%- endif -%}}"
        for name in _ABSENT
        if re.search(rf"\b{name}\s+is\b", used) and TOOLS not in plain
    ]
    return _put_in_front([*first, *sets], body)


def _put_in_front(statements: list[str], template: str) -> str:
    """A template behind statements that write nothing, its own first characters unchanged."""
    return "".join(statements) + _inner(template, last=True) if statements else template


def literal(value: Any) -> str:
    """A JSON value as Jinja writes it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return jinja(value)
    if isinstance(value, Mapping):
        rows = (f"{literal(str(key))}: {literal(entry)}" for key, entry in value.items())
        return "{" + ", ".join(rows) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(entry) for entry in value) + "]"
    return repr(value)


def _in_common(text: str) -> str:
    """`generation` blocks, which mark text for training, as blocks that every Jinja knows.

    And a keyword of transformers' `tojson` that says what the engines do in any case.
    """
    plain = _GENERATION.sub(
        lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", text
    )
    return _AS_EVER.sub("tojson", plain)


def _inner(template: str, *, last: bool = False) -> str:
    """A whole template as a part of another: what Jinja does at its edges is done here."""
    # Spaces before a block that begins a line are dropped, but only at the begin of a line.
    text = re.sub(r"\A[ \t]+(?=\{%[^+])", "", template)
    # A line break at the very end is dropped.
    text = text if last else re.sub(r"\r?\n\Z", "", text)
    start = "" if re.match(r"\{[%{#]-", text) else "{{- '' }}"
    end = "" if last or re.search(r"-[%}#]\}\Z", text) else "{{ '' }}"
    return start + text + end
