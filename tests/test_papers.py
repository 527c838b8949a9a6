"""The papers of a package: true to its manifest, read by readers of others, and the same bytes for
the same manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from packager import papers
from packager.files import sha256
from packager.package import manifest, sampling
from packager.package.content import content
from packager.package.verify import verify
from tests.support.tiny_gguf import tiny_gguf

FILES = {
    "model/model.gguf": tiny_gguf(b"weights" * 100),
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# measured at noon\n",
    "LICENSE": b"text",
}
MEASURED = {
    "decode_tps": 12.5,
    "ttft_ms": 300.0,
    "peak_memory_bytes": 900_000_000,
    "token_ms": [[1.0, 2.0]],
    "measured_at": "2026-11-21T12:00:00+00:00",
    "noisy": False,
    "machine": {
        "processor": "Test",
        "architecture": "x86_64",
        "cores": 2,
        "memory_bytes": 8 << 30,
        "system": "Linux",
    },
    "place": {"on_device": True, "why": "it is"},
}
REVISION = "a" * 40


def described(folder: Path, **more: Any) -> dict[str, Any]:
    """The manifest of a package of FILES, before its papers."""
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    rows = [
        {"path": path, "size": len(data), "sha256": sha256(folder / path)}
        for path, data in FILES.items()
    ]
    body: dict[str, Any] = {
        "schema": manifest.SCHEMA,
        "name": "qwen3-0.6b-gguf-q4_k_m",
        "version": "1.2.0",
        "created": "2026-11-21T12:01:00+00:00",
        "target": "raspberry-pi-5-8gb",
        "workload": {"use_case": "chat", "context": 4096, "prompt": 512},
        "variant": {
            "repo_id": "Qwen/Qwen3-0.6B",
            "revision": REVISION,
            "license": "apache-2.0",
            "spdx": "Apache-2.0",
        },
        "source": {
            "kind": "hub",
            "location": "Qwen/Qwen3-0.6B",
            "files": [{"path": "model.safetensors", "size": 9, "sha256": "b" * 64}],
        },
        "recipe": {
            "id": "gguf:Q4_K_M",
            "kv": "f16",
            "summary": "4-bit weights",
            "settings": {"mix": "Q4_K_M", "imatrix": {"file": "i.gguf", "sha256": "d" * 64}},
        },
        "runtime": {"name": "llama.cpp", "version": "0.3.36"},
        "files": rows,
        "artifact_bytes": 700,
        "predicted": {
            "footprint": {"peak": 10**9},
            "forecast": {"decode_tps": 14.0},
            "artifact_bytes": 700,
        },
        "measured": MEASURED,
        "verdicts": [
            {
                "rule": "decode",
                "limit": 6.0,
                "unit": "tok/s",
                "measured": 12.5,
                "passed": True,
                "enforced": True,
            }
        ],
        "why": {"sentence": "It is the smallest that passes."},
        "sampling": {"temperature": 0.6, "top_k": 20},
        "chat": {
            "profile": {
                "thinking": "on",
                "thinking_budget": 64,
                "system_prompt": "x",
                "tools": [{"function": {"name": "now"}}],
            }
        },
        "tools": {
            "qwen-pack": "0.1.0",
            "python": "3.12.1",
            "llama-cpp-python": "0.3.36",
            "absent": None,
        },
        "content_sha256": "c" * 64,
    }
    return {**body, **more}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    data = papers.added(tmp_path, described(tmp_path))
    manifest.write(tmp_path, data)
    return tmp_path


def read(package: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((package / name).read_text())
    return value


def test_the_papers_are_files_of_the_package_like_any_other(package: Path) -> None:
    assert verify(package) == []
    names = {row["path"] for row in manifest.read(package).data["files"]}
    assert {papers.CARD, papers.SBOM, papers.PROVENANCE, papers.BENCHMARK} <= names
    (package / papers.SBOM).write_text("{}")
    assert [finding.path for finding in verify(package)] == [papers.SBOM]


def test_the_same_manifest_gives_the_same_papers_and_a_measurement_changes_only_those_that_quote_it(
    tmp_path: Path,
) -> None:
    def made(name: str, **more: Any) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        papers.added(tmp_path / name, described(tmp_path / name, **more))
        return {
            path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()
        }

    one, same = made("one"), made("same")
    assert one == same
    later = made(
        "later", created="2027-01-01T00:00:00+00:00", measured={**MEASURED, "decode_tps": 11.0}
    )
    assert {name for name in one if one[name] != later[name]} == {papers.CARD, papers.BENCHMARK}


def problems(bom: dict[str, Any]) -> Any:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"variant": {"repo_id": "Qwen/Qwen2.5-3B", "revision": None, "license": "qwen-research"}},
        {
            "variant": {"repo_id": "local/mine", "revision": None, "license": None},
            "version": None,
            "measured": None,
        },
        {"variant": {"repo_id": "Qwen/X y:é", "revision": REVISION, "license": "my own"}},
        {"source": {"kind": "dummy", "location": "x", "files": []}, "tools": {}, "workload": {}},
    ],
    ids=["apache", "research", "own", "odd", "dummy"],
)
def test_the_bill_of_materials_follows_the_schema_of_cyclonedx(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    papers.added(tmp_path, described(tmp_path, **more))
    bom = read(tmp_path, papers.SBOM)
    assert problems(bom) is None
    assert bom["specVersion"] == "1.6" and problems({**bom, "x": 1}) is not None
    # Its own library reads it too, which knows what the schema cannot say.
    assert Bom.from_json(bom).validate()  # type: ignore[attr-defined]


def test_the_bill_of_materials_names_model_base_engine_tools_and_files_by_digest(
    package: Path,
) -> None:
    bom = read(package, papers.SBOM)
    model = bom["metadata"]["component"]
    assert (model["type"], model["version"], model["licenses"][0]["license"]["id"]) == (
        "machine-learning-model",
        "1.2.0",
        "Apache-2.0",
    )
    assert model["modelCard"]["considerations"]["technicalLimitations"]
    (base,) = [row for row in bom["components"] if row["bom-ref"] == "base"]
    assert base["purl"] == f"pkg:huggingface/Qwen/Qwen3-0.6B@{REVISION}"
    assert base["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    files = {
        row["name"]: row["hashes"][0]["content"]
        for row in bom["components"]
        if row["type"] == "file"
    }
    assert files == {path: sha256(package / path) for path in FILES if content(path)}
    assert {row["name"] for row in bom["metadata"]["tools"]["components"]} == {
        "qwen-pack",
        "python",
        "llama-cpp-python",
    }
    known_refs = {row["bom-ref"] for row in (model, *bom["components"])}
    assert {
        ref for row in bom["dependencies"] for ref in (row["ref"], *row.get("dependsOn", ()))
    } == known_refs


def statement(package: Path, name: str) -> dict[str, Any]:
    """An in-toto statement, read by the library of its makers, which refuses fields that it does
    not know."""
    rows = read(package, name)
    parsed = json_format.Parse(json.dumps(rows), statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    return rows


def test_the_provenance_is_slsa_and_names_commit_files_recipe_tools_and_what_came_out(
    package: Path,
) -> None:
    rows = statement(package, papers.PROVENANCE)
    assert rows["predicateType"] == "https://slsa.dev/provenance/v1"
    read_back = json_format.Parse(json.dumps(rows["predicate"]), provenance_pb2.Provenance())
    definition = read_back.build_definition
    assert {row["name"]: row["digest"]["sha256"] for row in rows["subject"]} == {
        p: sha256(package / p) for p in FILES if content(p)
    }
    digests = [dict(row.digest) for row in definition.resolved_dependencies]
    assert (
        {"gitCommit": REVISION} in digests
        and {"sha256": "b" * 64} in digests
        and {"sha256": "d" * 64} in digests
    )
    assert "pkg:pypi/llama-cpp-python@0.3.36" in [
        row.uri for row in definition.resolved_dependencies
    ]
    assert definition.external_parameters["recipe"] == "gguf:Q4_K_M"
    assert definition.internal_parameters["recipe"]["settings"]["mix"] == "Q4_K_M"
    assert read_back.run_details.builder.version["qwen-pack"] == "0.1.0"
    assert "2026-11-21" not in (package / papers.PROVENANCE).read_text()


def test_random_weights_name_their_seed(tmp_path: Path) -> None:
    from packager.sources.dummy import SEED

    papers.added(
        tmp_path, described(tmp_path, source={"kind": "dummy", "location": "x", "files": []})
    )
    build = statement(tmp_path, papers.PROVENANCE)["predicate"]["buildDefinition"]
    assert build["internalParameters"]["seeds"] == {"random_weights": SEED}


def test_the_figures_are_bound_to_the_digests_of_the_files_that_were_measured(
    package: Path, tmp_path: Path
) -> None:
    rows = statement(package, papers.BENCHMARK)
    assert rows["subject"] == [
        {"name": "model/model.gguf", "digest": {"sha256": sha256(package / "model/model.gguf")}}
    ]
    assert (
        rows["predicate"]["measured"]["decode_tps"] == 12.5
        and "token_ms" not in rows["predicate"]["measured"]
    )
    assert rows["predicate"]["verdicts"][0]["passed"] is True
    papers.added(tmp_path, described(tmp_path, measured=None, not_measured="there is no GPU here"))
    assert (
        statement(tmp_path, papers.BENCHMARK)["predicate"]["not_measured"] == "there is no GPU here"
    )


def test_the_card_says_what_it_is_for_whom_what_was_measured_and_where_the_limits_are(
    package: Path,
) -> None:
    text = (package / papers.CARD).read_text()
    front, _, body = text.removeprefix("---\n").partition("---\n")
    rows = {
        key: json.loads(value)
        for key, _, value in (line.partition(": ") for line in front.splitlines())
    }
    assert (rows["license"], rows["base_model"], rows["pipeline_tag"]) == (
        "apache-2.0",
        "Qwen/Qwen3-0.6B",
        "text-generation",
    )
    for heading in ("For whom", "Measured", "Quality", "Limits", "Licence", "Where it comes from"):
        assert f"\n## {heading}\n" in body, heading
    assert "| decode | 12.5 tok/s | 14.0 tok/s | +12 % |" in body
    assert "passed: decode: 12.5 tok/s of at least 6.0 tok/s" in body
    assert "| sampling | temperature 0.6, top_k 20 |" in body
    assert (
        "| fixed for every chat | thinking on, 64 tokens at most, a system prompt, the tools now |"
        in body
    )
    assert (
        "Apache License 2.0 (`Apache-2.0`)." in body
        and "Not compared with the unquantized model." in body
    )


def test_the_card_of_what_was_not_measured_or_is_random_or_not_free_says_so(tmp_path: Path) -> None:
    more = {
        "measured": None,
        "not_measured": "there is no GPU here.",
        "source": {"kind": "dummy", "location": "x", "files": []},
        "variant": {"repo_id": "Qwen/Qwen2.5-3B", "revision": None, "license": "qwen-research"},
        "quality": {"skipped": "its weights are random", "parity": None},
    }
    papers.added(tmp_path, described(tmp_path, **more))
    text = (tmp_path / papers.CARD).read_text()
    assert (
        "there is no GPU here" in text
        and "Its weights are random" in text
        and "Not compared with the unquantized model: its" in text
    )
    assert 'license: "other"\nlicense_name: "qwen-research"' in text
    assert "which allows research and evaluation only" in text


def test_sampling_is_what_the_checkpoint_says_in_numbers() -> None:
    said = {
        "do_sample": True,
        "top_p": 0.95,
        "temperature": 0.6,
        "top_k": 20,
        "eos_token_id": [1],
        "min_p": None,
    }
    assert sampling.of(said) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert sampling.of({"do_sample": False, "temperature": 0.6}) == {"temperature": 0}
    odd = {
        "temperature": float("nan"),
        "top_k": "20",
        "top_p": True,
        "min_p": -1,
        "repetition_penalty": [1.0],
    }
    assert sampling.of({}) is None and sampling.of(odd) is None


def test_a_card_says_in_words_that_no_licence_is_stated(tmp_path: Path) -> None:
    mine = {"repo_id": "local/mine", "revision": None, "license": None, "spdx": "NOASSERTION"}
    papers.added(tmp_path, described(tmp_path, variant=mine))
    text = (tmp_path / papers.CARD).read_text()
    assert "NOASSERTION" not in text
    assert "| licence of the weights | not stated by any known source |" in text
    assert "No known source states its licence: find out what it allows." in text
