"""Conversions for OpenVINO that do not come to their end: a checkpoint that the exporter cannot take,
a cancelled one, a full disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.process import Note, run_job
from targets.openvino import OpenVino
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import write_tiny
from tests.support.openvino_engine import QWEN2, QWEN3, build

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("openvino")
    write_tiny(home / "qwen2", shape=QWEN2)
    write_tiny(home / "qwen3", shape=QWEN3)
    return home


def test_a_checkpoint_the_exporter_cannot_take_ends_in_one_sentence_and_leaves_nothing(
    home: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(home / "qwen3", tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "llamalike"}))
    with pytest.raises(PackError) as refused:
        build(broken, "int8_asym", tmp_path / "place" / "out", home / "log")
    assert refused.value.exit_code is ExitCode.INPUT
    assert "model_type 'llamalike'" in refused.value.message and "\n" not in refused.value.message
    assert list((tmp_path / "place").iterdir()) == []


def test_a_cancelled_conversion_leaves_nothing(home: Path, tmp_path: Path) -> None:
    recipe = asdict(OpenVino().recipe("int4_sym_g128"))
    arguments = {
        "checkpoint": str(home / "qwen3"),
        "recipe": recipe,
        "workload": {},
        "out": str(tmp_path / "place" / "out"),
    }
    work = run_job(OpenVino.build_job, arguments, home / "log")
    for message in work:
        if message == Note("compressing the weights"):
            break
    assert list((tmp_path / "place").iterdir()) != []
    work.close()
    # Neither what was begun nor, as it would be if the conversion had gone on to its end, the whole.
    assert list((tmp_path / "place").iterdir()) == []


def test_a_full_disk_is_called_a_full_disk(home: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size=3m tmpfs {small} && exec "$@"',
        "sh",
    ]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs a user namespace that may mount a small disk")
    script = (
        "from dataclasses import asdict; from packager.errors import PackError; from "
        "tests.support.make_checkpoint import Silent\n"
        "from targets.openvino import OpenVino; from targets.openvino.convert import convert\n"
        "try:\n"
        "    recipe = asdict(OpenVino().recipe('bf16'))\n"
        f"    convert(Silent(), checkpoint={str(home / 'qwen2')!r}, recipe=recipe, workload={{}}, "
        f"out={str(small / 'out')!r})\n"
        "except PackError as error:\n"
        "    print(int(error.exit_code), error.message)\n"
    )
    run = subprocess.run(
        [*mount, sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (
        run.stdout.splitlines()[-1]
        == f"{int(ExitCode.RESOURCE)} The disk that holds {small} is full."
    ), run.stderr
