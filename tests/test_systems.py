"""Other systems: the real commands in an interpreter that lacks what only Linux, or only POSIX,
has."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packager.shipping.export import export
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import write_package
from tests.support.shipping_packages import AGREED, finish

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform == "win32", reason="plays another system on this one"),
]


def play(system: str, *words: str) -> subprocess.CompletedProcess[str]:
    # The first: text whose encoding is not named is read in another one on Windows.
    command = [
        sys.executable,
        "-X",
        "warn_default_encoding",
        "-m",
        "tests.support.other_system",
        system,
        *words,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=240
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return Path(
        finish(
            export(write_package(tmp_path / "tiny"), "zip", tmp_path / "tiny.zip", **AGREED)
        ).path
    )


def test_the_base_install_answers_on_windows(archive: Path, tmp_path: Path) -> None:
    commands = [
        ("models", "--json"),
        ("targets", "--json"),
        ("fit", "--target", "laptop-cpu", "--json"),
        ("unpack", str(archive), "--out", str(tmp_path / "unpacked")),
        ("verify", str(tmp_path / "unpacked"), "--json"),
        ("shelf", str(tmp_path), "--json"),
        ("cache", "--clear"),
        ("doctor", "--json"),
    ]
    answers = {words[0]: play("windows", *words) for words in commands}
    assert {name: done.stderr for name, done in answers.items() if done.returncode} == {}
    assert json.loads(answers["fit"].stdout)["chosen"]
    assert json.loads(answers["verify"].stdout)["ok"] is True
    assert json.loads(answers["doctor"].stdout)["memory"]["total"] > 0


def test_damage_is_found_on_windows_and_no_link_is_followed(archive: Path, tmp_path: Path) -> None:
    package = tmp_path / "tiny"
    (package / "model" / "weights.bin").unlink(missing_ok=True)
    victim = next(path for path in sorted((package / "model").iterdir()) if path.is_file())
    victim.unlink()
    victim.symlink_to(archive)
    done = play("windows", "verify", str(package), "--json")
    assert done.returncode == 6, done.stderr
    assert "link" in {row["kind"] for row in json.loads(done.stdout)["findings"]}


def test_the_screens_open_on_windows() -> None:
    pytest.importorskip("textual")
    done = play("windows", "screens")
    assert (done.returncode, done.stdout.strip()) == (0, "DeviceScreen"), done.stderr


def test_what_needs_process_groups_says_so_in_a_sentence_on_windows(tmp_path: Path) -> None:
    done = play(
        "windows",
        "build",
        "--target",
        "laptop-cpu",
        "--weights",
        "dummy",
        "--out",
        str(tmp_path / "package"),
    )
    assert done.returncode in (2, 7), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "package").exists()


@pytest.mark.engine
def test_a_conversion_runs_without_an_affinity(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    checkpoint = write_tiny(tmp_path / "Tiny-0.1B")
    done = play("macos", "convert", str(checkpoint), str(tmp_path / "model.gguf"))
    assert done.returncode == 0, done.stderr
    from targets.gguf.convert import convert

    convert(checkpoint, tmp_path / "here.gguf", "Q4_K_M")
    assert (tmp_path / "model.gguf").read_bytes() == (tmp_path / "here.gguf").read_bytes()


@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64",
    reason="needs qemu-user on x86-64",
)
@pytest.mark.thorough("test_the_base_install_answers_on_windows")
def test_the_base_install_answers_on_a_processor_of_2008() -> None:
    for words in (("doctor", "--json"), ("fit", "--target", "laptop-cpu", "--json")):
        command = ["qemu-x86_64", "-cpu", "Nehalem", sys.executable, "-m", "packager.cli", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=240
        )
        assert (
            done.returncode == 0 and json.loads(done.stdout)["schema"] == f"qwen-pack/{words[0]}/1"
        ), done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has none")
def test_the_other_system_is_another_one() -> None:
    script = "import os, signal\nfrom tests.support.other_system import become\nbecome('windows')\n"
    script += (
        "assert not hasattr(os, 'fchmod') and not hasattr(signal, 'SIGKILL') and not "
        "hasattr(os, 'sched_getaffinity')\n"
    )
    script += "exec(compile('import fcntl', 'x', 'exec'), {'__name__': 'packager.x'})\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert "ModuleNotFoundError: No module named 'fcntl'" in done.stderr
