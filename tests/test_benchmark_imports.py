"""The scripts in benchmarks/ and training/, which no test runs whole, import only what is there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

HOUSE = ("benchmarks", "packager", "targets", "tests", "training", "tui")
SCRIPTS = sorted(
    path for folder in ("benchmarks", "training") for path in (REPOSITORY / folder).glob("*.py")
)


def names_in(node: ast.stmt) -> Iterator[str]:
    """What a statement of a module defines, also below `if` and `try`."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        case _:
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part.id
                if part is not node and isinstance(part, ast.Import | ast.ImportFrom):
                    yield from names_in(part)
                if isinstance(part, ast.FunctionDef | ast.ClassDef):
                    yield part.name


@cache
def defined(module: str) -> frozenset[str] | None:
    """The names of a module of the house and its submodules; None where there is no such module."""
    path = REPOSITORY.joinpath(*module.split("."))
    plain = path.with_suffix(".py")
    file = plain if plain.is_file() else path / "__init__.py"
    inner = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    if not file.is_file():
        return frozenset(inner) if inner else None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset({name for node in tree.body for name in names_in(node)} | inner)


def imported(script: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOUSE:
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_what_a_script_imports_from_the_house_is_there() -> None:
    assert len(SCRIPTS) > 20
    missing = [
        f"{script.name}: {module}.{name}"
        for script in SCRIPTS
        for module, name in imported(script)
        if name not in (defined(module) or ())
    ]
    assert missing == []
    # A name that is gone is found.
    assert "llama_bench" not in (defined("benchmarks.harness_vs_peers") or ())
