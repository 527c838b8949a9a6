"""No text of a manifest is markup in a paper, whichever field holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from packager.papers import card, licence, measured
from packager.records import Contents
from packager.records.base import Misfit
from tests.attack.packages import rich_manifest
from tests.support.hostile_names import shown

PRINTABLE = "|a|[x](http://evil.example)<b>![y](http://evil.example/p)`c`*d*"
"""What a manifest may say: control characters are refused where it is read."""


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _leaves(item, (*path, key))
    elif isinstance(value, str):
        yield path


def _with(value: Any, path: tuple[Any, ...], text_of: str) -> Any:
    if not path:
        return text_of
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(copy[path[0]], path[1:], text_of)
    return copy


def _free(value: Any, path: tuple[Any, ...]) -> bool:
    """Whether a text of a manifest may be any that can be shown."""
    try:
        Contents.from_json(_with(value, path, PRINTABLE))
    except Misfit:
        return False
    return True


def _tokens(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _tokens(token.children or [])


def _markup(paper: str) -> list[str]:
    """The kinds of all pieces of a paper but those that letters and code are."""
    kinds = MarkdownIt("commonmark").enable("table").parse(paper.split("---\n", 2)[2])
    passed_over = ("text", "code_inline", "softbreak", "text_special")
    return [token.type for token in _tokens(kinds) if token.type not in passed_over]


def test_no_text_of_a_manifest_is_markup_in_a_paper() -> None:
    """Every text of a manifest that has them all, where any is taken."""
    genuine: dict[str, Any] = json.loads(rich_manifest())
    genuine["chat"]["profile"]["tools"] = [{"function": {"name": "x"}}]
    genuine["retrieval"]["task"] = "embed"
    others = json.loads(json.dumps(genuine))
    del others["retrieval"], others["measured"], others["quality"]["skipped"]
    del others["quality"]["retrieval"]
    others["quality"]["parts"] *= 2
    for base in (genuine, others):
        fine = hostile = base
        free = [
            path for path in _leaves(base) if path != ("retrieval", "task") and _free(base, path)
        ]
        assert len(free) > 50
        for path in free:
            fine, hostile = _with(fine, path, "twin"), _with(hostile, path, PRINTABLE)
        papers = [
            card.text(known) + measured.left_out(known.measured)
            for known in map(Contents.from_json, (fine, hostile))
        ]
        assert len(papers[0].splitlines()) == len(papers[1].splitlines())
        assert papers[1].count("evil.example") > 20
        assert _markup(papers[0]) == _markup(papers[1])
    variant = {"repo_id": "\u202ea\nb", "license": "\x1b[2J\nx"}
    for paper in (
        licence.text(variant),
        licence.text({**variant, "license": None}),
        licence.notice(variant, "a\nb", dummy=False, adapters=["x\ny\u202e"]),
        licence.notice(variant, "a\nb", dummy=True),
    ):
        assert shown(paper) and len(paper.splitlines()) <= 4
