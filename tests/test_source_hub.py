"""The hub source, against a real HTTP server on loopback and through the child process that a build
uses."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from packager import sources
from packager.errors import ExitCode, PackError
from packager.process import Progress, run_job
from packager.sources import local
from tests.support.hub_fetch import REPO, WEIGHTS, Fetch
from tests.support.hub_server import COMMIT, Hub, repository
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.tiers import thorough

pytest_plugins = ("tests.support.fixtures.hub",)
pytestmark = pytest.mark.slow


def test_a_checkpoint_comes_with_its_commit_licence_sizes_and_digests(
    hub: Hub, fetch: Fetch, checkpoint: Path
) -> None:
    facts = fetch()
    assert facts["revision"] == COMMIT
    assert (facts["kind"], facts["repo_id"], facts["license"]) == ("hub", REPO, "apache-2.0")
    assert Path(facts["folder"]).name == COMMIT
    expected = [
        {
            "path": path.name,
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(checkpoint.iterdir())
    ]
    assert facts["files"] == expected
    assert (Path(facts["folder"]) / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_progress_counts_the_bytes_of_all_files(fetch: Fetch, checkpoint: Path) -> None:
    fetch()
    total = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert fetch.progress[-1] == Progress(total, total, "B")


def test_only_what_makes_a_checkpoint_is_fetched(hub: Hub, fetch: Fetch) -> None:
    extra = (
        "README.md",
        "modeling_qwen.py",
        "pytorch_model.bin",
        "figures/plot.png",
        "original/model.safetensors",
        "onnx/model.safetensors",
    )
    hub.files.update(dict.fromkeys(extra, b"x" * 5000))
    facts = fetch()
    assert not {file["path"] for file in facts["files"]} & set(extra)
    assert not any(
        name in request.path
        for request in hub.requests
        for name in extra
        if "/" in name or name.endswith((".py", ".bin", ".md"))
    )


def test_what_is_in_the_cache_is_not_sent_again(hub: Hub, fetch: Fetch) -> None:
    first = fetch()
    hub.requests.clear()
    assert fetch() == first
    assert hub.asked() == [f"/api/models/{REPO}/revision/main"]


def test_the_layout_is_the_hubs_own_so_that_its_client_finds_the_files(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    facts = fetch()
    assert (
        snapshot_download(REPO, cache_dir=fetch.home / "hub", local_files_only=True)
        == facts["folder"]
    )


def test_a_branch_is_resolved_and_a_commit_taken_as_it_is(hub: Hub, fetch: Fetch) -> None:
    hub.branches["v1.5"] = COMMIT
    assert fetch(revision="v1.5")["revision"] == COMMIT
    assert fetch(revision=COMMIT)["revision"] == COMMIT


def test_the_access_token_of_the_user_is_sent_to_the_hub(hub: Hub, fetch: Fetch) -> None:
    hub.token = "hf_secret"
    fetch.fails(ExitCode.SOURCE, "private", "hf auth login")
    fetch.fails(ExitCode.SOURCE, "token", HF_TOKEN="hf_wrong")
    assert fetch(HF_TOKEN="hf_secret")["revision"] == COMMIT


def test_a_cut_connection_is_resumed_with_a_range_and_only_the_rest_is_sent(
    hub: Hub, fetch: Fetch
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cut_after[WEIGHTS] = [100_000]
    fetch()
    first, second = hub.bodies(WEIGHTS)
    assert ("Range" in first.headers, first.sent) == (False, 100_000)
    assert second.headers["Range"] == "bytes=100000-"
    assert second.sent == size - 100_000


def test_a_download_that_failed_is_resumed_by_the_next_run(hub: Hub, fetch: Fetch) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cut_after[WEIGHTS] = [100_000, 0, 0, 0]
    fetch.fails(ExitCode.SOURCE, "cut off", "--weights PATH", "--weights dummy")
    assert WEIGHTS not in fetch.cached()
    hub.requests.clear()
    fetch()
    (only,) = hub.bodies(WEIGHTS)
    assert (only.headers["Range"], only.sent) == ("bytes=100000-", size - 100_000)


def test_a_part_that_is_too_long_to_be_one_is_started_again(hub: Hub, fetch: Fetch) -> None:
    hub.cut_after[WEIGHTS] = [100_000, 0, 0, 0]
    fetch.fails(ExitCode.SOURCE, "cut off")
    (partial,) = fetch.home.glob("hub/models--*/blobs/*.incomplete")
    os.truncate(partial, len(hub.files[WEIGHTS]) + 1)
    assert (Path(fetch()["folder"]) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_server_that_ignores_the_range_does_not_spoil_the_file(hub: Hub, fetch: Fetch) -> None:
    hub.cut_after[WEIGHTS] = [100_000]
    hub.ignore_range = True
    facts = fetch()
    assert (Path(facts["folder"]) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert fetch.progress[-1].done == fetch.progress[-1].total


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data[:-1] + b"\xff",
        thorough(lambda data: data[:-100]),
        thorough(lambda data: data + b"\0"),
    ],
    ids=["flipped", "short", "long"],
)
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"], ids=["large", "small"])
def test_bytes_that_differ_from_the_listing_are_refused_and_not_kept(
    hub: Hub, fetch: Fetch, name: str, alter: Any
) -> None:
    hub.altered[name] = alter(hub.files[name])
    fetch.fails(ExitCode.SOURCE, name, "nothing was kept")
    assert name not in fetch.cached()
    digest = hashlib.sha256(hub.files[name]).hexdigest()
    assert not any(blob.startswith(digest) for blob in fetch.blobs())
    del hub.altered[name]
    assert fetch()["revision"] == COMMIT


def test_a_cached_file_that_has_changed_is_refused_with_the_file_named(fetch: Fetch) -> None:
    weights = (Path(fetch()["folder"]) / WEIGHTS).resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    fetch.fails(ExitCode.INPUT, WEIGHTS, "has changed", str(weights))
    fetch.fails(ExitCode.INPUT, WEIGHTS, "has changed", offline=True)


def test_small_files_of_the_cache_are_compared_with_the_names_that_they_have_there(
    fetch: Fetch,
) -> None:
    """They lie under git's digest of their bytes, in a snapshot that is fetched and in one that is
    named as a folder."""
    folder = Path(fetch()["folder"])
    small = (folder / "config.json").resolve()
    assert len(small.name) == 40
    small.write_bytes(small.read_bytes() + b" ")
    fetch.fails(ExitCode.INPUT, "config.json", "has changed", str(small))
    fetch.fails(ExitCode.INPUT, "config.json", "has changed", offline=True)
    _, arguments = sources.job(sources.parse(str(folder), REPO), tiny_shape())
    with pytest.raises(PackError, match=r"config\.json has changed since it was downloaded"):
        local.fetch(Silent(), **arguments, out="unused")


def test_a_snapshot_of_copies_is_compared_with_what_the_hub_lists(fetch: Fetch) -> None:
    """As it is on a disk that knows no links."""
    folder = Path(fetch()["folder"])
    for name in (WEIGHTS, "config.json"):
        real = (folder / name).resolve()
        data = real.read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(
            data[:-1] + bytes([data[-1] ^ 1]) if name == WEIGHTS else data + b" "
        )
        fetch.fails(
            ExitCode.INPUT, name, "has changed since it was downloaded", f"Delete {folder / name}"
        )
        (folder / name).unlink()
        assert fetch()["revision"] == COMMIT


def test_offline_takes_what_the_cache_has_by_branch_or_by_commit(hub: Hub, fetch: Fetch) -> None:
    online = fetch()
    hub.requests.clear()
    for revision in (None, "main", COMMIT):
        offline = fetch(revision=revision, offline=True)
        assert (offline["folder"], offline["files"]) == (online["folder"], online["files"])
    assert fetch(HF_HUB_OFFLINE="1")["revision"] == COMMIT
    assert hub.asked() == []


def test_offline_with_an_empty_cache_names_the_ways_on(hub: Hub, fetch: Fetch) -> None:
    fetch.fails(
        ExitCode.SOURCE, "not in the hub cache", "--weights PATH", "--weights dummy", offline=True
    )
    assert hub.asked() == []


def test_shards_are_fetched_with_their_index(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    hub.files = repository(write_tiny(tmp_path / "sharded", shards=3))
    names = [file["path"] for file in fetch()["files"]]
    assert "model.safetensors.index.json" in names
    assert sum(name.startswith("model-0000") for name in names) >= 3


def test_a_download_stopped_by_the_user_leaves_its_part_for_the_next_run(
    hub: Hub, fetch: Fetch
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.stall_after[WEIGHTS] = 200_000
    job, arguments = sources.job(sources.parse(None, REPO), tiny_shape())
    run = run_job(job, {**arguments, "out": "unused"}, fetch.log, fetch.env)
    next(run)
    deadline = time.monotonic() + 60
    while fetch.partial_bytes() < 150_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.close()
    assert WEIGHTS not in fetch.cached()
    hub.stall_after.clear()
    hub.requests.clear()
    fetch()
    (rest,) = hub.bodies(WEIGHTS)
    assert 0 < rest.sent <= size - 100_000
    assert rest.headers["Range"] == f"bytes={size - rest.sent}-"
