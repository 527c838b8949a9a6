"""What a routing table may say, and which package it names for a request."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from packager.package import manifest
from packager.package.content import content_sha256
from packager.shipping.apps import modules
from packager.shipping.router import check
from packager.shipping.router.keeper import Busy, Gone, Keeper
from packager.shipping.router.main import Server
from packager.shipping.router.table import Entry, Table, Unknown, Unusable, read
from packager.shipping.server.connections import LARGEST, LONGEST
from tests.support.shipping_packages import gguf_package

pytestmark = pytest.mark.slow


def written(folder: Path, routes: Any, **more: Any) -> Path:
    """A table beside two folders of packages."""
    for name in ("a", "b"):
        (folder / "packages" / name).mkdir(parents=True, exist_ok=True)
    data = {"schema": "qwen-pack/route/1", "routes": {"big": routes}, **more}
    (folder / "route.json").write_text(json.dumps(data))
    return folder / "route.json"


def row(name: str, place: Any = None, digest: Any = "0" * 64) -> dict[str, Any]:
    return {
        "cell": name,
        "package": f"packages/{name}" if place is None else place,
        "evidence": {"content_sha256": digest},
    }


def test_a_request_is_for_the_package_of_its_kind_or_of_that_name(tmp_path: Path) -> None:
    both = {"chat": row("a"), "rag": row("a"), "code": row("b"), "embed": None}
    reasons = {"big": {"embed": "nothing was built"}}
    table = read(written(tmp_path, both, unserved=reasons))
    assert [table.chosen(None, model).name for model in ("chat", "rag", "code", "b")] == [
        *("a", "a", "b", "b")
    ]
    assert table.chosen("code", "chat").name == "b"
    for kind, model, sentence in (
        (None, "embed", "no package serves 'embed': nothing was built"),
        (None, "chta", "there is no kind of task 'chta'. Did you mean 'chat'? Known: chat, rag"),
        ("gpt", "chat", "there is no kind of task 'gpt'"),
        (None, None, "names no kind of task as its `model`"),
        (None, 5, "names no kind of task as its `model`"),
        ([], "chat", "names no kind of task as its `model`"),
    ):
        with pytest.raises(Unknown, match=sentence.replace("?", r"\?")):
            table.chosen(kind, model)
    alone = Table({"chat": Entry("a", tmp_path, "0" * 64, tmp_path)}, {})
    assert alone.chosen(None, None).name == "a"


def test_a_table_that_leads_elsewhere_or_makes_no_sense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "link").symlink_to(tmp_path, target_is_directory=True)
    for routes, sentence in (
        ({"chat": row("a", "../a")}, "leads out of the folder"),
        ({"chat": row("a", "/etc")}, "leads out of the folder"),
        ({"chat": row("a", "C:/x")}, "leads out of the folder"),
        ({"chat": row("a", "packages\\a")}, "no path of a package"),
        ({"chat": row("a", 5)}, "no path of a package"),
        ({"chat": row("a", "packages/link")}, "leads over a link"),
        ({"chat": row("a", "packages/missing")}, "is not there"),
        ({"chat": row("../a", "packages/a")}, "no valid name"),
        ({"chat": row("a", digest="x")}, "no content_sha256"),
        ({"chat": row("a", digest=None)}, "no content_sha256"),
        ({"chat": 5}, "is not an object"),
        ({"chat": None}, "names no package"),
        (5, "is not an object"),
    ):
        with pytest.raises(Unusable, match=sentence):
            read(written(tmp_path, routes))
    for text in ("", "[", "[" * 100_000, "5", '{"schema": 1}', '{"a": "' + "x" * (5 << 20) + '"}'):
        (tmp_path / "route.json").write_text(text)
        with pytest.raises(Unusable):
            read(tmp_path / "route.json")
    two = {"schema": "qwen-pack/route/1", "routes": {"a": {}, "b": {}}}
    (tmp_path / "route.json").write_text(json.dumps(two))
    with pytest.raises(Unusable, match="one target"):
        read(tmp_path / "route.json")


def test_a_package_is_compared_with_the_table_and_its_manifest(tmp_path: Path) -> None:
    package = gguf_package(tmp_path / "package", version="1.0")
    data = manifest.read(package).data
    entry = Entry("a", package, content_sha256(data), tmp_path)
    check.compare(entry)
    with pytest.raises(Unusable, match="another digest"):
        check.compare(Entry("a", package, "0" * 64, tmp_path))
    model = package / "model" / "model.gguf"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Unusable, match="not what the manifest says"):
        check.compare(entry)
    model.unlink()
    with pytest.raises(Unusable, match="missing"):
        check.compare(entry)
    (tmp_path / "elsewhere").write_bytes(whole)
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable, match="link"):
        check.compare(entry)
    model.unlink()
    model.write_bytes(whole)
    (package / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(Unusable, match="not in the manifest"):
        check.compare(entry)
    for text in (b"", b"[", b"[]", b'{"files": [{"path": "../x", "size": 1, "sha256": ""}]}'):
        (package / "manifest.json").write_bytes(text)
        with pytest.raises(Unusable, match="is not a manifest"):
            check.compare(entry)


def test_requests_may_be_larger_where_a_package_takes_pictures_or_sound(tmp_path: Path) -> None:
    settings = tmp_path / "a.json"
    entry = Entry("a", tmp_path, "0" * 64, settings)
    for told, takes in (
        ({"sees": False, "hears": False}, False),
        ({"sees": True, "hears": False}, True),
        ({"sees": False, "hears": True}, True),
    ):
        settings.write_text(json.dumps(told))
        keeper = Keeper(tmp_path / "nothing.py", 1)
        with Server(("127.0.0.1", 0), Table({"chat": entry}, {}), keeper) as server:
            assert server.most == (LARGEST if takes else LONGEST)
    for damaged in ("{", "[]", "{}"):
        settings.write_text(damaged)
        with pytest.raises(Unusable, match="is not what qwen-pack wrote"):
            assert entry.takes_files


def test_requests_have_their_turn_in_order_and_too_many_are_turned_away(tmp_path: Path) -> None:
    # One is answered while none may wait.
    keeper = Keeper(tmp_path / "nothing.py", 0)
    entry = Entry("a", tmp_path, "0" * 64, tmp_path)
    keeper._waiting.append(object())
    with pytest.raises(Busy), keeper.turn(entry, lambda: False):
        pass
    keeper = Keeper(tmp_path / "nothing.py", 2)
    keeper._waiting.append(object())
    with pytest.raises(Gone), keeper.turn(entry, lambda: True):
        pass
    assert len(keeper._waiting) == 1


def test_an_export_brings_every_module_that_its_own_import_and_names_what_else_they_need() -> None:
    server, router = "packager.shipping.server.main", "packager.shipping.router.main"
    engine = "packager.shipping.server.engine_"
    llama = {"jinja2", "llama_cpp", "numpy", "psutil", "PIL", "soundfile", "soxr"}
    cases = {
        (router,): set(),
        (server, "packager.checkpoint.sandbox"): {"jinja2"},
        # A configuration of a checkpoint, which no package holds, is read with msgspec.
        (server, f"{engine}llama_cpp"): {*llama, "msgspec"},
        (server, f"{engine}openvino"): {"jinja2", "openvino_genai", "numpy", "openvino"},
    }
    for first, others in cases.items():
        brought = modules.tree(first)
        known = {str(path.with_suffix("")).replace("/", ".") for path in brought}
        for path, data in brought.items():
            for name in imported(data) if path.suffix == ".py" else ():
                place = name.split(".")[0]
                if place in ("packager", "targets"):
                    assert {name, f"{name}.__init__"} & known, (path, name)
                elif place and place not in sys.stdlib_module_names:
                    assert place in others, (path, name)
    brought = modules.tree([f"{engine}llama_cpp"])
    assert PurePosixPath("packager/pictures/decode.py") in brought
    assert PurePosixPath("packager/inspection/keys.toml") in brought
    assert brought[PurePosixPath("targets/llama_cpp/__init__.py")] == b""


def imported(data: bytes) -> set[str]:
    """The names in lines of a module that import, but for types alone."""
    text = re.sub(r"\nif TYPE_CHECKING:\n(?:    .*\n|\n)+", "\n", data.decode())
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
    return names - {"packager.measure.trials"}
