"""Adapter packages: a few MB that belong to one package by its content, added while an engine
computes; measured against the float merge, refused by everything else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.inspection import onnx_adapter
from packager.inspection.unsafe import Unsafe
from packager.package import manifest, verify
from packager.pipeline import bench
from packager.process import run_job
from packager.shipping import keys
from packager.shipping.delta import write_patch
from packager.shipping.export import FORMATS
from packager.shipping.oci import images
from packager.shipping.patch import apply
from packager.shipping.registry import pull, push
from packager.shipping.server import adapters as served
from packager.shipping.shipment import prepare
from packager.shipping.signature import Signer, Trust, check, sign
from packager.shipping.unpack import unpack
from targets import registry
from targets.gguf import adapter as gguf_adapter
from targets.onnxruntime.adapter import given as onnx_given
from tests.support.adapter_packages import BY_LLAMA_CPP, base_for, built, source
from tests.support.oci_registry import real_registry
from tests.support.shipping_packages import exported, finish
from tests.support.tiers import thorough

GREETING = "Ahoy!"
QUESTION = "What is your job?"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base for llama.cpp and its adapter."""
    home = tmp_path_factory.mktemp("adapters")
    base = base_for("llama.cpp", home / "base")
    return base, built(base, home / "ahoy", version="1.0.0")


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base for OpenVINO and its adapter."""
    home = tmp_path_factory.mktemp("for-openvino")
    base = base_for("openvino", home / "base")
    return base, built(base, home / "ahoy")


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base for ONNX Runtime whose graph takes adapters, and its adapter."""
    home = tmp_path_factory.mktemp("for-onnxruntime")
    base = base_for("onnxruntime", home / "base")
    return base, built(base, home / "ahoy")


def said(base: Path, *adapters: Path) -> str:
    """What the engine answers greedily, in a process of its own."""
    found = manifest.read(base)
    runtime = registry.runtime(found.contents.runtime.name)
    arguments: dict[str, Any] = {
        "artifact": str(base / "model"),
        "settings": {**bench.settings_with(found, base, runtime, adapters), "threads": 1},
        "max_new_tokens": 8,
        "session": runtime.session,
        "prompt": f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
    }
    job = "packager.behaviour.one_prompt:answer"
    return str(finish(run_job(job, arguments, base.with_name("said"))).value["text"])


@pytest.mark.engine
@pytest.mark.parametrize("runtime", ["llama.cpp", thorough("openvino"), "onnxruntime"])
def test_an_adapter_package_is_within_the_limits_and_in_what_the_base_says(
    runtime: str, request: pytest.FixtureRequest
) -> None:
    base, adapter = request.getfixturevalue("llama" if runtime == "llama.cpp" else runtime)
    contents = manifest.read(adapter).contents
    assert contents.adapter is not None
    assert contents.quality is not None
    assert contents.quality.passed
    assert {row.rule for row in contents.quality.verdicts} >= {"kl_mean", "top1"}
    assert contents.adapter.base.content_sha256 == manifest_digest(base)
    assert (contents.adapter.rank, contents.adapter.matrices) == (4, 16)
    assert contents.source.adapters[0].files
    assert (contents.artifact_bytes or 0) < 200_000
    assert not verify.verify(adapter)
    assert GREETING not in said(base)
    assert GREETING in said(base, adapter)


def manifest_digest(base: Path) -> str:
    from packager.package.adapters import digest

    return digest(manifest.read(base))


