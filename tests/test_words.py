"""What a user reads is plain English: turns of phrase that only a translation has do not come
back, in the sentences of the programs or in the pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

PROGRAMS = ("packager", "targets", "tui")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
REFUSED = {
    r"(?<!there )\b(?:is|are) no (?!longer|more|less|larger|smaller|slower|faster|older)": (
        "'x' is no size.",
        "is not a valid ...",
    ),
    r"\b(?:that|which) (?:is|are) none\b": ("a digest that is none", "an invalid ..."),
    r"\bbehind (?:the|a|an|its|it|this|every|that|them|one|commas)\b": (
        "bytes behind the end of the file",
        "after",
    ),
    r"\bnobody\b": ("nobody can tell", "the fact itself, or: no one"),
    r"\bof (?:its|their|your|one's|our|his) own\b(?! \w)": ("code of its own", "its own ..."),
    r"\bgo(?:es)? on from\b": ("the command goes on from there", "continues"),
    r"\bstands? (?:in|on|at|behind|beside|before|for)\b": (
        "the digest stands in the manifest",
        "is in, is listed in, means",
    ),
    r"\blies? (?:in|on|at|behind|beside|above|below|inside|within|outside|apart)\b": (
        "a package lies in the folder",
        "is in",
    ),
    r"\banew\b": ("try it anew", "again"),
    r"\bmeans? nothing without\b": ("--by means nothing without --keep", "has no effect without"),
    r"\bsays nothing (?:of|without)\b": ("it says nothing of it", "does not mention"),
    r"\b(?:is|are) told (?:with|at|as|here|in|by)\b": ("a mistake is told at once", "is reported"),
    r"\bbeside (?:the|its|it|that|every|English)\b": ("beside the package", "next to, besides"),
}
"""Patterns of translated English, each with an example and with what to write instead."""


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string of a program that has words in it, but for docstrings that no
    command prints. Values within an f-string are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            "command" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield node.lineno, ast.get_docstring(node) or ""
        if isinstance(node, ast.Expr):
            skipped.add(node.value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of a page, without its blocks of code and what is between backticks."""
    code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        code = code != line.startswith("```")
        if not code:
            yield number, re.sub(r"`[^`]*`", "``", line)


def refusals(text: str) -> list[str]:
    return [
        instead
        for pattern, (_, instead) in REFUSED.items()
        if re.search(pattern, " ".join(text.split()), re.IGNORECASE)
    ]


def test_every_pattern_refuses_its_example_and_not_what_is_to_be_written() -> None:
    for pattern, (example, instead) in REFUSED.items():
        assert re.search(pattern, example, re.IGNORECASE), pattern
        assert not refusals(instead), pattern
    assert not refusals("There is no variant 'x'. The file is no longer there.")


def test_sentences_of_the_programs_are_plain_english() -> None:
    refused = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text!r}: {instead}"
        for folder in PROGRAMS
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line, text in sentences(path)
        if " " in text
        for instead in refusals(text)
    ]
    assert not refused, "\n".join(refused)


def test_the_pages_are_plain_english() -> None:
    pages = (REPOSITORY / name for name in PAGES)
    refused = [
        f"{page.relative_to(REPOSITORY)}:{line}: {text}: {instead}"
        for top in pages
        for page in (sorted(top.rglob("*.md")) if top.is_dir() else [top])
        for line, text in prose(page)
        for instead in refusals(text)
    ]
    assert not refused, "\n".join(refused)
