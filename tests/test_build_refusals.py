"""What `qwen-pack build` cannot make, and how it ends: one sentence, its exit code, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager.cli import main
from packager.errors import ExitCode
from tests.support.building import FLAGS, TINY, command, environment, tiny_openvino
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import write_package
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


def living_processes(cache: Path) -> list[int]:
    """Processes with this cache in their environment that stay alive: a build and everything it
    started. What was killed has a moment to die."""
    for _ in range(600):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get("QWEN_PACK_CACHE") == str(cache)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process.pid)
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--target", "laptop-gpu"], "Did you mean 'laptop-cpu'", ExitCode.USAGE),
        (
            ["--target", "laptop-cpu", "--model", "Qwen3-0.6"],
            "Did you mean 'Qwen3-0.6B'",
            ExitCode.USAGE,
        ),
        (["--target", "laptop-cpu", "--recipe", "openvino:int5"], "int5", ExitCode.USAGE),
        (["--target", "laptop-cpu", "--weights", "./nowhere"], "nowhere", ExitCode.USAGE),
        (
            ["--target", "laptop-cpu", "--max-memory-mb", "10"],
            "Nothing fits",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-file-size", "600k"],
            "--max-file-size 1M",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-memory-mb", "20"],
            "--max-memory-mb 6",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-memory-mb", "1", "--max-artifact-mb", "1"],
            "a limit of 1.00 MB",
            ExitCode.NOTHING_FITS,
        ),
        (["--target", "laptop-cpu", "--context", "-5"], "context", ExitCode.USAGE),
        (["--target", "laptop-cpu", "--model", "Qwen3-0.6B"], "--weights dummy", ExitCode.SOURCE),
    ],
)
def test_what_cannot_be_built_ends_in_one_sentence_and_its_exit_code(
    arguments: list[str],
    words: str,
    code: ExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert (
        main(
            ["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "locked" / "p")]
        )
        == ExitCode.USAGE
    )
    assert "is not writable" in capsys.readouterr().err


def test_an_output_below_a_file_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert (
        main(["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "file" / "p")])
        == ExitCode.USAGE
    )
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_full_disk_is_found_before_the_first_byte(checkpoint: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    build = (
        f"{sys.executable} -m packager.cli build {' '.join(FLAGS)} --weights {checkpoint} "
        f"--out {disk}/p"
    )
    script = f"mount -t tmpfs -o size=300k tmpfs {disk} && exec {build}"
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment(tmp_path / "cache"),
        check=False,
    )
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip("this system lets nobody make a small disk of his own")
    assert run.returncode == ExitCode.RESOURCE, run.stderr
    assert "of disk" in run.stderr


def test_a_budget_that_the_user_set_and_the_measurement_misses_fails_the_build(
    tmp_path: Path, once: Any
) -> None:
    """The device file promises what no machine reaches, so the plan passes and the measurement
    decides."""
    made = command("targets", "new", "dream", "--from", "laptop-cpu", cache=tmp_path, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "dream.toml").read_text()
    (tmp_path / "dream.toml").write_text(
        re.sub(
            r"^operation_seconds = [\d.e-]+.*$",
            "operation_seconds = 1e-9",
            re.sub(r"^(bandwidth|compute) = [\d.]+.*$", r"\1 = 9e13", text, flags=re.MULTILINE),
            flags=re.MULTILINE,
        )
    )
    flags = ["--target", str(tmp_path / "dream.toml"), *FLAGS[2:], "--min-decode-tps", "1e6"]
    made_once = once("tiny-openvino", tiny_openvino)
    # What does not depend on the device is there already.
    shutil.copytree(made_once / "cache", tmp_path / "cache")
    run = command(
        "build",
        *flags,
        "--weights",
        str(made_once / "tiny"),
        "--out",
        str(tmp_path / "p"),
        cache=tmp_path / "cache",
    )
    assert run.returncode == ExitCode.BUDGET, run.stderr
    assert "Missed: decode" in run.stderr
    verdicts = json.loads((tmp_path / "p" / "manifest.json").read_text())["verdicts"]
    assert [row["passed"] for row in verdicts if row["rule"] == "decode"] == [False]


@pytest.mark.parametrize(
    "stage", ["Get the weights", "Convert and quantize", thorough("Smoke benchmark")]
)
def test_ctrl_c_leaves_no_package_and_no_process_and_the_next_run_goes_on(
    stage: str, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p")]
    run = subprocess.Popen(
        [sys.executable, "-m", "packager.cli", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(tmp_path / "cache"),
    )
    assert run.stderr is not None
    seen: list[str] = []
    for line in run.stderr:
        seen.append(line)
        if stage in line:
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.INTERRUPTED, "".join(seen) + rest
    assert "Interrupted" in rest
    assert not (tmp_path / "p").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert list((tmp_path / "cache" / "work").iterdir()) == []
    assert living_processes(tmp_path / "cache") == []
    if stage == "Smoke benchmark":
        again = command(*arguments, cache=tmp_path / "cache")
        assert again.returncode == 0, again.stderr
        # A fast machine has done the benchmark before it is interrupted.
        assert again.stderr.count("cached") in (2, 3)


def test_what_qwen_pack_did_not_make_is_never_replaced(
    checkpoint: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holiday = tmp_path / "photos"
    holiday.mkdir()
    (holiday / "beach.jpg").write_text("sand")
    (package / "notes.txt").write_text("mine")
    for out in (holiday, package, holiday / "beach.jpg"):
        assert (
            main(["build", *FLAGS, "--weights", str(checkpoint), "--out", str(out)])
            == ExitCode.USAGE
        )
        assert "did not write" in capsys.readouterr().err or out.name == "beach.jpg"
    assert (holiday / "beach.jpg").read_text() == "sand"
    assert (package / "notes.txt").read_text() == "mine"
