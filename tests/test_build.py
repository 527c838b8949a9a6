"""`qwen-pack build` from end to end: a real engine on tiny checkpoints of the true architecture."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.conftest import REPOSITORY
from tests.support.building import FLAGS, command, environment
from tests.support.calm import calm
from tests.support.make_checkpoint import write_tiny

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package that was built once, and the cache it left."""
    folder = tmp_path_factory.mktemp("built")
    run = command(
        "build",
        *FLAGS,
        "--weights",
        str(checkpoint),
        "--out",
        str(folder / "package"),
        cache=folder / "cache",
    )
    assert run.returncode == 0, run.stderr
    calm(folder / "cache")
    return folder / "package", folder / "cache"


@pytest.fixture
def package(built: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built[0], tmp_path / "package"))


def test_no_sentence_of_the_papers_is_drawn_into_the_list_above_it(
    built: tuple[Path, Path],
) -> None:
    """Markdown takes a line that follows a row of a list for more of that row."""
    for name in ("README.md", "MODEL_CARD.md"):
        lines = (built[0] / name).read_text(encoding="utf-8").splitlines()
        lists = [pair for pair in pairwise(lines) if pair[0].startswith("* ")]
        assert lists or name != "README.md"
        assert [below for _, below in lists if below and not below.startswith(("* ", "  "))] == []


