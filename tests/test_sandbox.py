"""The sandbox of chat templates: what is not data never becomes text, and what publishers write
works as ever."""

from __future__ import annotations

from typing import Any

import pytest

from packager.checkpoint.template import render
from packager.errors import ExitCode, PackError

CALL = {"function": {"name": "f", "arguments": {"a": 1}}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo", "tool_calls": [CALL]},
]

HOST = [
    *("range", "raise_exception", "namespace", "dict", "lipsum", "cycler('a')", "joiner()", "self"),
    *(
        "messages.index",
        "messages['index']",
        "messages[0].items",
        "'x'.upper",
        "messages|attr('index')",
        "'{}'.format",
    ),
    *(
        "messages|map(attribute='role')",
        "messages|reverse",
        "messages|select",
        "messages|batch(2)",
        "messages[0]|items",
    ),
    *("range._wrapped", "(messages|map('upper'))._wrapped"),
    *(
        "[messages.index]",
        "{'a': range}",
        "(1, range)",
        "[[{'a': [messages.index]}]]",
        "namespace(f=messages.index).f",
    ),
]
TO_TEXT = [
    "{}",
    "{} ~ ''",
    "{}|string",
    "[{}]|string",
    "[{}]|join(',')",
    "'%s' % ([{}],)",
    "'{{}}'.format({})",
    "'%s'|format({})",
]
TO_TEXT += [
    "{}|e",
    "{}|pprint",
    "{}|upper",
    "[{}]|pprint",
    "[{}] ~ ''",
    "raise_exception({}|string)",
]


def test_no_object_of_the_host_becomes_text_by_any_way() -> None:
    printed = []
    for thing in HOST:
        for way in TO_TEXT:
            template = "{{ " + way.format(f"({thing})") + " }}"
            try:
                text = render(template, MESSAGES)
            except PackError as error:
                assert error.exit_code is ExitCode.INPUT
                text = error.message
            if (
                " at 0x" in text
                or "<class" in text
                or "<built-in" in text
                or "<function" in text
                or "<bound" in text
            ):
                printed.append((template, text))
    assert printed == []


@pytest.mark.parametrize(
    "thing",
    [thing for thing in HOST if not thing.startswith("namespace(f") and "_wrapped" not in thing],
)
def test_what_is_printed_and_is_no_data_is_refused(thing: str) -> None:
    with pytest.raises(PackError, match="it prints an object that is not data"):
        render("{{ " + thing + " }}", MESSAGES)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages[0].content.upper() }}", "HI"),
        (
            "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=user;content=hi;",
        ),
        ("{{ messages|map(attribute='role')|join(',') }}", "user,assistant"),
        (
            "{% if messages|selectattr('role', 'equalto', 'x') %}as in the library{% endif %}",
            "as in the library",
        ),
        ("{{ messages|map(attribute='role')|list }}", "['user', 'assistant']"),
        (
            "{{ messages[1].tool_calls|tojson }}",
            '[{"function": {"name": "f", "arguments": {"a": 1}}}]',
        ),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
        ("{{ '{} {}'.format('a', 1) }}{{ 'x%s' % 1 }}", "a 1x1"),
        (
            "{% for m in messages[::-1] %}{{ loop.index }}{{ m.role }}{% endfor %}",
            "1assistant2user",
        ),
        ("{% for m in messages|reverse %}{{ m.role }}{% endfor %}", "assistantuser"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) }}", "<1>"),
        ("{% macro w() %}{{ caller() }}{% endmacro %}{% call w() %}in{% endcall %}", "in"),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}", "aba"),
        ("{% set j = joiner('|') %}{{ j() }}a{{ j() }}b", "a|b"),
        (
            "{{ range(3)|list }}{{ dict(a=1) }}{{ messages[0].keys()|list }}",
            "[0, 1, 2]{'a': 1}['role', 'content']",
        ),
        (
            "{{ messages[0].items is callable }}{{ messages|length }}{{ nothing }}{{ none }}",
            "True2None",
        ),
        ("{{ ' a b '.strip().split(' ')[0].rstrip('\\n') }}{{ 'abc'|list|first }}", "aa"),
        ("{{ messages|map('length')|sum }}{{ messages|groupby('role')|length }}", "52"),
    ],
)
def test_what_publishers_write_works_as_in_the_library(template: str, text: str) -> None:
    assert render(template, MESSAGES) == text
