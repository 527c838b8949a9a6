"""A package is safe to open: what would make an engine load a library or leave its files is
refused, wherever it stands."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.inspection import gguf, native, onnx, refuse_unsafe
from packager.inspection.unsafe import Unsafe
from packager.package import manifest
from packager.package.verify import verify
from packager.pipeline import bench
from packager.shipping.export import export
from packager.shipping.registry import pull, push
from packager.shipping.shipment import prepare
from packager.shipping.unpack import unpack
from tests.conftest import REPOSITORY
from tests.support.oci_registry import real_registry
from tests.support.safe_packages import (
    ENGINE_KEYS,
    GOOD,
    ONNX,
    package,
)
from tests.support.shipping_packages import AGREED, finish, write
from tests.support.tiny_gguf import text, tiny_gguf
from tests.support.unsafe_packages import BAD


def refused(work: Callable[[], Any], *words: str) -> None:
    with pytest.raises(PackError) as caught:
        work()
    assert caught.value.exit_code == ExitCode.INPUT
    assert all(word in str(caught.value) for word in ("not safe to open", *words)), str(
        caught.value
    )


@pytest.mark.parametrize("runtime", GOOD)
def test_what_our_builders_write_is_safe(runtime: str, tmp_path: Path) -> None:
    folder = package(tmp_path / "p", runtime)
    refuse_unsafe(folder, manifest.read(folder))
    assert verify(folder) == []


@pytest.mark.parametrize("case", BAD)
def test_what_makes_an_engine_do_more_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    runtime, name, data, word = BAD[case]
    folder = package(tmp_path / "p", runtime, **{name: data})
    assert verify(folder) == []  # its content is what its manifest says, whoever wrote that
    refused(lambda: refuse_unsafe(folder, manifest.read(folder)), word)


EVIL = ("onnxruntime", "model/genai_config.json", ENGINE_KEYS["in the session options"])


class Runtime:
    """As much of an adapter as is asked before the package is."""

    name = "onnxruntime"
    distributions = ("numpy",)
    extra = ""
    more_tools = ()


@pytest.mark.engine
def test_no_engine_opens_an_unsafe_package_and_it_neither_leaves_nor_comes_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, name, data = EVIL
    folder = package(tmp_path / "evil", runtime, **{name: data})
    refused(lambda: prepare(folder, allow_dummy=True), "custom_ops_library")
    refused(
        lambda: finish(export(folder, "zip", tmp_path / "x.zip", **AGREED)), "custom_ops_library"
    )
    refused(lambda: bench.whole(folder, Runtime()), "custom_ops_library")  # type: ignore[arg-type]
    for words in (
        ["run", str(folder), "x"],
        ["bench", str(folder)],
        ["behave", str(folder)],
        ["compare", str(folder), str(folder)],
    ):
        code = main(words)
        error = capsys.readouterr().err
        assert code == ExitCode.INPUT and "custom_ops_library" in error, (words, error)


def test_every_module_that_hands_a_packages_model_to_an_engine_has_looked_at_it_first() -> None:
    """`whole` and `intact` compare the bytes, and refuse what is not safe to open."""
    seen = set()
    for path in sorted((REPOSITORY / "packager").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        opens = any(
            isinstance(node, ast.BinOp) and ast.unparse(node) == "package / MODEL"
            for node in ast.walk(tree)
        )
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if opens:
            seen.add(path.name)
            assert {"bench.whole", "whole", "intact"} & called, path
    assert seen >= {"bench.py", "on_device.py", "retrieval.py", "run.py", "trial.py"}


def test_verify_says_that_content_is_not_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, name, data = EVIL
    evil, good = (
        package(tmp_path / "evil", runtime, **{name: data}),
        package(tmp_path / "good", runtime),
    )
    assert main(["verify", str(evil), "--json"]) == ExitCode.DONE
    assert "custom_ops_library" in json.loads(capsys.readouterr().out)["unsafe"]
    assert main(["verify", str(good), "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["unsafe"] is None


def test_an_unsafe_package_is_not_unpacked_and_leaves_nothing(tmp_path: Path) -> None:
    runtime, name, data = EVIL
    folder = package(tmp_path / "evil", runtime, **{name: data})
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in ["manifest.json", *(entry.path for entry in manifest.read(folder).files)]:
            file.write(folder / path, f"evil/{path}")
    refused(lambda: finish(unpack(archive, tmp_path / "out")), "custom_ops_library", "evil.zip")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.engine
def test_an_unsafe_package_is_neither_pulled_nor_made_by_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packager.shipping import delta, patch, shipment

    runtime, name, data = EVIL
    good, evil = (
        package(tmp_path / "good", runtime),
        package(tmp_path / "evil", runtime, **{name: data}),
    )
    store = tmp_path / "registry"
    store.mkdir()
    with real_registry(store) as host:
        with monkeypatch.context() as careless:
            # Whoever pushes it has another tool.
            careless.setattr(shipment, "refuse_unsafe", lambda *_: None)
            finish(push(evil, f"{host}/evil:v1", **AGREED))
            finish(delta.write_patch(good, evil, tmp_path / "evil.patch", **AGREED))
        refused(
            lambda: finish(pull(f"{host}/evil:v1", tmp_path / "out")), "custom_ops_library", host
        )
    refused(
        lambda: finish(patch.apply(tmp_path / "evil.patch", good, tmp_path / "out")),
        "custom_ops_library",
    )
    assert not (tmp_path / "out").exists()


def test_names_within_files_are_shown_without_effect(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "p",
        "onnxruntime",
        **{"model/genai_config.json": json.dumps({"\x1b[2J\u202e": 1}).encode()},
    )
    with pytest.raises(PackError) as caught:
        refuse_unsafe(folder, manifest.read(folder))
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "llama.cpp")
    shutil.move(folder / "model/model.gguf", tmp_path / "elsewhere.gguf")
    (folder / "model/model.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    with pytest.raises((PackError, OSError)):
        refuse_unsafe(folder, manifest.read(folder))


def test_a_pipe_or_a_folder_in_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "llama.cpp")
    for other in (
        lambda: os.mkfifo(folder / "model/model.gguf"),
        (folder / "model/model.gguf").mkdir,
    ):
        (folder / "model/model.gguf").unlink()
        other()
        refused(
            lambda: refuse_unsafe(folder, manifest.read(folder)), "a pipe, a folder or a device"
        )


def test_a_package_of_a_runtime_that_we_do_not_know_may_hold_other_kinds_but_no_programs(
    tmp_path: Path,
) -> None:
    other = {"runtime": {"name": "other", "version": "1"}}
    fine = write(
        tmp_path / "fine", {"model/weights.xyz": b"x", "model/settings.json": b"{}"}, other
    )
    refuse_unsafe(fine, manifest.read(fine))
    evil = write(tmp_path / "evil", {"model/weights.xyz": b"\x7fELF" + bytes(60)}, other)
    refused(lambda: refuse_unsafe(evil, manifest.read(evil)), "ELF")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_headers_end_in_a_reason_and_nothing_else(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [tiny_gguf(bytes(64), keys=text("k") + struct.pack("<II", 4, 7), pairs=1), ONNX]
        )
    )
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for look in (
        lambda: gguf.refuse(cut, len(cut)),
        lambda: onnx.refuse(memoryview(cut), {"model.onnx.data": 100}),
    ):
        with contextlib.suppress(Unsafe):
            look()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_raw_weights_are_no_program_whatever_their_first_bytes(weights: bytes) -> None:
    for head in (b"\x80\x02", b"MZ", b"#!", b"PK", b""):
        data = head + b"\xff" + weights
        try:
            native.refuse_bytes(io.BytesIO(data), len(data))
        except Unsafe:
            # By chance, one file in a million millions is what an unpickler would carry out.
            assert list(pickletools.genops(data))[-1][0].name == "STOP"
