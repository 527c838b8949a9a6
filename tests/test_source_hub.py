"""The hub source, against a real HTTP server on loopback and through the child process that a build
uses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from packager import limits, sources
from packager.errors import ExitCode, PackError
from packager.process import JobResult, Progress, run_job
from packager.sources import local
from tests.support.hub_server import COMMIT, Hub, repository, serve
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.tiers import thorough

pytestmark = pytest.mark.slow

REPO = "Qwen/Qwen3-Tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("published") / "tiny")


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    with serve(Hub(REPO, repository(checkpoint))) as served:
        yield served


class Fetch:
    """Run the hub's job as a build does, with a hub cache and settings of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.home = folder / "hf"
        self.log = folder / "fetch.log"
        self.env = {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
        }
        self.progress: list[Progress] = []

    def __call__(
        self, revision: str | None = None, repo_id: str = REPO, offline: bool = False, **env: str
    ) -> dict[str, Any]:
        source = sources.parse("hub", repo_id, revision, offline)
        job, arguments = sources.job(source, tiny_shape())
        run = run_job(
            job, {**arguments, "out": str(self.home / "unused")}, self.log, {**self.env, **env}
        )
        self.progress = []
        while True:
            try:
                message = next(run)
            except StopIteration as stop:
                result: JobResult = stop.value
                return result.value
            if isinstance(message, Progress):
                self.progress.append(message)

    def fails(self, exit_code: ExitCode, *words: str, **arguments: Any) -> PackError:
        with pytest.raises(PackError) as caught:
            self(**arguments)
        assert caught.value.exit_code == exit_code
        for word in words:
            assert word in str(caught.value)
        return caught.value

    def cached(self) -> list[str]:
        """Names of the files in snapshots."""
        return sorted(path.name for path in self.home.glob("hub/models--*/snapshots/*/*"))

    def partial_bytes(self) -> int:
        return sum(
            path.stat().st_size for path in self.home.glob("hub/models--*/blobs/*.incomplete")
        )

    def blobs(self) -> set[str]:
        return {path.name for path in self.home.glob("hub/models--*/blobs/*")}


@pytest.fixture
def fetch(tmp_path: Path, hub: Hub) -> Fetch:
    return Fetch(tmp_path, hub.endpoint)


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


def test_an_unknown_repository_names_the_two_ways_on(fetch: Fetch) -> None:
    words = (
        "has no repository Qwen/Qwen3-0.6",
        "Did you mean 'Qwen/Qwen3-0.6B'",
        "--weights PATH",
        "--weights dummy",
    )
    fetch.fails(ExitCode.SOURCE, *words, repo_id="Qwen/Qwen3-0.6")


def test_a_malformed_name_is_a_usage_error(fetch: Fetch) -> None:
    fetch.fails(ExitCode.USAGE, "not a valid repository name", repo_id="not a name")


def test_an_unknown_revision_is_named(fetch: Fetch) -> None:
    fetch.fails(ExitCode.SOURCE, "has no revision 'v9'", "--weights PATH", revision="v9")


def test_a_gated_repository_says_where_to_ask(hub: Hub, fetch: Fetch) -> None:
    hub.gated = True
    fetch.fails(ExitCode.SOURCE, "gated", f"{hub.endpoint}/{REPO}", "--weights dummy")


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (403, "does not let"),
        (429, "limits the number of requests"),
        (500, "status 500"),
        (503, "status 503"),
    ],
)
def test_a_refusing_server_is_one_sentence(hub: Hub, fetch: Fetch, status: int, word: str) -> None:
    hub.status = status
    error = fetch.fails(ExitCode.SOURCE, word, "--weights PATH", "--weights dummy")
    assert "\n" not in str(error)


