"""A converted model of a repository of the hub, by the name of its file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager import limits
from packager.errors import ExitCode, PackError
from packager.sources.hub_file import fetched
from tests.support.hub_server import COMMIT, Hub, serve

REPO = "me/model-GGUF"
FILES = {
    "README.md": b"card",
    "model-Q8_0.gguf": b"GGUF" + bytes(8000),
    "big/m-00001-of-00002.gguf": b"GGUF" + b"\1" * 8000,
    "big/m-00002-of-00002.gguf": b"GGUF" + b"\2" * 9000,
    "big/m-00001-of-00003.gguf": b"GGUF" + b"\3" * 100,
    # Larger than any text of a checkpoint.
    "large-Q4_0.gguf": b"GGUF" + bytes(limits.SETTINGS_BYTES),
    "int4-ov/openvino_model.xml": b"<net/>",
    "int4-ov/openvino_model.bin": bytes(limits.SETTINGS_BYTES + 1),
    "int4-ov/tokenizer.json": b"{}",
    "int4-ov/openvino_config.json": b"{}",
    "int4-ov/pytorch_model.bin": b"pickle",
    "cpu/int4/genai_config.json": b"{}",
    "cpu/int4/model.onnx": b"graph",
    "cpu/int4/model.onnx.data": bytes(9000),
    "cpu/int4/LICENSE": b"licence",
    "both/openvino_model.xml": b"<net/>",
    "both/genai_config.json": b"{}",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(Hub(REPO, dict(FILES))) as server:
        for name, value in (
            ("HF_HUB_OFFLINE", "0"),
            ("HF_ENDPOINT", server.endpoint),
            ("HF_HOME", str(tmp_path / "hub")),
            ("HF_HUB_DISABLE_XET", "1"),
        ):
            monkeypatch.setenv(name, value)
        yield server


def test_the_file_is_pinned_and_comes_with_all_of_its_parts_and_nothing_else(hub: Hub) -> None:
    found = fetched(REPO, "big/m-00001-of-00002.gguf")
    assert (found.revision, found.license, found.endpoint) == (COMMIT, "apache-2.0", hub.endpoint)
    assert found.path.read_bytes() == FILES["big/m-00001-of-00002.gguf"]
    assert sorted(os.listdir(found.path.parent)) == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
    ]
    assert str(found.path) not in str(found.as_dict())
    assert hub.bodies("model-Q8_0.gguf") == []


def test_weights_have_no_limit_that_texts_have(hub: Hub) -> None:
    assert fetched(REPO, "large-Q4_0.gguf").path.stat().st_size > limits.SETTINGS_BYTES


@pytest.mark.parametrize(
    ("name", "first", "files"),
    [
        (
            "int4-ov/",
            "openvino_model.xml",
            ["openvino_model.bin", "openvino_model.xml", "tokenizer.json"],
        ),
        (
            "cpu/int4/genai_config.json",
            "genai_config.json",
            ["LICENSE", "genai_config.json", "model.onnx", "model.onnx.data"],
        ),
    ],
)
def test_of_a_folder_what_an_engine_reads_comes_and_nothing_else(
    name: str, first: str, files: list[str], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fetched(REPO, name)
    assert found.path.name == first
    assert sorted(os.listdir(found.path.parent)) == files
    asked = len(hub.requests)
    assert fetched(REPO, name, offline=True).path == found.path
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("repo_id", "name", "words", "code"),
    [
        (REPO, "model-Q8.gguf", "has no file.*Did you mean.*model-Q8_0", ExitCode.SOURCE),
        (REPO, "../model.gguf", "neither a .gguf file nor a folder", ExitCode.USAGE),
        (REPO, "README.md", "neither a .gguf file nor a folder", ExitCode.USAGE),
        (REPO, "../", "neither a .gguf file nor a folder", ExitCode.USAGE),
        (REPO, "int4-ov", "neither.*slash at its end", ExitCode.USAGE),
        (
            REPO,
            "big/",
            "folder big/ .*has no openvino_model.xml.*both/, cpu/int4/, int4-ov/",
            ExitCode.SOURCE,
        ),
        (REPO, "both/", "--hub-file both/openvino_model.xml or", ExitCode.USAGE),
        (REPO, "big/genai_config.json", "has no file", ExitCode.SOURCE),
        ("nothing", "model.gguf", "is not OWNER/NAME", ExitCode.USAGE),
    ],
)
def test_what_is_no_file_of_the_repository_is_a_sentence(
    repo_id: str, name: str, words: str, code: ExitCode, hub: Hub
) -> None:
    with pytest.raises(PackError, match=words) as caught:
        fetched(repo_id, name)
    assert caught.value.exit_code == code


@pytest.mark.slow
def test_other_bytes_than_the_hub_lists_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.altered["model-Q8_0.gguf"] = b"GGUF" + b"\1" * 8000
    with pytest.raises(PackError, match="does not have the digest") as caught:
        fetched(REPO, "model-Q8_0.gguf")
    assert caught.value.exit_code == ExitCode.SOURCE
    assert not list(tmp_path.rglob("model-Q8_0.gguf"))
