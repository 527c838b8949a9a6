"""`qwen-pack build` for the second time: what is there already is taken from the cache, what was
damaged is made again, and what ends it half-way leaves nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.support.building import FLAGS, command, environment, tiny_openvino
from tests.support.calm import calm
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(once: Any) -> Path:
    return Path(once("tiny-openvino", tiny_openvino) / "tiny")


@pytest.fixture(scope="module")
def built(once: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the package that was built once, and of the cache it left: both may change."""
    folder = once("tiny-openvino", tiny_openvino)
    own = tmp_path_factory.mktemp("built")
    shutil.copytree(folder / "package", own / "package")
    shutil.copytree(folder / "cache", own / "cache")
    words = ["build", *FLAGS, "--weights", str(folder / "tiny"), "--out", str(own / "package")]
    # Whose files are others, and are compared once.
    assert command(*words, cache=own / "cache").returncode == 0
    return own / "package", own / "cache"


@pytest.fixture
def package(built: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built[0], tmp_path / "package"))


def test_the_same_build_again_is_cached_in_every_stage(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    before = (package / "manifest.json").read_bytes()
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0
    assert run.stderr.count("cached") == 5
    assert (package / "manifest.json").read_bytes() == before


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


@pytest.mark.parametrize("number", [signal.SIGINT, thorough(signal.SIGTERM)])
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
