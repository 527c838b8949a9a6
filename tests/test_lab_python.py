"""`--agent python`: qwen-pack itself on a machine that has Python and an engine, in an environment of
its own, for packages that no agent runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager.cli import main
from packager.engine_check import store
from packager.errors import ExitCode, PackError
from packager.lab.link import Link
from packager.lab.python_there import install
from packager.lab.transport import parse
from packager.lab.wheel import own_wheel
from packager.package import manifest
from packager.python import python_environment
from tests.support.lab import finished, here, ssh_host
from tests.support.trained_package import write_trained
from tests.test_lab_bench import DEVICE

THERE = [sys.executable, "-P", "-m", "packager.cli.there"]


def test_our_own_code_is_a_wheel_that_is_the_same_twice(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written.append(own_wheel(tmp_path / name))
    assert written[0].read_bytes() == written[1].read_bytes()
    with zipfile.ZipFile(written[0]) as wheel:
        names = wheel.namelist()
        assert wheel.testzip() is None
    assert {"packager/cli/there.py", "targets/llama_cpp/agent/agent.cpp"} <= set(names)
    assert len([name for name in names if name.endswith(".dist-info/RECORD")]) == 1
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("/", ".."))]


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """A process there, such as a measurement of another desk."""
    with subprocess.Popen(["sleep", "600"], cwd=folder) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.engine
def test_an_openvino_package_is_measured_on_a_host_by_the_python_that_has_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino_genai")
    from tests.support.adapter_packages import base_for

    package = base_for("openvino", tmp_path / "p")
    told = manifest.read(package).data
    manifest.write(package, {**told, "device": DEVICE, "workload": {"context": 64, "prompt": 16}})
    before = (package / "manifest.json").read_bytes()
    device = tmp_path / "d" / "qwen-pack-device"
    unused, used, model = (device / (letter * 24) for letter in "abc")
    for environment in (unused, used):
        (environment / "venv" / "bin").mkdir(parents=True)
        (environment / "qwen_pack-0.0.1-py3-none-any.whl").touch()
    (model / "venv").mkdir(parents=True)  # a folder of that name, and no wheel of ours
    # How the engine works on this processor is known; finding it out is what tests of it do.
    known = {store.FOLDER: os.environ[store.FOLDER], "QWEN_PACK_ATTEMPTS": "1"}
    with ssh_host(tmp_path, known, kept_open=True) as host, working_in(used):
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        address = f"{host.address}{tmp_path}/d"
        words = ["bench", str(package), "--on", address, "--json"]
        assert main(words) == ExitCode.USAGE
        assert "--agent python" in capsys.readouterr().err
        assert (package / "manifest.json").read_bytes() == before
        # This machine's own Python plays the device's: its engines are used, and nothing is
        # downloaded.
        agent = f"python:{sys.executable}"
        assert main([*words, "--agent", agent]) == ExitCode.DONE
        now = json.loads(capsys.readouterr().out)["measured"]
        # What is set up is found again.
        (tmp_path / "w").mkdir()
        steps: list[Any] = []
        there = finished(install(parse(address), sys.executable, tmp_path / "w"), steps)
        assert len(steps) == 1, "the wheel was sent again"
        code = Path(there.folder) / "venv/lib"
        assert list(code.glob("python*/site-packages/packager/cli/there.py")), "not our own code"
        left = {path.name for path in device.iterdir()}
        assert {used.name, model.name, Path(there.folder).name} <= left
        assert unused.name not in left, "the environment of another version stays"
        assert main(["lab", "clean", address]) == ExitCode.DONE
        assert list(device.iterdir()) == []
    assert now["decode_tps"] > 0
    assert now["through"]["agent_for"] == "Python on the device"
    assert now["through"]["agent_sha256"] == there.sha256
    assert now["through"]["engine"].startswith("openvino, Python 3.")
    assert now["place"]["on_device"] is True
    (kept,) = manifest.read(package).contents.measurements
    assert kept.through is not None and kept.through.transport == "ssh"


def test_what_goes_wrong_there_keeps_its_sentence_and_its_exit_code(tmp_path: Path) -> None:
    broken = write_trained(tmp_path / "p")
    (broken / "model" / "model.gguf").write_bytes(b"other")
    link = Link(THERE)
    try:
        for package, code, words in (
            (tmp_path / "nowhere", ExitCode.INPUT, "On the device: "),
            (broken, ExitCode.INPUT, "is not what its manifest says"),
        ):
            asked = {"package": str(package), "claimed": False, "sustained_s": 0.0}
            with pytest.raises(PackError, match=words) as caught:
                link.ask(f"bench {json.dumps(asked)}")
            assert caught.value.exit_code in (code, ExitCode.USAGE)
        with pytest.raises(PackError, match="no such command"):
            link.ask("sing")
    finally:
        link.close()


@pytest.mark.engine
def test_it_leaves_with_all_that_it_started_when_its_input_ends_in_a_measurement(
    tmp_path: Path,
) -> None:
    pytest.importorskip("llama_cpp")
    package = write_trained(tmp_path / "p")
    child = subprocess.Popen(
        THERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=python_environment(),
    )
    assert child.stdin is not None and child.stdout is not None
    asked = {"package": str(package), "claimed": False, "sustained_s": 600.0}
    child.stdin.write(f"bench {json.dumps(asked)}\n".encode())
    child.stdin.flush()
    while not (started := psutil.Process(child.pid).children(recursive=True)):
        assert child.stdout.readline(), "it ended before anything was started"
    child.stdin.close()
    assert child.wait(60) == 0
    child.stdout.close()
    assert psutil.wait_procs(started, timeout=30)[1] == []


def test_a_device_without_a_python_that_serves_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    plain = tmp_path / "plain"
    plain.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo no ensurepip >&2; exit 1; }\n')
    for program in (old, plain):
        program.chmod(0o755)
    (tmp_path / "w").mkdir()
    for python, words in (
        ("no-python-of-this-name", "The device has no no-python-of-this-name"),
        (str(old), "is older than 3.11"),
        (str(plain), "makes no virtual environment: no ensurepip"),
    ):
        with pytest.raises(PackError, match=words) as caught:
            finished(install(here(tmp_path / "d"), python, tmp_path / "w"), [])
        assert caught.value.exit_code == ExitCode.USAGE
    package = write_trained(tmp_path / "p")
    words_of = ["bench", str(package), "--agent", "python", "--on"]
    for more, expected in (
        (["adb:none"], "A phone has no Python"),
        (["local:qemu-aarch64-static"], "Leave the words after local: out"),
        (["local:", "--quality", str(tmp_path)], "--quality works only with an agent"),
    ):
        assert main([*words_of, *more]) == ExitCode.USAGE
        assert expected in capsys.readouterr().err
