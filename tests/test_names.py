"""Names from outside do nothing but show themselves: one table of escapes, and every writer
walked."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main, output
from packager.errors import ExitCode
from packager.escapes import FILTERS, Safe, terminal
from packager.names import plain_name
from packager.package import manifest
from packager.package.verify import verify
from packager.papers import card
from tests.conftest import REPOSITORY
from tests.support.building import words_of
from tests.support.contents import contents_of
from tests.support.hostile_names import HOSTILE
from tests.support.make_checkpoint import write_tiny
from tests.support.shipping_packages import EVIL
from tests.support.tiers import thorough


@pytest.mark.parametrize("case", HOSTILE)
def test_the_name_of_a_folder_becomes_one_that_means_nothing_anywhere(case: str) -> None:
    name = plain_name(HOSTILE[case])
    assert (
        name
        and name.isprintable()
        and len(name.encode()) <= 97
        and not name.startswith("-")
        and not name.endswith((".", " "))
    )
    assert not set(name) & set("/\\:*?\"<>|`$'[]{}%#&;!~") and name.partition(".")[
        0
    ].strip().casefold() not in ("con", "nul", "aux", "prn")
    assert plain_name(name) == name and manifest.safe_path(name)


@given(st.text())
def test_any_name_becomes_a_plain_one(text: str) -> None:
    name = plain_name(text)
    assert manifest.safe_path(name) and plain_name(name) == name


@pytest.mark.parametrize(
    "name", ["Qwen3-0.6B", "my-tune", "tiny", "Modell für Zuhause", "模型", "v1.2+fix (final)"]
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert plain_name(name) == name


@pytest.mark.parametrize("case", HOSTILE)
def test_every_escape_of_the_table_leaves_nothing_that_acts_on_a_terminal(case: str) -> None:
    for name, escape in FILTERS.items():
        if name in ("hex", "c_bytes"):
            with pytest.raises(ValueError):
                escape(HOSTILE[case])
            continue
        written = escape(HOSTILE[case])
        assert isinstance(written, Safe), name
        # A word of the shell holds what it holds, between quotes; a model is told what it is told.
        if name not in ("sh", "jinja"):
            assert all(char.isprintable() or char in "\n\t" for char in written), (name, written)
        if name not in ("sh", "terminal"):
            assert "\n" not in written, name


def test_what_markdown_and_yaml_read_back_is_the_name_itself() -> None:
    for text in HOSTILE.values():
        if not any("\ud800" <= char <= "\udfff" for char in text):
            assert yaml.safe_load(f"a: {FILTERS['yaml'](text)}") == {"a": text}
    assert (
        FILTERS["markdown"]("|a|[x](http://e)<b>*c*`d`")
        == "\\|a\\|\\[x\\](http://e)&lt;b&gt;\\*c\\*\\`d\\`"
    )
    assert FILTERS["code"]("a`|b\nc") == "`a'\\|b c`"


def test_every_line_that_a_command_prints_goes_through_the_table() -> None:
    """The three modules that print by themselves: the one with the escapes, the help, and what a
    model says."""
    for path in sorted((REPOSITORY / "packager" / "cli").rglob("*.py")):
        if path.name in ("output.py", "program.py", "run.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in (
                "print",
                "click.echo",
                "click.secho",
                "sys.stdout.write",
                "sys.stderr.write",
            ), f"{path}:{node.lineno}"


def test_what_goes_to_a_terminal_shows_names_without_effect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for text in HOSTILE.values():
        output.say(text)
        output.narrate(text)
        output.emit_table(text, [text, "b"], [(text, text)])
        output.emit_json("test", {"name": text})
        printed = capsys.readouterr()
        for stream in (printed.out, printed.err):
            assert all(char.isprintable() or char in "\n\t" for char in stream), repr(stream)
        assert json.loads(printed.out[printed.out.index("{\n") :])["name"] == text
        assert (
            len(printed.out.partition("{\n")[0].splitlines())
            == len(terminal(text).splitlines() or [""]) + 2
        )


def test_json_has_null_where_a_figure_is_no_number_whatever_stands_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Word(str):
        """A text that the fast writer does not know."""

    for beside in ("é", Word("é"), "half \udc80"):
        output.emit_json("test", {"name": beside, "rate": float("nan")})
        printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert (printed["name"], printed["rate"]) == (beside, None)


def test_the_card_holds_a_hostile_manifest_as_text() -> None:
    data = {
        "name": EVIL,
        "version": EVIL,
        "target": EVIL,
        "variant": {"repo_id": EVIL, "revision": EVIL, "license": EVIL},
        "recipe": {"id": EVIL, "kv": EVIL},
        "runtime": {"name": EVIL, "version": EVIL},
        "source": {"kind": "local"},
        "workload": {"context": 128},
    }
    plain = {
        **data,
        **dict.fromkeys(("name", "version", "target"), "x"),
        "runtime": {"name": "x", "version": "x"},
    }
    plain |= {
        "variant": {"repo_id": "x", "revision": "x", "license": "x"},
        "recipe": {"id": "x", "kv": "x"},
    }
    evil, fine = (card.text(contents_of(one)) for one in (data, plain))
    assert len(evil.splitlines()) == len(fine.splitlines())
    front = yaml.safe_load(evil.split("---\n")[1])
    assert front["base_model"] == EVIL and set(front) == set(yaml.safe_load(fine.split("---\n")[1]))
    rest = re.sub(r"`[^`]*`", "", evil.split("---\n", 2)[2].replace("\\`", ""))
    assert "<b>" not in rest and not re.search(r"(?<!\\)\$\(id\)", rest)


def test_a_folder_whose_name_is_no_text_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny(tmp_path / "tiny").rename(tmp_path / os.fsdecode(b"\xff\xfe\x1b"))
    assert main(["build", "--target", "laptop-cpu", "--weights", str(folder)]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "UTF-8" in error and all(char.isprintable() or char == "\n" for char in error)


@pytest.mark.engine
@pytest.mark.parametrize("name", [b"a\nb\x1b[2J\xe2\x80\xaegnp`id`|<b>", thorough(b"x" * 255)])
def test_a_folder_of_any_name_is_built_and_its_package_is_whole(
    name: bytes, tmp_path: Path
) -> None:
    write_tiny(tmp_path / "tiny", hidden=256, intermediate=512).rename(tmp_path / os.fsdecode(name))
    words = [
        "--target",
        "laptop-cpu",
        "--context",
        "256",
        "--recipe",
        "gguf:Q8_0",
        "--weights",
        os.fsdecode(name),
    ]
    done = subprocess.run(
        [sys.executable, "-P", *words_of("packager.cli"), "build", *words],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    said = io.BytesIO(done.stdout + done.stderr).read().decode()
    assert done.returncode == 0, said
    assert all(char.isprintable() or char in "\n\t" for char in said)
    (package,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    assert verify(package) == [] and package.name.isprintable() and not package.name.startswith("-")