def test_an_unreachable_hub_is_one_sentence_and_nothing_falls_back_to_random_weights(
    fetch: Fetch,
) -> None:
    error = fetch.fails(
        ExitCode.SOURCE,
        "cannot be reached",
        "--weights PATH",
        "--weights dummy",
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert "\n" not in str(error)
    assert fetch.cached() == []


def test_a_host_that_speaks_no_tls_is_one_sentence(hub: Hub, fetch: Fetch) -> None:
    fetch.fails(
        ExitCode.SOURCE,
        "cannot be reached",
        "--weights PATH",
        HF_ENDPOINT=hub.endpoint.replace("http:", "https:"),
    )


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command to make a certificate"
)
def test_a_certificate_that_nobody_signed_is_named(checkpoint: Path, tmp_path: Path) -> None:
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(pem),
        *subject,
    ]
    subprocess.run(make, check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + pem.read_text())
    with serve(Hub(REPO, repository(checkpoint)), both) as hub:
        fetch = Fetch(tmp_path, hub.endpoint)
        fetch.fails(ExitCode.SOURCE, "certificate", "SSL_CERT_FILE", "--weights PATH")
        assert fetch(SSL_CERT_FILE=str(pem))["revision"] == COMMIT


def test_a_web_page_in_place_of_the_hub_is_recognised(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "listing", lambda self: ["please log in to the hotel"])
    fetch.fails(ExitCode.SOURCE, "does not answer like a hub", "--weights PATH")


def test_a_listing_without_end_is_not_read_to_its_end(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "listing", lambda self: ["x" * limits.HUB_ANSWER_BYTES])
    fetch.fails(ExitCode.SOURCE, f"more than {limits.HUB_ANSWER_BYTES} bytes")


def test_the_silence_of_a_server_ends_in_a_sentence(hub: Hub, fetch: Fetch) -> None:
    hub.silent = True
    fetch.fails(
        ExitCode.SOURCE, "did not answer in time", "--weights PATH", HF_HUB_DOWNLOAD_TIMEOUT="1"
    )


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


def test_a_repository_of_pickles_is_refused_before_anything_is_fetched(
    hub: Hub, fetch: Fetch
) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop(WEIGHTS)
    fetch.fails(ExitCode.INPUT, "pytorch_model.bin", "can run any code")
    assert fetch.cached() == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b'{"auto_map": {"AutoModel": "x.Y"}}', "auto_map"),
        (b"{", "valid JSON"),
    ],
)
def test_what_the_config_rules_out_costs_no_weights(
    hub: Hub, fetch: Fetch, text: bytes, word: str
) -> None:
    hub.files["config.json"] = text
    fetch.fails(ExitCode.INPUT, "config.json", word)
    assert hub.bodies(WEIGHTS) == []


def test_a_quantization_that_the_size_of_the_weights_bears_out_costs_no_weights(
    hub: Hub, fetch: Fetch
) -> None:
    # Four times the layers in as many bytes: 4 bits per weight.
    config = json.loads(hub.files["config.json"]) | {
        "num_hidden_layers": 16,
        "quantization_config": {"quant_method": "hqq"},
    }
    hub.files["config.json"] = json.dumps(config).encode()
    fetch.fails(ExitCode.INPUT, "config.json", "hqq")
    assert hub.bodies(WEIGHTS) == []


def test_a_quantization_that_the_weights_do_not_have_is_left_aside_with_a_note(
    hub: Hub, fetch: Fetch
) -> None:
    config = json.loads(hub.files["config.json"]) | {
        "quantization_config": {"quant_method": "bitsandbytes"}
    }
    hub.files["config.json"] = json.dumps(config).encode()
    assert "bitsandbytes" in fetch()["notes"][0]


def test_a_repository_of_another_shape_than_planned_is_refused(hub: Hub, fetch: Fetch) -> None:
    job, arguments = sources.job(sources.parse(None, REPO), tiny_shape(layers=5))
    assert arguments["shape"] == asdict(tiny_shape(layers=5))
    with pytest.raises(PackError, match=r"layers 2 instead of 5") as caught:
        list(run_job(job, {**arguments, "out": "unused"}, fetch.log, fetch.env))
    assert caught.value.exit_code == ExitCode.INPUT


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
