"""A converted model of a repository of the hub, by the name of its file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("repo_id", "name", "words", "code"),
    [
        (REPO, "model-Q8.gguf", "has no file.*Did you mean.*model-Q8_0", ExitCode.SOURCE),
        (REPO, "../model.gguf", "not a .gguf file", ExitCode.USAGE),
        (REPO, "README.md", "not a .gguf file", ExitCode.USAGE),
        ("nothing", "model.gguf", "is not OWNER/NAME", ExitCode.USAGE),
    ],
)
def test_what_is_no_file_of_the_repository_is_a_sentence(
    repo_id: str, name: str, words: str, code: ExitCode, hub: Hub
) -> None:
    with pytest.raises(PackError, match=words) as caught:
        fetched(repo_id, name)
    assert caught.value.exit_code == code


def test_other_bytes_than_the_hub_lists_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.altered["model-Q8_0.gguf"] = b"GGUF" + b"\1" * 8000
    with pytest.raises(PackError, match="does not have the digest") as caught:
        fetched(REPO, "model-Q8_0.gguf")
    assert caught.value.exit_code == ExitCode.SOURCE
    assert not list(tmp_path.rglob("model-Q8_0.gguf"))
