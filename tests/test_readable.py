"""Code that reads top to bottom: no choice within a choice, and files that fit into one's head."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import REPOSITORY

PROGRAMS = ("packager", "targets", "tui")
MOST_LINES = 400


def nested(text: str) -> list[int]:
    """The lines of conditional expressions that hold another one as an outcome or a condition."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.IfExp)
        and any(isinstance(part, ast.IfExp) for part in (node.test, node.body, node.orelse))
    ]


def files(*endings: str) -> list[Path]:
    return sorted(
        path
        for folder in PROGRAMS
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in endings
    )


def test_no_conditional_expression_holds_another() -> None:
    assert nested("a = 1 if b else 2 if c else 3") == [1] and not nested("a = 1 if b else 2")
    places = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in files(".py")
        for line in nested(path.read_text(encoding="utf-8"))
    ]
    assert not places


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files(".py", ".cpp", ".hpp")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
