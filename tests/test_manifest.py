"""The manifest is read back without trusting it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import limits
from packager.errors import ExitCode, PackError
from packager.package import manifest
from tests.support.make_package import FILES, body, write_package

HASH = "0" * 64


def parse(data: dict[str, Any]) -> manifest.Manifest:
    return manifest.parse(json.dumps(manifest.seal(data)).encode(), "manifest.json")


def test_a_written_manifest_is_read_back_whole(tmp_path: Path) -> None:
    found = manifest.read(write_package(tmp_path / "p"))
    assert found.name == "tiny"
    assert [entry.path for entry in found.files] == list(FILES)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up",
        "a/../../b",
        "a//b",
        "./a",
        "",
        "a\\b",
        "c:/x",
        "a\nb",
        "manifest.json",
        "a/",
        "nul\0",
        "c1\x9b",
        "turn\u202e",
        "model/con.gguf",
        "NUL",
        "com1.txt/x",
        "model/x.",
        "model/x ",
        "a?b",
        "a<b",
        "é" * 128,
        "model/con .txt",
        "model/NUL   .a.b",
        "conin$",
        "model/clock$.txt",
        "x/" * 32 + "y",
        "/".join(["x" * 200] * 6),
        ".qwen-pack-tmp-0123456789abcdef/x",
    ],
)
def test_a_path_that_leaves_the_package_is_refused(tmp_path: Path, path: str) -> None:
    data = body(write_package(tmp_path / "p"))
    data["files"][0]["path"] = path
    with pytest.raises(PackError, match=r"files\[0\] has an unsafe path") as caught:
        parse(data)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    "pair",
    [
        ("model/A.bin", "model/a.bin"),
        ("café", "cafe\u0301"),
        ("same", "same"),
        ("one", "MANIFEST.JSON"),
    ],
)
def test_two_paths_that_are_one_file_on_some_systems_are_refused(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    data = body(write_package(tmp_path / "p"))
    data["files"] = [{"path": path, "size": 1, "sha256": HASH} for path in pair]
    with pytest.raises(PackError, match="the same file on some systems"):
        parse(data)


@pytest.mark.parametrize(
    "pair",
    [
        ("model/a", "model/a/b"),
        ("model/a/b/c", "model/A"),
        ("one", "manifest.json/x"),
        ("one", "Manifest.json/x/y"),
    ],
)
def test_a_file_that_is_the_folder_of_another_is_refused(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    data = body(write_package(tmp_path / "p"))
    data["files"] = [{"path": path, "size": 1, "sha256": HASH} for path in pair]
    with pytest.raises(PackError, match="is a file, and the folder of") as caught:
        parse(data)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", -1, "invalid size"),
        ("size", True, "invalid size"),
        ("size", "7", "invalid size"),
        ("sha256", "0" * 63, "sha256"),
        ("sha256", HASH + "\n", "sha256"),
    ],
)
def test_a_file_with_a_false_size_or_digest_is_named(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    data = body(write_package(tmp_path / "p"))
    data["files"][1][key] = value
    with pytest.raises(PackError, match=words):
        parse(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", ["a"]),
        ("name", "\x1b]0;title\x07"),
        ("runtime.name", ["openvino"]),
        ("runtime.name", None),
        ("runtime", {}),
        ("recipe.kv", 8),
        ("workload", []),
        ("workload.context", "128"),
        ("workload.context", True),
        ("workload.context", 10**30),
        ("workload.prompt", -1),
        ("measured", "fast"),
        ("measured.decode_tps", "28"),
        ("measured.decode_tps", float("inf")),
        ("measured.ttft_ms", float("nan")),
        ("measured.peak_memory_bytes", 10**400),
        ("measured.machine", "laptop"),
        ("measured.token_ms", [[1, "x"]]),
        ("measurements", {}),
        ("measurements", ["x"]),
        ("verdicts", [{"rule": "decode"}]),
        ("verdicts", "passed"),
        ("predicted.footprint", 7),
        ("predicted.forecast", {"decode_tps": []}),
        ("why.sentence", "two\nlines"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path: Path, field: str, value: object) -> None:
    data = body(write_package(tmp_path / "p"))
    *parents, last = field.split(".")
    place = data
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    with pytest.raises(
        PackError, match=field.partition(".")[0] if value == {} else field.replace(".", r"\.")
    ) as caught:
        parse(data)
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_field_that_is_null_counts_as_absent(tmp_path: Path) -> None:
    data = body(write_package(tmp_path / "p"))
    assert parse({**data, "measured": None, "verdicts": None, "quality": None}).name == "tiny"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_manifest_that_is_no_file_is_refused_and_not_opened(kind: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir() if kind == "folder" else os.mkfifo(
        tmp_path / "manifest.json"
    )
    with pytest.raises(PackError, match="holds files only"):
        manifest.read(tmp_path)


def test_a_changed_manifest_is_noticed(tmp_path: Path) -> None:
    path = write_package(tmp_path / "p") / "manifest.json"
    path.write_text(path.read_text().replace('"tiny"', '"tidy"'))
    with pytest.raises(PackError, match="has changed since it was written"):
        manifest.read(path.parent)


def test_a_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    data = body(write_package(tmp_path / "p"))
    with pytest.raises(PackError, match="does not follow qwen-pack/manifest/1"):
        parse({**data, "schema": "qwen-pack/manifest/2"})


def test_a_folder_without_a_manifest_and_a_file_are_no_packages(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackError, match="is not a package"):
        manifest.read(tmp_path)
    with pytest.raises(PackError, match="is a file, not a package"):
        manifest.read(tmp_path / "file")


def test_a_manifest_that_is_a_link_is_refused(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")
    (package / "manifest.json").rename(tmp_path / "elsewhere.json")
    (package / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(PackError, match="is a link"):
        manifest.read(package)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_whatsoever_end_in_anything_but_a_sentence(text: bytes) -> None:
    with pytest.raises(PackError) as caught:
        manifest.parse(text, "manifest.json")
    assert caught.value.exit_code == ExitCode.INPUT


@given(st.text(max_size=30))
def test_a_path_that_is_called_safe_stays_below_any_folder(path: str) -> None:
    if manifest.safe_path(path):
        folder = Path("/some/package")
        assert folder in (folder / path).parents
        assert ".." not in Path(path).parts


def test_a_manifest_that_nothing_would_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_package(tmp_path / "p")
    before = (package / manifest.NAME).read_bytes()
    data = {**manifest.read(package).data, "measurements": [{"repeats": 5}] * 2000}
    monkeypatch.setattr(limits, "MANIFEST_BYTES", 20_000)
    with pytest.raises(PackError, match="more than any manifest that is read") as failure:
        manifest.write(package, data)
    assert failure.value.exit_code == ExitCode.INPUT
    assert (package / manifest.NAME).read_bytes() == before and manifest.read(package)


def test_what_holds_a_package_or_was_made_of_one_says_the_way_to_it(tmp_path: Path) -> None:
    inner = tmp_path / "export" / "package"
    inner.mkdir(parents=True)
    (inner / manifest.NAME).write_text("{}")
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text("{}")
    for folder, way in (
        (tmp_path / "export", f"The package in it is {inner}."),
        (layout, "`qwen-pack pull` brings the package back"),
        (tmp_path, "Name the folder that `qwen-pack build` wrote."),
    ):
        with pytest.raises(PackError, match="is not a package") as failure:
            manifest.read(folder)
        assert failure.value.exit_code == ExitCode.INPUT and way in failure.value.hint
