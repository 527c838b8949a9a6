"""Every writer takes its escapes from the one table, and is walked here with names from outside
that hold whatever a name can: what is written reads back as the name, and shows itself without
effect."""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from packager import escapes
from packager.catalog import own
from packager.chat.templates import literal
from packager.errors import PackError
from packager.files import write_json
from packager.lab import link, machines, push, python_there, transport
from packager.package import adapters
from packager.papers import _json as paper_json
from packager.pictures import decode
from packager.quality import parity, text
from packager.shipping import added
from packager.sounds import decode as decode_sounds
from packager.sweep.cell import Cell
from packager.sweep.chart import Point, chart
from packager.sweep.html import page
from packager.sweep.report import as_csv, sentences, table
from packager.sweep.row import not_done, one_line
from packager.sweep.svg import svg
from targets.devices import device_write
from targets.gguf import given_types
from targets.llama_cpp import adopted
from targets.openvino import adopted as openvino_folder
from tests.conftest import REPOSITORY
from tests.support import tui_data
from tests.support.hostile_names import HOSTILE, shown
from tests.support.sweep_rows import row, run_of
from tui.ask import build_command
from tui.screens.export import ExportScreen
from tui.screens.sweeps import SweepsScreen

if TYPE_CHECKING:
    from packager.package.manifest import Manifest
    from targets.gguf.given import Given
    from tui.sweeps import Shown


def a_page(name: str) -> None:
    cell = Cell(name or "x", name, name, local=True)
    run = run_of(not_done(cell, "failed", name, 6), row("a").but(cell=cell.to_json()))
    told = [*sentences(run, []), name]
    picture = svg(chart(name, [Point(name, 1e9, 9.0, True)]))
    written = page(run, table(run, {}), told, {name: picture})
    plain = page(run_of(row("a")), table(run_of(row("a")), {}), ["x"], {"x": "<svg></svg>"})
    assert shown(written)
    for mark in ("<script", "<img", "<b>", "</table>"):
        assert written.count(mark) == plain.count(mark), mark
    if shown(name):
        assert name.replace("\n", " ").strip() in "".join(ET.fromstring(picture).itertext())


def a_table(name: str) -> None:
    cell = Cell(name or "x", name, name, local=True)
    text = as_csv(run_of(not_done(cell, "failed", name, 6)), {})
    assert shown(text)
    head, *rows = csv.reader(io.StringIO(text))
    assert len(rows) == 1 and len(rows[0]) == len(head)
    assert not any(one.startswith(("=", "+", "-", "@")) for one in rows[0])


def toml_of_all(name: str) -> None:
    wanted = name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    for value in (own._value(name), device_write._value(name), escapes.toml(name)):
        assert shown(value) and "\n" not in value
        read = tomllib.loads(f"a = {value}")["a"]
        assert len(read) == len(name) if wanted != name else read == name


def a_machine(name: str) -> None:
    """The names of machines are plain; a prefix in an address may hold more."""
    try:
        machines.add("pi", f"ssh://pi@pi5/{name}")
    except PackError as error:
        assert error.exit_code == 2
        return
    assert machines.machines() == {"pi": f"ssh://pi@pi5/{name}"}
    assert shown(machines.path().read_text())


def a_template(name: str) -> None:
    written = ImmutableSandboxedEnvironment().from_string(f"{{{{ {literal({name: name})} }}}}")
    assert written.render() == str({name: name})


def lines_of_the_shell(name: str) -> None:
    words = [name.replace("\0", ""), "b"]
    assert shlex.split(escapes.command(words)) == words
    ask = replace(tui_data.ASK, weights=name or "x", lora=(name,))
    assert name in shlex.split(build_command(ask, tui_data.CHOSEN, Path("/x") / name))
    model = SimpleNamespace(contents=SimpleNamespace(adapter=None))
    with pytest.raises(PackError) as no_adapter:
        adapters.of(cast("Manifest", model), Path("/x") / name)
    hint = no_adapter.value.hint or ""
    assert shlex.split(hint.partition("--base ")[2]) == [str(Path("/x") / name)]
    hint = added._taken(Path("/x") / name, "style").hint or ""
    assert shlex.split(hint.partition("NAME=")[2]) == [str(Path("/x") / name)]
    words = shlex.split(python_there.script(name, name, name), posix=True)
    assert words[:2] == ["cd", name] and words.count(name) == 5
    sent = push.Sent(Path("x"), name, 1, "0" * 64)
    assert shlex.split(escapes.sh(sent.name)) == [name]
    try:
        folder = transport._folder(f"/{name}", "~/x")
    except PackError as error:
        assert error.exit_code == 2
    else:
        assert len(shlex.split(folder)) == 1


