"""The modules that a program of an export is made of: those that it starts with, and what they
import, the files of qwen-pack's own as they are.

Imports for types alone are left out. What a module names in a text counts as well: another module
(`"packager.pictures.decode:decode_job"`, which runs in a process of its own), and a file beside it
(`"keys.toml"`, `"rendering.py"`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from packager.files import write_atomically

FOLDER = "server"
"""Where they stand in an export, in folders of their packages."""
_ROOT = Path(__file__).parents[3]
_OURS = re.compile(r"(packager|targets)(\.\w+)+")
_NAMED = re.compile(r"((?:packager|targets)(?:\.\w+)+)(?::\w+)?")
_BESIDE = re.compile(r"\w+\.(toml|py)")
_MEASURING = "packager.measure.trials"
"""What of a session's modules only measures: no server needs it."""


def write_tree(folder: Path, first: Sequence[str]) -> None:
    """The modules that `first` need into the new folder, each below the folders of its package."""
    folder.mkdir()
    for path, data in tree(first).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / path, data)


def tree(first: Sequence[str]) -> dict[PurePosixPath, bytes]:
    """The files of the modules that `first` need, by their places. A package of which nothing
    itself is needed has an empty `__init__.py`."""
    known: set[str] = set()
    files: dict[PurePosixPath, bytes] = {}
    waiting = list(first)
    while waiting:
        module = waiting.pop()
        if module in known:
            continue
        known.add(module)
        path = _file(module)
        assert path is not None, module
        modules, data = _needed(module)
        waiting += modules
        for source in (path, *data):
            files[PurePosixPath(source.relative_to(_ROOT).as_posix())] = source.read_bytes()
    for place in list(files):
        for parent in list(place.parents)[:-1]:
            files.setdefault(parent / "__init__.py", b"")
    return dict(sorted(files.items()))


def _file(module: str) -> Path | None:
    """The file of a module of ours; None where the name is another one's, or a name in a module."""
    if not _OURS.fullmatch(module):
        return None
    place = _ROOT.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in files if path.is_file()), None)


@cache
def _needed(module: str) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """The modules that one needs itself, and the other files beside it."""
    path = _file(module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    beside: set[Path] = set()
    for node in _nodes(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= set(_imported(node, package))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = _NAMED.fullmatch(node.value)
            names |= {named[1]} if named else set()
            if _BESIDE.fullmatch(node.value) and path.with_name(node.value).is_file():
                beside.add(path.with_name(node.value))
    programs = {other for other in beside if other.suffix == ".py"}
    names |= {f"{package}.{other.stem}" for other in programs}
    modules = {name for name in names if name != _MEASURING and _file(name)}
    return tuple(sorted(modules)), tuple(sorted(beside - programs))


def _nodes(parsed: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module but those that only checkers of types read."""
    for node in ast.iter_child_nodes(parsed):
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing:
            yield node
            yield from _nodes(node)


def _imported(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """The modules of a `from` import: each name may be one, else the module before it is meant."""
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if _file(inner) else base
