"""What the hub refuses, or cannot give, is one sentence; what it says first can cost the weights no
download."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from packager import limits, sources
from packager.errors import ExitCode, PackError
from packager.process import run_job
from tests.support.certificates import self_signed
from tests.support.hub_fetch import REPO, WEIGHTS, Fetch
from tests.support.hub_server import COMMIT, Hub, repository, serve
from tests.support.make_checkpoint import tiny_shape

pytest_plugins = ("tests.support.fixtures.hub",)
pytestmark = pytest.mark.slow


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


def test_a_certificate_that_nobody_signed_is_named(checkpoint: Path, tmp_path: Path) -> None:
    pem, key = self_signed(tmp_path, "127.0.0.1")
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
