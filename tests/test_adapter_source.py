"""An adapter on its way through a build: fetched, hashed, compared with its digests, recorded, and
part of every key."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.adapter import CONFIG, WEIGHTS
from packager.digests import key_of
from packager.errors import ExitCode, PackError
from packager.papers import provenance
from packager.shape import Shape
from packager.sources import Source, cache_key, job
from packager.sources import adapters as loras
from packager.sources.reread import Evidence
from tests.support.adapters import QUERY, low_rank
from tests.support.hub_server import COMMIT, Hub, repository, serve
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny

SHAPE: Shape = tiny_shape()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return low_rank(tmp_path / "one", {QUERY: (64, 64)})


def source(kind: str, tmp_path: Path, *specs: str) -> Source:
    if kind == "local" and not (tmp_path / "base").exists():
        write_tiny(tmp_path / "base")
    place = str(tmp_path / "base") if kind == "local" else "tests/tiny"
    adapters = loras.parse(specs)
    return Source(kind, place, None, "tests/tiny", adapters=adapters, base=SHAPE)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["local", "dummy"])
def test_the_facts_name_base_and_adapter_and_their_bytes_are_compared(
    kind: str, adapter: Path, tmp_path: Path
) -> None:
    asked = source(kind, tmp_path, f"{adapter}:0.5")
    name, arguments = job(asked, SHAPE)
    assert name == "packager.sources.adapters:fetch"
    facts = loras.fetch(Silent(), **arguments, out=str(tmp_path / "out"))
    assert {row["path"] for row in facts["files"]} >= {
        "config.json",
        WEIGHTS.replace("adapter_", ""),
    }
    [row] = loras.recorded(facts)
    assert (row["location"], row["scale"], row["repo_id"]) == ("one", 0.5, None)
    assert [file["path"] for file in row["files"]] == [CONFIG, WEIGHTS]
    assert str(tmp_path) not in str(row)
    folder = Path(facts["folder"])
    merged = Checkpoint.open(folder).tensors[f"{QUERY}.weight"]
    assert merged.made is not None
    assert not list(folder.glob("*.safetensors"))
    evidence = Evidence.of(folder, facts)
    evidence.check()
    (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-1] + b"\x01")
    with pytest.raises(PackError, match="is not what it was") as caught:
        evidence.check()
    assert caught.value.exit_code is ExitCode.INPUT


def test_adapters_and_scales_are_part_of_every_key_and_a_build_without_keeps_its_own(
    adapter: Path, tmp_path: Path
) -> None:
    specs = ([], [str(adapter)], [f"{adapter}:2"])
    asked = [source("local", tmp_path, *some) for some in specs]
    keys = [cache_key(one, SHAPE) for one in asked]
    assert len(set(keys)) == 3
    files = [{"path": "x", "size": 1, "sha256": "0"}]
    rows = [{"scale": scale, "files": files} for scale in (1.0, 2.0)]
    facts = [{"files": files}, *({"files": files, "adapters": [row]} for row in rows)]
    assert len({key_of(loras.inputs_of(one)) for one in facts}) == 3
    assert loras.inputs_of(facts[0]) == files
    assert set(asked[0].as_dict()) == {"kind", "location", "revision", "repo_id", "offline"}
    assert asked[1].as_dict()["adapters"][0]["scale"] == 1


def test_an_adapter_of_the_hub_is_fetched_at_its_commit_and_used_again_offline(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adapter / "optimizer.pt").write_bytes(b"pickle")
    with serve(Hub("me/style", repository(adapter))) as hub:
        for name, value in {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        [found] = loras.parse(["me/style:0.25"])
        assert (found.repo_id, found.revision, found.scale) == ("me/style", COMMIT, 0.25)
        assert set(found.open().low_rank) == {QUERY}
        assert not hub.bodies("optimizer.pt")
        assert loras.parse(["me/style:0.25"], offline=True) == (found,)
        del hub.files[WEIGHTS]
        with pytest.raises(PackError, match="holds no adapter") as caught:
            loras.parse(["me/style"])
    assert caught.value.exit_code is ExitCode.INPUT


def test_provenance_names_the_commit_and_every_file() -> None:
    files = [{"path": WEIGHTS, "size": 3, "sha256": "ab"}]
    row = {"repo_id": "me/style", "revision": COMMIT, "scale": 0.5, "files": files}
    data = {
        "files": [],
        "variant": {"repo_id": "local/x"},
        "recipe": {"id": "gguf:Q8_0"},
        "source": {"kind": "local", "files": [], "adapters": [row]},
    }
    definition = provenance.statement(data)["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {
            "name": "me/style",
            "uri": f"git+https://huggingface.co/me/style@{COMMIT}",
            "digest": {"gitCommit": COMMIT},
        },
        {
            "name": f"adapter-1/{WEIGHTS}",
            "digest": {"sha256": "ab"},
            "annotations": {"size": 3, "scale": "0.5"},
        },
    ]
