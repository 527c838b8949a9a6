"""What the README tells people to type is typed here, in order, against the true shape and a real
engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.cli import COMMANDS
from packager.errors import ExitCode
from packager.package import manifest
from tests.conftest import REPOSITORY
from tests.support.hub_server import Hub, serve
from tests.support.oci_registry import real_registry

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
TYPED = [line for line in LINES if line.startswith("qwen-pack ")]
DUMMY = "qwen-pack build --target laptop-cpu --weights dummy"
SHORT = "--context 512"
"""A short context spares minutes of measuring and nothing else."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def run(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "packager.cli", *shlex.split(line)[1:]]
    variables = {
        **os.environ,
        "QWEN_PACK_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "hub"),
        **environment,
    }
    return subprocess.run(
        words, capture_output=True, text=True, env=variables, cwd=folder, check=False
    )


@pytest.fixture(scope="module")
def package(folder: Path) -> Path:
    """The package that the README's build from random weights leaves."""
    done = run(f"{DUMMY} {SHORT} --json", folder)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["package"])


@pytest.fixture(scope="module")
def checkpoint(package: Path, folder: Path) -> Path:
    """The random weights of that build, as a folder of the user's own."""
    (kept,) = (folder / "cache" / "stages").glob("fetch-*/out")
    (folder / "checkpoint").symlink_to(kept)
    return kept


@pytest.fixture(scope="module")
def newer(package: Path, folder: Path) -> Path:
    """The next version of that package."""
    copy = Path(shutil.copytree(package, folder / "newer", copy_function=os.link))
    (copy / manifest.NAME).unlink()
    manifest.write(copy, {**json.loads((package / manifest.NAME).read_text()), "version": "2"})
    return copy


@pytest.fixture(scope="module")
def hub(package: Path, checkpoint: Path) -> Iterator[Hub]:
    """A hub that has the variant which the plan chooses."""
    repo_id = json.loads((package / "manifest.json").read_text())["variant"]["repo_id"]
    with serve(
        Hub(repo_id, {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())})
    ) as server:
        yield server


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


def test_the_readme_shows_every_command_that_there_is() -> None:
    assert {line.split()[1] for line in TYPED} | {"cache"} >= set(COMMANDS)


def test_its_first_screen_names_the_two_commands_that_set_everything_up() -> None:
    first = README.splitlines()[:14]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)


def test_the_table_of_exit_codes_is_the_truth() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert table == {int(code) for code in ExitCode}


def test_the_map_of_the_tree_names_only_what_is_there() -> None:
    tree = re.search(r"## Map of the tree\n\n```\n(.*?)```", README, re.DOTALL)
    assert tree
    parent = ""
    for line in tree[1].splitlines():
        names = line[: line.index("  ", 2)].split() if "  " in line.strip() else line.split()
        if not line.startswith(" "):
            parent = names[0]
        for name in names:
            path = name if not line.startswith(" ") else parent + name
            assert list(REPOSITORY.glob(path.rstrip("/"))), path


@pytest.mark.engine
@pytest.mark.parametrize("line", TYPED)
def test_a_command_of_the_readme_works(
    line: str,
    package: Path,
    checkpoint: Path,
    hub: Hub,
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    line = line.replace("PACKAGE", shlex.quote(str(package))).replace(
        "./checkpoint", str(checkpoint)
    )
    if "NEWER" in line:
        line = line.replace("NEWER", shlex.quote(str(request.getfixturevalue("newer"))))
    if line.startswith(("qwen-pack export", "qwen-pack push", "qwen-pack delta")):
        # The package of this test has random weights, which nobody ships by accident.
        line += " --allow-dummy"
    if "localhost:5000" in line:
        line = line.replace("localhost:5000", request.getfixturevalue("registry"))
    if line.startswith("qwen-pack build"):
        # The three builds differ in their source alone and would all be called the same but for the
        # dummy one.
        line += f" {SHORT} --out out-{len(line)}"
    done = run(line, folder, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
    if line == "qwen-pack tui":
        # Its own tests walk through it; here there is no terminal, and it says so.
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert "terminal" in done.stderr
        return
    if line.startswith("qwen-pack behave"):
        # Random weights say nothing worth checking; its own tests ask a model that was trained.
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert "random weights" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if line.startswith("qwen-pack build"):
        # The same bytes from wherever: what was converted once is not done again.
        assert done.stderr.count("cached") >= 1
