"""A text from outside as a literal of another language: what comes out reads back as what went in,
by somebody else's reader."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager import escapes
from packager.errors import PackError
from packager.shipping.apps import snippets
from tests.support.shipping_packages import EVIL

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NASTY = [
    "",
    EVIL,
    "a\nb\r\nc\td\0e",
    "\\",
    '"""',
    "*/",
    "??/",
    "\\u000a",
    "$x ${y}",
    "\u2028\u202e",
    "\x7f\x80",
    "é" * 50,
    "0x00" + "\x01" + "7",
]


@given(TEXTS)
def test_plain_ends_no_comment_and_starts_no_markup(text: str) -> None:
    assert not set(escapes.plain(text)) & set("\"'`\\*<>{}$|#\n\r\0?!~^&=%[]")


@given(TEXTS)
def test_a_slug_is_a_name_for_every_store(text: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,58}[a-z0-9])?", escapes.slug(text))


@given(TEXTS)
def test_strings_of_json_and_python_read_back(text: str) -> None:
    assert json.loads(escapes.json_text(text)) == ast.literal_eval(escapes.python(text)) == text


@given(TEXTS)
def test_strings_of_kotlin_and_swift_read_back(text: str) -> None:
    kotlin = escapes.kotlin(text)
    units = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), kotlin[1:-1])
    assert units.encode("utf-16", "surrogatepass").decode("utf-16") == text
    swift = escapes.swift(text)
    assert re.sub(r"\\u\{([0-9a-f]+)\}", lambda match: chr(int(match[1], 16)), swift[1:-1]) == text
    for literal in (kotlin, swift):
        assert literal.isascii() and literal.isprintable() and '"' not in literal[1:-1]
    assert "$" not in kotlin


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_words_of_the_shell_read_back(text: str) -> None:
    found = subprocess.run(
        ["sh", "-c", f"printf %s {escapes.sh(text)}"], capture_output=True, check=True
    )
    assert found.stdout == text.encode()


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_strings_of_c_read_back_through_a_compiler(tmp_path: Path) -> None:
    rows = ",\n".join(f"{{ {escapes.c(text)}, sizeof {escapes.c(text)} - 1 }}" for text in NASTY)
    (tmp_path / "t.c").write_text(
        f"#include <stdio.h>\nstatic const struct {{ const char *text; unsigned long size; }} "
        f"rows[] = {{\n{rows}\n}};\n"
        'int main(void) { for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) { printf("%lu '
        '", rows[i].size);'
        " fwrite(rows[i].text, 1, rows[i].size, stdout); } return 0; }\n"
    )
    subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-trigraphs",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            tmp_path / "t",
            tmp_path / "t.c",
        ],
        check=True,
    )
    found = subprocess.run([tmp_path / "t"], capture_output=True, check=True).stdout
    assert found == b"".join(b"%d " % len(text.encode()) + text.encode() for text in NASTY)


@given(TEXTS)
def test_values_of_key_files_stay_on_one_line_and_keep_what_can_be_shown(text: str) -> None:
    value = escapes.ini(text)
    assert "\n" not in value and "\r" not in value and not value.startswith(" ")
    back = re.sub(
        r"\\(.)",
        lambda match: {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}[match[1]],
        value,
    )
    assert back == "".join(char for char in text if char.isprintable() or char in "\n\t\r")


def test_what_is_no_digest_is_refused() -> None:
    assert escapes.c_bytes("0f" * 32) == ", ".join(["0x0f"] * 32)
    for text in ("", "0F" * 32, "0f" * 31, '0f" + x'):
        with pytest.raises(ValueError, match="not a sha256"):
            escapes.hexadecimal(text)


def test_a_template_prints_nothing_that_no_filter_has_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snippets, "TEMPLATES", tmp_path)
    for text in ("{{ name }}", "{{ name ~ 'x' }}", "{{ name | upper }}", "{{ (name | c) ~ name }}"):
        (tmp_path / "t.jinja").write_text(text)
        with pytest.raises(TypeError, match="as it is"):
            snippets.render("t", {"name": "evil"})
    (tmp_path / "t.jinja").write_text("{{ name | c }} {{ size }}")
    assert snippets.render("t", {"name": 'a"', "size": 3}) == b'"a\\042" 3'
    (tmp_path / "t.jinja").write_text("{{ name | hex }}")
    with pytest.raises(PackError, match="cannot be written"):
        snippets.render("t", {"name": "evil"})


def test_every_template_prints_through_the_same_door() -> None:
    names = sorted(path.name for path in snippets.TEMPLATES.iterdir())
    assert len(names) >= 14 and all(name.endswith(".jinja") for name in names)
