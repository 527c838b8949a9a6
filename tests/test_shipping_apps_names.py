"""Names that were chosen to break out of a file change nothing in any format for apps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift

from tests.support.shipping_packages import (
    EVIL_FILE,
    FORMATS_FOR_APPS,
    evil_package,
    exported,
    gguf_package,
    instructions,
    tree,
)

pytestmark = pytest.mark.slow

QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')

LANGUAGES = {
    "android": ("kotlin/ModelFiles.kt", tree_sitter_kotlin),
    "ios": ("swift/ModelFiles.swift", tree_sitter_swift),
}
TEXTS = (
    "line_comment",
    "comment",
    "multiline_comment",
    "block_comment",
    "string_literal",
    "line_string_literal",
)


def parts(source: Path, grammar: Any) -> list[str]:
    """The kinds of all nodes of a source in their order, without what strings and comments hold."""
    tree = tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse(source.read_bytes())
    assert not tree.root_node.has_error, source
    found, waiting = [], [tree.root_node]
    while waiting:
        node = waiting.pop()
        found.append(node.type)
        if node.type not in TEXTS:
            waiting += reversed(node.children)
    return found


@pytest.mark.parametrize("name", LANGUAGES)
def test_hostile_names_change_nothing_but_what_strings_and_comments_hold(
    tmp_path: Path, name: str
) -> None:
    source, grammar = LANGUAGES[name]
    plain = gguf_package(tmp_path / "plain", files={"model/b.bin": b"more"})
    one, other = (
        exported(plain, name, tmp_path / "one"),
        exported(evil_package(tmp_path / "evil"), name, tmp_path / "other"),
    )
    before = parts(one / source, grammar)
    assert (
        len(before) > 500 and set(before) & set(TEXTS) and parts(other / source, grammar) == before
    )


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_hostile_names_add_no_line_and_no_markup_to_any_file(tmp_path: Path, name: str) -> None:
    folder = exported(
        evil_package(tmp_path / "evil", ".bin" if name == "ollama" else ".gguf"),
        name,
        tmp_path / "out",
    )
    plain = gguf_package(
        tmp_path / "plain",
        files={"model/b.bin": b"more", **({"model/a.bin": b"w"} if name == "ollama" else {})},
        recipe={"id": "x", "kv": "f16"},
    )
    twin = tree(exported(plain, name, tmp_path / "twin"))
    written = {
        path: data.decode()
        for path, data in tree(folder).items()
        if not path.startswith(("package/", "assets/", "play/", "rauc/u"))
    }
    for path, text in written.items():
        assert len(text.splitlines()) == len(twin[path].decode().splitlines()), path
        if path.endswith((".md", "Modelfile", "Dockerfile")):
            assert not re.search(r"<b>|`id`|\$\(id\)|\*/", re.sub(QUOTED, "", text)), path
    if name == "docker":
        found = dict(instructions((folder / "Dockerfile").read_text()))
        words = json.loads(found["ENTRYPOINT"])
        assert words[words.index("--model") + 1] == f"/opt/qwen-pack/package/{EVIL_FILE}.gguf"
        assert set(found) == {
            "ARG",
            "FROM",
            "LABEL",
            "WORKDIR",
            "COPY",
            "RUN",
            "ENV",
            "USER",
            "EXPOSE",
            "ENTRYPOINT",
        }
