"""ModelScope as a source: pinned, resumed, every byte compared, in the cache of its own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from packager import sources
from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.package.content import content_sha256
from packager.sources import modelscope
from packager.sources.mirror import named
from tests.support.hub_server import repository
from tests.support.make_checkpoint import Notes, write_tiny
from tests.support.modelscope_server import COMMIT, ModelScope, serve

REPO = "Qwen/Tiny-1.5"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def site(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScope]:
    """A repository on loopback, and an empty cache."""
    files = {"configuration.json": b"{}", **repository(checkpoint)}
    with serve(ModelScope(REPO, files)) as running:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.endpoint)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "*")
        yield running


def fetch(checkpoint: Path, revision: str | None = None, **more: Any) -> dict[str, Any]:
    shape = asdict(Checkpoint.open(checkpoint).shape)
    arguments = {"revision": revision, "offline": False, "out": "unused", **more}
    report = arguments.pop("report", Notes())
    return dict(modelscope.fetch(report, repo_id=REPO, shape=shape, **arguments))


def test_a_branch_is_pinned_to_the_commit_that_has_exactly_its_files(
    site: ModelScope, checkpoint: Path, tmp_path: Path
) -> None:
    facts = fetch(checkpoint)
    assert (facts["kind"], facts["revision"]) == ("modelscope", COMMIT)
    # Where its own client keeps that revision.
    folder = tmp_path / "modelscope" / "models" / "Qwen--Tiny-1.5" / "snapshots" / COMMIT
    assert Path(facts["folder"]) == folder
    assert facts["endpoint"] == site.endpoint
    assert {row["path"] for row in facts["files"]} <= set(site.files)
    assert (folder / WEIGHTS).read_bytes() == site.files[WEIGHTS]
    again = fetch(checkpoint)
    assert again["files"] == facts["files"]
    assert site.bodies(WEIGHTS) == 1
    assert fetch(checkpoint, COMMIT, offline=True)["revision"] == COMMIT


def test_a_server_that_knows_no_commit_leaves_the_digests_to_pin_the_files(
    site: ModelScope, checkpoint: Path
) -> None:
    site.knows_commits = False
    report = Notes()
    facts = fetch(checkpoint, report=report)
    assert facts["revision"] is None
    assert Path(facts["folder"]).name == "master"
    assert any("digests" in note for note in report.notes)


def test_a_cut_connection_goes_on_where_it_was(site: ModelScope, checkpoint: Path) -> None:
    site.cut_after[WEIGHTS] = [1000, 5000]
    fetch(checkpoint)
    assert site.bodies(WEIGHTS) == 3
    assert not list(Path(fetch(checkpoint)["folder"]).glob(".*incomplete"))


def test_of_two_builds_at_once_one_fetches_a_file_and_the_other_takes_it(
    site: ModelScope, checkpoint: Path
) -> None:
    site.held[WEIGHTS] = threading.Event()

    def until(ready: Callable[[], bool]) -> None:
        limit = time.monotonic() + 30
        while not ready() and time.monotonic() < limit:
            time.sleep(0.01)

    def listings() -> int:
        return sum("/repo/files" in path for _, path, _ in site.requests)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, checkpoint)
        until(lambda: site.bodies(WEIGHTS) == 1)
        each = listings()
        second = pool.submit(fetch, checkpoint)
        until(lambda: listings() == 2 * each)
        # Long enough for the second to ask for the weights, were it not to wait.
        time.sleep(0.3)
        site.held[WEIGHTS].set()
        files = [result.result(60)["files"] for result in (first, second)]
    assert files[0] == files[1]
    assert site.bodies(WEIGHTS) == 1


def test_other_bytes_than_are_listed_are_not_kept(
    site: ModelScope, checkpoint: Path, tmp_path: Path
) -> None:
    data = site.files[WEIGHTS]
    for sent, words in (
        (data[:-1] + bytes([data[-1] ^ 1]), "does not have the sha256"),
        (data + b"more", "has more than its"),
        (data[:-9], "ended before its"),
    ):
        site.altered[WEIGHTS] = sent
        with pytest.raises(PackError, match=words) as caught:
            fetch(checkpoint)
        assert caught.value.exit_code == ExitCode.SOURCE
        assert not list(tmp_path.rglob(f"*{WEIGHTS}*"))


@pytest.mark.parametrize(
    "layout",
    [
        "models/Qwen--Tiny-1.5/snapshots/master",
        "models/Qwen/Tiny-1___5",
        "hub/models/Qwen/Tiny-1___5",
    ],
)
def test_what_its_own_client_has_fetched_is_taken_where_the_digest_is_right(
    layout: str, site: ModelScope, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "modelscope" / layout
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(site.files[WEIGHTS])
    damaged = bytearray(site.files["tokenizer.json"])
    damaged[10] ^= 1
    (folder / "tokenizer.json").write_bytes(damaged)
    facts = fetch(checkpoint)
    assert site.bodies(WEIGHTS) == 0
    assert site.bodies("tokenizer.json") == 1
    assert (Path(facts["folder"]) / "tokenizer.json").read_bytes() == site.files["tokenizer.json"]


def test_the_token_goes_to_the_server_and_to_no_other_host(
    site: ModelScope, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.token = "ms-secret"
    with pytest.raises(PackError, match="does not let") as caught:
        fetch(checkpoint)
    assert caught.value.exit_code == ExitCode.SOURCE
    site.requests.clear()
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    facts = fetch(checkpoint)
    assert "ms-secret" not in str(facts)
    storage = [row for row in site.requests if row[0].startswith("localhost")]
    assert storage
    assert not any(token for _, _, token in storage)
    assert all(token for host, _, token in site.requests if not host.startswith("localhost"))


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "has no repository"), (401, "does not let"), (500, "failed to answer")],
)
def test_a_refusal_of_the_server_is_a_sentence(
    status: int, words: str, site: ModelScope, checkpoint: Path
) -> None:
    site.status = status
    with pytest.raises(PackError, match=words) as caught:
        fetch(checkpoint)
    assert caught.value.exit_code == ExitCode.SOURCE


def test_a_server_that_is_none_and_one_that_is_not_there_are_sentences(
    site: ModelScope, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = site.listing()
    for listing, words, code in (
        ([{"Path": WEIGHTS, "Size": "x", "Sha256": None}], "cannot be checked", ExitCode.SOURCE),
        ([{**rows[0], "Path": "model.bin"}], "pickle", ExitCode.INPUT),
        ([1], "does not answer like", ExitCode.SOURCE),
        (
            [
                {**rows[1], "Path": "additional_chat_templates/../../x"},
                {**rows[1], "Path": WEIGHTS},
            ],
            ".",
            None,
        ),
    ):
        monkeypatch.setattr(site, "listing", lambda listing=listing: listing)
        with pytest.raises(PackError, match=words) as caught:
            fetch(checkpoint)
        assert code is None or caught.value.exit_code == code
    # The others are no addresses at all.
    for address in ("http://127.0.0.1:99999", "http://[", "http://127.0.0.1:9"):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
        with pytest.raises(PackError, match="cannot be reached"):
            fetch(checkpoint)


def test_offline_takes_what_is_there_and_says_what_is_not(
    site: ModelScope, checkpoint: Path
) -> None:
    with pytest.raises(PackError, match="is not in ModelScope's cache") as caught:
        fetch(checkpoint, offline=True)
    assert caught.value.exit_code == ExitCode.SOURCE
    assert site.requests == []


def test_it_is_a_source_like_the_hub() -> None:
    source = sources.parse("modelscope", "Qwen/Qwen3-0.6B", COMMIT)
    assert (source.kind, source.revision) == ("modelscope", COMMIT)
    assert sources.parse("modelscope", "Qwen/Qwen3-0.6B").location == "Qwen/Qwen3-0.6B"


def test_a_mirror_is_named_without_its_password_and_changes_no_content() -> None:
    usual = "https://huggingface.co"
    assert named(usual + "/", usual) == {}
    assert named("https://me:secret@mirror.example:8443/hf/", usual) == {
        "endpoint": "https://mirror.example:8443/hf"
    }
    data: dict[str, Any] = {"source": {"kind": "hub"}, "files": []}
    mirrored = {**data, "source": {**data["source"], "endpoint": "https://mirror.example"}}
    assert content_sha256(data) == content_sha256(mirrored)