def a_model_that_was_converted_elsewhere(name: str) -> None:
    """What a converted model says of itself goes into a manifest as one line."""
    keys = dict.fromkeys(given_types._IMATRIX.values(), name)
    head = SimpleNamespace(keys=keys, text=lambda _: name, number=lambda _: None)
    given = cast("Given", SimpleNamespace(head=head))
    for text_of in [
        *(given_types.imatrix_of(given) or {}).values(),
        adopted._says(given).get("name", ""),
        adopted._says(given).get("license", ""),
        *openvino_folder._says(
            dict.fromkeys(openvino_folder._SAID.values(), name), {"_name_or_path": f"me/{name}"}
        ).values(),
    ]:
        assert isinstance(text_of, str) and shown(text_of) and "\n" not in text_of


def past_sweeps(name: str) -> None:
    screen = SimpleNamespace(app=SimpleNamespace(size=SimpleNamespace(width=80)))
    listed = cast("Shown", SimpleNamespace(numbers=()))
    assert shown(SweepsScreen._cell(cast("SweepsScreen", screen), listed, 0, name).plain)


def files_to_export(name: str) -> None:
    known = SimpleNamespace(files=[SimpleNamespace(path=name, size=1, sha256="0" * 64)])
    screen = SimpleNamespace(package=SimpleNamespace(manifest=known))
    assert shown(ExportScreen._files(cast("ExportScreen", screen)).plain)


def sentences_of_others(name: str) -> None:
    for text_of in (
        link._refusal({"error": name, "kind": "input"}).message,
        decode.words_of(ValueError(name)),
        decode_sounds.words_of(ValueError(name)),
        one_line(name),
        *parity.ParityResult(1, 1, 0, 0, (), None, (name,), (name,)).as_dict()["notes"],
    ):
        assert shown(text_of) and "\n" not in text_of


def names_of_texts(name: str) -> None:
    path = Path(name.replace("/", "_").strip(".") or "x").absolute()
    path.write_text("A text.")
    assert text.of_file(path).name.isprintable()


def json_files(name: str) -> None:
    place = Path("file.json")
    write_json(place, {name: name})
    for data in (place.read_bytes(), paper_json({name: name})):
        assert shown(data.decode()) and json.loads(data) == {name: name}


WRITERS: dict[str, tuple[Callable[[str], None], tuple[str, ...]]] = {
    "the page and the pictures of a sweep": (
        a_page,
        ("packager/sweep/html.py", "packager/sweep/svg.py"),
    ),
    "the table of a sweep": (a_table, ("packager/sweep/report.py",)),
    "devices and rows of the catalogue": (
        toml_of_all,
        ("packager/catalog/own.py", "targets/devices/device_write.py"),
    ),
    "machines by name": (a_machine, ("packager/lab/machines.py",)),
    "a profile in a chat template": (a_template, ("packager/chat/templates.py",)),
    "commands, shown and sent": (
        lines_of_the_shell,
        (
            "packager/lab/push.py",
            "packager/lab/python_there.py",
            "packager/package/adapters.py",
            "packager/shipping/added.py",
            "packager/lab/transport.py",
            "packager/lab/agent.py",
            "packager/cli/build.py",
            "packager/cli/fit_tables.py",
            "packager/cli/fit_together.py",
            "tui/ask.py",
            "tui/leaving.py",
            "tui/screens/adapter.py",
            "tui/screens/need.py",
            "tui/screens/options.py",
        ),
    ),
    "what a converted model says": (
        a_model_that_was_converted_elsewhere,
        (
            "targets/gguf/given_types.py",
            "targets/llama_cpp/adopted.py",
            "targets/openvino/adopted.py",
        ),
    ),
    "sweeps on the screen": (past_sweeps, ("tui/screens/sweeps.py",)),
    "files to export on the screen": (files_to_export, ("tui/screens/export.py",)),
    "what others say": (
        sentences_of_others,
        (
            "packager/lab/link.py",
            "packager/pictures/decode.py",
            "packager/sounds/decode.py",
            "packager/sweep/row.py",
            "packager/quality/parity.py",
            "packager/behaviour/trial.py",
            "tui/app.py",
        ),
    ),
    "texts of the quality gate": (names_of_texts, ("packager/quality/text.py",)),
    "manifests, papers and records": (
        json_files,
        ("packager/files.py", "packager/papers/__init__.py"),
    ),
}
"""What writes a name somewhere, and the modules that do."""