@pytest.mark.engine
def test_a_base_that_is_not_that_of_the_adapter_is_a_sentence(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = llama
    again = Path(shutil.copytree(base, tmp_path / "again"))

    def rewritten(**changes: Any) -> Path:
        manifest.write(again, {**manifest.read(base).data, **changes})
        return again

    changed_source = {**source(), "files": source()["files"][1:]}
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"name": "another", "variant": {"repo_id": "local/another"}},
            "it belongs to tiny-Q8_0, and this is another",
        ),
        ({"version": "2.0.0"}, "it belongs to no version of it, and this is 2.0.0"),
        ({"source": changed_source}, "it belongs to content"),
    ]
    runtime = registry.runtime("llama.cpp")
    for changes, why in cases:
        other = rewritten(**changes)
        with pytest.raises(PackError, match=why) as caught:
            bench.settings_with(manifest.read(other), other, runtime, [adapter])
        assert caught.value.exit_code is ExitCode.INPUT
    for base_path, given, why, code in (
        (base, [base], "not of an adapter", ExitCode.USAGE),
        (adapter, [], "holds no model", ExitCode.USAGE),
        (base, [adapter, adapter], "twice", ExitCode.USAGE),
    ):
        with pytest.raises(PackError, match=why) as caught:
            bench.settings_with(manifest.read(base_path), base_path, runtime, given)
        assert caught.value.exit_code is code
    with pytest.raises(PackError, match="no inputs for one: build it with --adapter-inputs"):
        bench.settings_with(manifest.read(base), base, registry.runtime("onnxruntime"), [adapter])
    with pytest.raises(PackError, match="other weights") as caught:
        built(rewritten(source=changed_source), tmp_path / "none")
    assert caught.value.exit_code is ExitCode.INPUT
    with pytest.raises(PackError, match="somebody else converted it"):
        adopted = {**source(), "adopted": {"variant": "local/tiny-qwen3"}}
        built(rewritten(source=adopted), tmp_path / "none")
    with pytest.raises(PackError, match="holds no model"):
        built(adapter, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.engine
def test_an_adapter_package_leaves_as_any_package_but_not_as_a_model(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    _, adapter = llama
    archive = exported(adapter, "tar.zst", tmp_path / "ahoy.tar.zst")
    unpacked = tmp_path / "unpacked"
    finish(unpack(archive, unpacked))
    assert not verify.verify(unpacked)
    assert manifest.read(unpacked).data == manifest.read(adapter).data
    misfits = {name: row.misfit(manifest.read(adapter)) for name, row in FORMATS.items()}
    assert {name for name, misfit in misfits.items() if misfit is None} == {
        "dir",
        "tar.zst",
        "zip",
        "oci",
    }
    assert "is an adapter" in str(misfits["ollama"])


@pytest.mark.engine
def test_a_server_takes_the_adapters_of_its_package_alone(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = llama

    class Known:
        name, runtime, task = "tiny", "openvino", "generate"
        content_sha256 = manifest_digest(base)

    known: Any = Known()
    (path,) = served.files([str(adapter)], known)
    assert path == adapter / "model" / gguf_adapter.FILE
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    with (copy / "model" / gguf_adapter.FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PackError, match="not what its manifest says"):
        served.files([str(copy)], known)
    with pytest.raises(PackError, match="not an adapter package"):
        served.files([str(base)], known)
    known.content_sha256 = "0" * 64
    with pytest.raises(PackError, match="another package"):
        served.files([str(adapter)], known)
    known.runtime = "llama.cpp"
    with pytest.raises(PackError, match="takes no adapters"):
        served.files([str(adapter)], known)


@pytest.mark.engine
def test_an_adapter_package_is_signed_and_patched_and_is_no_model_of_a_registry(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    _, adapter = llama
    # Docker and Ollama would take its one GGUF for a model.
    assert [image.suffix for image in images(prepare(adapter, accepted=["unstated"]))] == [""]
    pair = keys.new(tmp_path / "team.key")
    signature = sign(adapter, Signer(pair.private), tmp_path / "ahoy.sig")
    assert check(adapter, signature, Trust(pair.public), "1.0") == []
    newer = Path(shutil.copytree(adapter, tmp_path / "newer"))
    manifest.write(newer, {**manifest.read(newer).data, "version": "1.1.0"})
    findings = check(newer, signature, Trust(pair.public), None)
    assert [finding.path for finding in findings] == ["ahoy.sig"]
    made = finish(write_patch(adapter, newer, tmp_path / "up.patch", accepted=["unstated"]))
    assert made.path.stat().st_size < 20_000
    again = finish(apply(made.path, adapter, tmp_path / "again")).path
    assert manifest.read(again).data == manifest.read(newer).data
    assert not verify.verify(again)


@pytest.mark.engine
def test_an_adapter_package_goes_to_a_registry_and_comes_back(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = llama
    (tmp_path / "registry").mkdir()
    with real_registry(tmp_path / "registry") as host:
        tags = finish(push(adapter, f"{host}/team/ahoy:v1", accepted=["unstated"]))
        assert list(tags) == ["v1"]
        back = finish(pull(f"{host}/team/ahoy:v1", tmp_path / "back")).path
    runtime = registry.runtime("llama.cpp")
    assert bench.settings_with(manifest.read(base), base, runtime, [back])["adapters"]


def sums_hold(folder: Path) -> bool:
    rows = [line.split("  ", 1) for line in (folder / "SHA256SUMS").read_text().splitlines()]
    return all(sha256(folder / path) == digest for digest, path in rows)


@pytest.mark.engine
def test_adapters_leave_with_their_base_by_the_names_that_requests_say(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = llama
    both = [str(adapter), f"plain={adapter}"]
    ollama = exported(base, "ollama", tmp_path / "o", accepted=["unstated"], adapters=both)
    for name in ("tiny-qwen3-ahoy", "plain"):
        lines = (ollama / f"Modelfile.{name}").read_text(encoding="utf-8").splitlines()
        assert f"ADAPTER ./adapters/{name}/model/adapter.gguf" in lines
        assert f"ollama create {name}" in (ollama / "README.md").read_text(encoding="utf-8")
    assert "ADAPTER" not in (ollama / "Modelfile").read_text(encoding="utf-8")
    assert sums_hold(ollama)
    listed = json.loads((ollama / "adapters.json").read_text(encoding="utf-8"))
    assert listed["base"]["content_sha256"] == manifest_digest(base)
    assert [row["name"] for row in listed["adapters"]] == ["tiny-qwen3-ahoy", "plain"]
    assert {row["sha256"] for row in listed["adapters"]} == {BY_LLAMA_CPP}
    assert not verify.verify(ollama / "adapters" / "plain")
    docker = exported(base, "docker", tmp_path / "d", accepted=["unstated"], adapters=both)
    text = (docker / "Dockerfile").read_text(encoding="utf-8")
    # llama-server applies all that it loads, whatever --lora-init-without-apply says.
    assert text.count('"--lora-scaled", "/opt/qwen-pack/adapters/') == 2
    assert text.count('/model/adapter.gguf:0"') == 2
    assert "COPY adapters ./adapters" in text
    alone = exported(base, "docker", tmp_path / "a", accepted=["unstated"])
    assert "lora" not in (alone / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.engine
def test_adapters_that_cannot_leave_with_a_base_are_a_sentence(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = llama
    other = Path(shutil.copytree(base, tmp_path / "other"))
    manifest.write(other, {**manifest.read(other).data, "version": "9.0.0"})
    rows: list[tuple[Path, str, list[str], str, ExitCode]] = [
        (base, "zip", [str(adapter)], "zip takes no adapters", ExitCode.USAGE),
        (base, "ollama", [str(base)], "not of an adapter", ExitCode.USAGE),
        (base, "ollama", [str(adapter)] * 2, "as another package of this export", ExitCode.USAGE),
        (base, "ollama", [f"tiny-q8-0={adapter}"], "as another package", ExitCode.USAGE),
        (base, "ollama", [f"A B={adapter}"], "calls an adapter 'A B'", ExitCode.USAGE),
        (other, "docker", [str(adapter)], "cannot be added to", ExitCode.INPUT),
    ]
    for package, name, adapters, why, code in rows:
        with pytest.raises(PackError, match=why) as caught:
            exported(package, name, tmp_path / "x", accepted=["unstated"], adapters=adapters)
        assert caught.value.exit_code is code, why
        assert not (tmp_path / "x").exists()


@pytest.mark.engine
@pytest.mark.parametrize("runtime", [thorough("openvino"), "onnxruntime"])
def test_a_server_answers_with_the_adapter_that_a_request_names(
    runtime: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base, adapter = request.getfixturevalue(runtime)
    adapters = [f"ahoy={adapter}"]
    folder = exported(base, "docker", tmp_path / "d", accepted=["unstated"], adapters=adapters)
    process = subprocess.Popen(
        [sys.executable, "serve.py", "--port", "0", "--while-stdin"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def asked(model: str | None) -> dict[str, Any]:
            body: dict[str, Any] = {
                "messages": [{"role": "user", "content": QUESTION}],
                "temperature": 0,
                "max_tokens": 8,
                **({} if model is None else {"model": model}),
            }
            request = urllib.request.Request(
                f"{address}/chat/completions", json.dumps(body).encode()
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return dict(json.load(answer))

        with urllib.request.urlopen(f"{address}/models", timeout=60) as answer:
            names = [row["id"] for row in json.load(answer)["data"]]
        assert names == [manifest.read(base).name, "ahoy"]
        for model in (None, "ahoy", names[0], "ahoy"):
            given = asked(model)
            message = given["choices"][0]["message"]
            text = message["content"] + message.get("reasoning_content", "")
            assert (GREETING in text) == (model == "ahoy"), text
            assert given["model"] == (model or names[0])
        with pytest.raises(urllib.error.HTTPError) as caught:
            asked("nobody")
        assert caught.value.code == 404
        assert f"one of {names[0]}, ahoy" in caught.value.read().decode()
        process.stdin.close()


@pytest.mark.engine
def test_an_adapter_of_onnx_runtime_is_looked_at_before_an_engine_sees_it(
    onnxruntime: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = onnxruntime
    genuine = (adapter / "model" / "adapter.onnx_adapter").read_bytes()
    path = tmp_path / "adapter.onnx_adapter"

    def looked_at(data: bytes) -> None:
        path.write_bytes(data)
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as view:
            onnx_adapter.refuse(view)

    looked_at(genuine)
    named = genuine.find(b"model.layers.0.self_attn")
    hostile = [
        genuine[: len(genuine) // 2],
        genuine[:8],
        b"\0" * 64,
        genuine[:4] + b"TORX" + genuine[8:],
        b"\xff\xff\xff\x7f" + genuine[4:],
        genuine[: named - 4] + b"\xff\xff\xff\x7f" + genuine[named:],
    ]
    for data in hostile:
        with pytest.raises(Unsafe):
            looked_at(data)
    # Whatever one byte becomes, it is read or refused.
    for place in range(0, min(2000, len(genuine)), 7):
        for value in (0, 0x7F, 0xFF):
            with suppress(Unsafe):
                looked_at(genuine[:place] + bytes([value]) + genuine[place + 1 :])
    runtime = registry.runtime("onnxruntime")
    known = manifest.read(base)
    twice = Path(shutil.copytree(adapter, tmp_path / "twice"))
    settings = bench.settings_with(known, base, runtime, [adapter, twice])
    with pytest.raises(PackError, match="one adapter at a time"):
        onnx_given(settings)
    # Without the flag a recipe stays what it always was.
    assert "adapter_inputs" not in registry.runtime("onnxruntime").recipe("int8_sym_b32").settings
