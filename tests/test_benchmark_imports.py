"""The scripts in benchmarks/ and training/, which no test runs whole, import only what is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

HOUSE = ("benchmarks", "packager", "targets", "tests", "training", "tui")
SCRIPTS = sorted(
    path for folder in ("benchmarks", "training") for path in (REPOSITORY / folder).glob("*.py")
)


def missing(module: str, name: str) -> bool:
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in HOUSE:
            return True
        pytest.skip(f"{error.name} is not installed here")
    if hasattr(holder, name):
        return False
    return not (hasattr(holder, "__path__") and importlib.util.find_spec(f"{module}.{name}"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_imports_from_the_house_is_there(script: Path) -> None:
    imported = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOUSE
        for alias in node.names
    ]
    assert [pair for pair in imported if missing(*pair)] == []