def test_a_package_holds_the_model_its_papers_and_a_whole_manifest(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package = built[0]
    manifest = json.loads((package / "manifest.json").read_text())
    assert verify(package) == []
    assert manifest["schema"] == "qwen-pack/manifest/1"
    assert manifest["target"] == "laptop-cpu"
    assert manifest["variant"]["repo_id"] == "local/tiny"
    assert manifest["source"]["kind"] == "local"
    assert {row["path"] for row in manifest["source"]["files"]} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert manifest["recipe"]["id"] == "openvino:int8_asym"
    assert manifest["runtime"]["name"] == "openvino"
    assert manifest["tools"]["openvino"] == manifest["runtime"]["version"]
    paths = {row["path"] for row in manifest["files"]}
    assert {
        "model/openvino_model.xml",
        "model/openvino_model.bin",
        "model/openvino_tokenizer.xml",
    } <= paths
    assert {"README.md", "LICENSE", "NOTICE", "chat_template.jinja"} <= paths
    assert {
        "MODEL_CARD.md",
        "sbom.cdx.json",
        "provenance.intoto.json",
        "benchmark.intoto.json",
    } <= paths
    assert len(manifest["chat_template_sha256"]) == 64
    assert "hardly better than chance" in manifest["quality"]["skipped"], "the weights are random"
    assert manifest["quality"]["parity"]["findings"] == [] and manifest["quality"]["passed"] is True
    for key in (
        "load_s",
        "ttft_ms",
        "prefill_tps",
        "decode_tps",
        "token_ms_median",
        "token_ms_p95",
        "peak_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    for key in (
        "ttft_ms_p99",
        "token_ms_p99",
        "prefill_128_tps",
        "decode_empty_tps",
        "decode_full_tps",
        "steady_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    assert manifest["measured"]["repeats"] == 5
    assert manifest["measured"]["full_context_tokens"] == 256 - 48
    search = manifest["measured"]["thread_search"]
    assert (
        manifest["measured"]["threads"]
        == search["threads"]
        in [row["threads"] for row in search["candidates"]]
    )
    for key, error in manifest["errors_percent"].items():
        assert error is not None, key
    assert manifest["measured"]["deterministic"] is True
    assert manifest["predicted"]["footprint"]["total"] > 0
    assert all(
        {"rule", "limit", "measured", "passed", "enforced"} <= row.keys()
        for row in manifest["verdicts"]
    )


def test_nothing_in_a_package_names_a_folder_of_the_machine_that_built_it(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    for path in package.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for folder in (str(cache), str(checkpoint.parent), str(package)):
                assert folder.encode() not in data, f"{path.name} names {folder}"


def test_the_same_build_again_is_cached_in_every_stage(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    before = (package / "manifest.json").read_bytes()
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0
    assert run.stderr.count("cached") == 5
    assert (package / "manifest.json").read_bytes() == before


def test_a_build_elsewhere_with_another_mask_zone_language_and_on_one_core_gives_the_same_digests(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "over there" / "tiny")
    core = sorted(os.sched_getaffinity(0))[:1]
    start = (
        f"import os, sys; os.umask(0o077); os.sched_setaffinity(0, {core}); from packager.cli "
        "import main; sys.exit(main())"
    )
    names = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "77"}
    surroundings = {
        key: value
        for key, value in environment(tmp_path / "cache").items()
        if key != "SOURCE_DATE_EPOCH"
    }
    line = [
        sys.executable,
        "-c",
        start,
        "build",
        *FLAGS,
        "--weights",
        str(source),
        "--out",
        str(tmp_path / "other"),
    ]
    run = subprocess.run(
        line, capture_output=True, text=True, env={**surroundings, **names}, check=False
    )
    assert run.returncode == 0, run.stderr
    one, other = (
        json.loads((place / "manifest.json").read_text())
        for place in (built[0], tmp_path / "other")
    )
    model = [
        [row for row in data["files"] if row["path"].startswith("model/")] for data in (one, other)
    ]
    assert len(model[0]) > 5 and model[0] == model[1]
    assert one["content_sha256"] == other["content_sha256"]


def test_a_rebuild_of_the_package_gives_its_files_again(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "another name")
    run = command(
        "verify", str(built[0]), "--rebuild", "--weights", str(source), cache=tmp_path / "cache"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "a rebuild gives the same" in run.stdout
    assert (
        not list((tmp_path / "cache").glob("work/*"))
        and not (tmp_path / "cache" / "stages").exists()
    )


def test_a_measurement_that_was_noisy_is_made_again_by_the_same_build_and_goes_into_the_package(
    built: tuple[Path, Path],
    package: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Path(shutil.copytree(built[1], tmp_path / "cache"))
    calm(cache, noisy=True)
    before = json.loads((package / "manifest.json").read_text())["measured"]["measured_at"]
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.stderr.count("cached") >= 3, "one attempt is all that the tests want"
    assert json.loads((package / "manifest.json").read_text())["measured"]["measured_at"] == before
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "2")
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("cached") == 3
    assert json.loads((package / "manifest.json").read_text())["measured"]["measured_at"] > before
    assert verify(package) == []


def test_json_is_one_object_on_stdout_and_narration_stays_on_stderr(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), "--json", cache=cache
    )
    answer = json.loads(run.stdout)
    assert answer["schema"] == "qwen-pack/build/1"
    assert answer["package"] == str(package)
    assert answer["manifest"] == json.loads((package / "manifest.json").read_text())


def test_a_damaged_package_is_built_again_from_the_cache(
    built: tuple[Path, Path], package: Path, checkpoint: Path
) -> None:
    (package / "model" / "openvino_model.bin").write_bytes(b"damaged")
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=built[1]
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("cached") == 4
    assert verify(package) == []


def test_a_damaged_artifact_in_the_cache_is_made_again_and_never_shipped(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(built[1], tmp_path / "cache"))
    (artifact,) = cache.glob("stages/convert-*/out/openvino_model.bin")
    before, data = artifact.stat(), bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 4
    artifact.write_bytes(data)
    os.utime(artifact, ns=(before.st_atime_ns, before.st_mtime_ns))
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p"), cache=cache
    )
    assert run.returncode == 0, run.stderr
    assert "openvino_model.bin is not what was written): it is made again." in run.stderr
    assert run.stderr.count("cached") == 3, (
        "fetch, measurement and comparison are of the true artifact"
    )
    one, other = (
        json.loads((place / "manifest.json").read_text()) for place in (built[0], tmp_path / "p")
    )
    assert one["content_sha256"] == other["content_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_package_is_written_is_an_interruption_and_leaves_a_whole_package_or_none(
    number: int, built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    line = [
        sys.executable,
        "-m",
        "packager.cli",
        "build",
        *FLAGS,
        "--weights",
        str(checkpoint),
        "--out",
        str(tmp_path / "p"),
    ]
    run = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(built[1]),
    )
    assert run.stderr is not None
    for text in run.stderr:
        if text.startswith("[5/5]"):
            run.send_signal(number)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.INTERRUPTED, rest
    assert "Interrupted" in rest
    assert list(tmp_path.iterdir()) == ([tmp_path / "p"] if (tmp_path / "p").exists() else [])
    assert not (tmp_path / "p").exists() or verify(tmp_path / "p") == []


def test_a_package_that_rotted_without_a_trace_is_written_again(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    path = package / "model" / "openvino_model.bin"
    before, data = path.stat(), bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0 and "The package that is there is damaged" in run.stderr, run.stderr
    assert run.stderr.count("cached") == 4
    assert verify(package) == []


def test_bench_and_run_refuse_a_damaged_package(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "LICENSE").write_text("changed")
    for arguments in (["bench", str(package)], ["run", str(package), "Hello"]):
        assert main(arguments) == ExitCode.INPUT
        assert "LICENSE" in capsys.readouterr().err


def progress_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("[")]


def test_a_piped_build_says_one_line_per_fact(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p"), cache=built[1]
    )
    assert progress_of(run.stderr) == [
        "[1/5] Get the weights",
        "[2/5] Convert and quantize",
        "[3/5] Smoke benchmark",
        "[4/5] Quality gate",
        "[5/5] Hash and package",
    ]
    assert [
        line
        for line in run.stderr.splitlines()
        if "cached" in line and re.search(r"\d [kM]B$", line)
    ] != []
    assert re.search(r"cached: on 20\d\d-\d\d-\d\d: .* tok/s", run.stderr)
    assert "\x1b" not in run.stderr + run.stdout
    values: dict[str, Any] = {line.split("\t")[0]: line for line in run.stdout.splitlines()}
    assert {"model files", "peak memory", "decode"} <= values.keys()


def test_the_documentation_names_every_field_of_the_manifest(built: tuple[Path, Path]) -> None:
    page, measurement = (
        (REPOSITORY / "docs" / "manifest.md")
        .read_text()
        .split("## Commands")[0]
        .split("## A measurement")
    )

    def named(text: str) -> set[str]:
        rows = (row.split("|")[1] for row in text.splitlines() if row.startswith("| `"))
        return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)(?:\[\])?`", row)}

    manifest = json.loads((built[0] / "manifest.json").read_text())
    # What `behave` adds later, and what other builds have.
    elsewhere = {"behaviour", "adapter", "warm", "speculation"}
    assert named(page) - elsewhere == manifest.keys()
    told = set(re.findall(r"`([a-z0-9_]+)(?:\[\])?`", measurement))
    assert manifest["measured"].keys() - {"seconds", "peak_bytes"} <= told


def test_a_disk_that_fills_up_on_the_way_leaves_no_package(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    """The conversion is in the cache; a limit on file size stands for a disk that others fill while
    the package is written."""
    script = (
        f"ulimit -f 20; exec {sys.executable} -m packager.cli build {' '.join(FLAGS)} "
        f"--weights {checkpoint} --out {tmp_path}/out/p"
    )
    run = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment(built[1]), check=False
    )
    assert run.returncode == ExitCode.RESOURCE, run.stderr
    assert "disk is full" in run.stderr
    assert list((tmp_path / "out").iterdir()) == []