ELSEWHERE = {
    "packager/plan/attested_texts.py": "test_attest.py::test_what_a_folder_says_of_itself_is_told_on_one_line_without_escapes",
    "packager/cli/export.py": "test_shipping_signature.py::test_the_command_that_checks_a_signature_is_typed_as_it_is_shown",
    "packager/cli/output.py": "test_names.py::test_what_goes_to_a_terminal_shows_names_without_effect",
    "packager/papers/card.py": "test_papers_markup.py::test_no_text_of_a_manifest_is_markup_in_a_paper",
    "packager/papers/measured.py": "test_papers_markup.py::test_no_text_of_a_manifest_is_markup_in_a_paper",
    "packager/quality/paper.py": "test_papers_markup.py::test_no_text_of_a_manifest_is_markup_in_a_paper",
    "packager/papers/licence.py": "test_papers_markup.py::test_no_text_of_a_manifest_is_markup_in_a_paper",
    "packager/pipeline/package_readme.py": "test_names.py::test_a_folder_of_any_name_is_built_and_its_package_is_whole",
    **dict.fromkeys(
        (
            f"packager/shipping/apps/{name}.py"
            for name in (
                "android",
                "docker",
                "embedded",
                "engine_settings",
                "ios",
                "ollama",
                "server_settings",
                "snippets",
            )
        ),
        "test_shipping_apps_names.py::test_hostile_names_add_no_line_and_no_markup_to_any_file",
    ),
    "packager/shipping/apps/routed.py": "test_shipping_router.py::test_names_of_a_table_add_no_line_and_no_markup_to_the_readme",
}
"""Modules that take their escapes from the table and are walked by a test of their own."""


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_writes_hostile_names_without_effect(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(machines.FILE, str(tmp_path / "lab.toml"))
    for name in HOSTILE.values():
        WRITERS[writer][0](name)


_TELLING = (
    "escapes import",
    "import html",
    "html import",
    "shlex",
    "isprintable",
    "unicode_escape",
)
"""Words without which a module neither escapes nor takes an escape."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for top in ("packager", "targets", "tui"):
        for path in sorted((REPOSITORY / top).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if any(word in source for word in _TELLING):
                yield path.relative_to(REPOSITORY).as_posix(), ast.parse(source)


def test_every_module_that_takes_an_escape_is_walked() -> None:
    users = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "packager.escapes"
    }
    walked = {module for _, names in WRITERS.values() for module in names}
    assert users == walked | set(ELSEWHERE) and not walked & set(ELSEWHERE)
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), place


def _by_hand(node: ast.AST) -> str | None:
    """How a piece of code escapes by itself; None where it does not."""
    match node:
        case ast.ImportFrom(module="html") | ast.Import(names=[ast.alias(name="html")]):
            return "html"
        case ast.Attribute(value=ast.Name(id="shlex"), attr="quote" | "join"):
            return "shlex"
        case ast.Constant(value="unicode_escape"):
            return "unicode_escape"
        case ast.Call(
            func=ast.Attribute(attr="join"),
            args=[ast.GeneratorExp(generators=[ast.comprehension(target=ast.Name())]) as each],
        ) if any(
            isinstance(inner, ast.Attribute) and inner.attr == "isprintable"
            for inner in ast.walk(each)
        ):
            return "isprintable"
    return None


def test_nobody_else_escapes_by_hand() -> None:
    for name, tree in modules():
        if name != "packager/escapes.py":
            by_hand = [
                (way, getattr(n, "lineno", 0)) for n in ast.walk(tree) if (way := _by_hand(n))
            ]
            assert not by_hand, name
