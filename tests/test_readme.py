"""What the README and the pages for users tell people to type is typed here, in order, against a
real engine: random weights where they do, a small trained model as the fine-tune.

The ordinary run has a Qwen3-0.6B of few and narrow layers; QWEN_PACK_FIELD=all takes it in its true
shape, which is minutes of work (`make field`).
"""

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
from tests.support.building import program, words_of
from tests.support.hub_server import Hub, serve
from tests.support.oci_registry import real_registry
from tests.support.shown_output import blocks, differences, up_to_date
from tests.support.terminal import printed
from tests.support.tiers import thorough

DOCS = REPOSITORY / "docs"
TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (DOCS / "commands.md").read_text(encoding="utf-8")
FIRST_PACKAGE = (DOCS / "first-package.md").read_text(encoding="utf-8")
FINE_TUNE = (DOCS / "fine-tune-on-a-raspberry-pi.md").read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """The commands of a page that are qwen-pack's, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("qwen-pack ")]


TYPED = list(dict.fromkeys(commands(README) + commands(COMMANDS_PAGE) + commands(FIRST_PACKAGE)))
DUMMY = "qwen-pack build --target laptop-cpu --weights dummy"
PROVED_ELSEWHERE = {
    "qwen-pack adopt model.gguf --target laptop-cpu",
    "qwen-pack bench PACKAGE",
    "qwen-pack fit --target laptop-cpu --all",
    "qwen-pack fit --target laptop-cpu --prefer quality --steps",
    "qwen-pack fit --target laptop-cpu --recipe gguf:Q4_0 --tensor-type 'attn_v=Q8_0'",
    "qwen-pack fit --target laptop-cpu --with embed,rerank,chat",
    "qwen-pack fit --target rtx-3090-x2 --parallel 8 --price-per-hour 0.4",
    "qwen-pack probe",
}
"""Commands of which other tests of the fast tier show more, and which take seconds."""
NIGHTLY = f"""
[axes]
checkpoints = ["{TRAINED}"]
recipes = ["gguf:Q8_0"]
targets = ["laptop-cpu"]
contexts = [64]
"""
PROGRAM = (
    "packager.cli"
    if os.environ.get("QWEN_PACK_FIELD") == "all"
    else "tests.support.small_catalogue"
)
REFUSED = {
    "qwen-pack embed": "qwen-pack run",
    "qwen-pack rerank": "qwen-pack run",
    "--image": "takes no pictures",
    "--audio": "takes no sound",
    "--adapter ADAPTER": "ADAPTER",
    "--transcripts": "recordings.jsonl",
    "probe --on": "neither an address nor the name of a machine",
}
"""What the commands say for which the page's package is the wrong one."""
SHORT = "--context 256"
"""A short context spares minutes of measuring and nothing else."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def run(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {
        **os.environ,
        "QWEN_PACK_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "hub"),
        **environment,
    }
    return program(PROGRAM, shlex.split(line)[1:], variables, folder)


def first_line(line: str, folder: Path) -> str:
    """What a command prints first that goes on until it is ended."""
    words = [sys.executable, *words_of(PROGRAM), *shlex.split(line)[1:]]
    variables = {**os.environ, "QWEN_PACK_CACHE": str(folder / "cache")}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=variables, cwd=folder
    ) as process:
        assert process.stdout is not None
        try:
            return process.stdout.readline()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def built(folder: Path) -> str:
    """What the README's build from random weights prints into a terminal."""
    words = shlex.split(f"{DUMMY} {SHORT}")[1:]
    code, text = printed(
        [sys.executable, *words_of(PROGRAM), *words],
        folder,
        {**os.environ, "QWEN_PACK_CACHE": str(folder / "cache")},
    )
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def package(folder: Path, built: str) -> Path:
    """The package that it leaves."""
    name = re.search(r"^Package: .*?([^/\s]+)$", built, re.MULTILINE)
    assert name is not None, built
    return folder / name[1]


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


def test_the_pages_show_every_command_that_there_is() -> None:
    assert {line.split()[1] for line in commands(COMMANDS_PAGE)} == set(COMMANDS)


def test_the_readme_is_short_and_names_the_commands_that_set_everything_up() -> None:
    assert len(README.split()) < 900
    order = ("![", "pip install", "make demo", "make test", "qwen-pack fit", "qwen-pack build")
    assert [README.index(text) for text in order] == sorted(map(README.index, order))


def test_every_page_is_in_the_index_and_every_link_leads_somewhere() -> None:
    outside = (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md")
    pages = [*sorted(DOCS.rglob("*.md")), *outside]
    lost = []
    linked: set[Path] = set()
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            to = (page.parent / link).resolve()
            linked.add(to)
            if not to.exists():
                lost.append((page.name, link))
    assert lost == []
    unlinked = {page.name for page in pages if page.resolve() not in linked}
    assert unlinked <= {"README.md"}


def test_the_table_of_exit_codes_is_the_truth() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS_PAGE, re.MULTILINE)}
    assert table == {int(code) for code in ExitCode}


def test_every_environment_variable_of_ours_is_on_the_page() -> None:
    named = {
        name
        for folder in ("packager", "targets", "tui")
        for path in (REPOSITORY / folder).rglob("*.py")
        for name in re.findall(r"QWEN_PACK_[A-Z_]+", path.read_text(encoding="utf-8"))
    }
    assert named == set(re.findall(r"^\| `(QWEN_PACK_[A-Z_]+)`", COMMANDS_PAGE, re.MULTILINE))


def test_the_map_of_the_tree_names_what_is_there_and_leaves_no_folder_out() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"## Map of the tree\n\n```\n(.*?)```", page, re.DOTALL)
    assert tree
    parent = ""
    mapped: set[str] = set()
    for line in tree[1].splitlines():
        names = line[: line.index("  ", 2)].split() if "  " in line.strip() else line.split()
        if not line.startswith(" "):
            parent = names[0]
        for name in names:
            path = name if not line.startswith(" ") else parent + name
            assert list(REPOSITORY.glob(path.rstrip("/"))), path
            mapped.add(path.rstrip("/"))
    for part in ("packager", "targets"):
        there = {
            f"{part}/{folder.name}"
            for folder in (REPOSITORY / part).iterdir()
            if (folder / "__init__.py").exists()
        }
        assert there - mapped == set()


@pytest.mark.engine
def test_the_output_in_the_readme_is_what_its_commands_print(folder: Path, built: str) -> None:
    shown = dict(blocks(README))
    assert list(shown) == ["qwen-pack fit --target laptop-cpu", DUMMY]
    environment = {**os.environ, "QWEN_PACK_CACHE": str(folder / "no-probe")}
    words = [sys.executable, "-m", "packager.cli", "fit", "--target", "laptop-cpu"]
    code, answer = printed(words, folder, environment)
    assert code == 0
    assert differences(shown["qwen-pack fit --target laptop-cpu"], answer) == [], answer
    assert (
        up_to_date(shown["qwen-pack fit --target laptop-cpu"], answer)
        == (shown["qwen-pack fit --target laptop-cpu"])
    ), "`python benchmarks/readme_output.py` brings it up to date"
    assert differences(shown[DUMMY], built) == [], built


@pytest.mark.engine
@pytest.mark.thorough("test_a_command_of_the_pages_works")
def test_the_page_on_a_fine_tune_is_typed_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").symlink_to(TRAINED)
    (tmp_path / "domain.txt").write_text((REPOSITORY / "training" / "README.md").read_text())
    for line in commands(FINE_TUNE):
        if line.startswith("qwen-pack delta"):
            line = line.replace("newer", "fine-tune-domain")
        done = run(line, tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    made = json.loads((tmp_path / "updated" / manifest.NAME).read_text())
    assert made["recipe"]["id"] == "gguf:Q4_K_M"


@pytest.mark.engine
@pytest.mark.parametrize(
    "line", [thorough(line) if line in PROVED_ELSEWHERE else line for line in TYPED]
)
def test_a_command_of_the_pages_works(
    line: str,
    package: Path,
    checkpoint: Path,
    hub: Hub,
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    if line.startswith(("qwen-pack adopt", "qwen-pack attest")):
        # What is adopted is a file of the trained model.
        line = line.replace("./checkpoint", str(TRAINED))
        if not (folder / "model.gguf").exists():
            # Late: the pages are read without an engine, too.
            from targets.gguf.convert import convert

            convert(TRAINED, folder / "model.gguf", "Q8_0")
        if "--target" in line:
            line += f" {SHORT} --out adopted"
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
    if line.startswith("qwen-pack sweep"):
        (folder / "nightly.toml").write_text(NIGHTLY)
    if line.startswith("qwen-pack serve"):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1\n", first_line(f"{line} --port 0", folder))
        return
    done = run(line, folder, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
    if line == "qwen-pack tui":
        # Its own tests walk through it; here there is no terminal, and it says so.
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert "terminal" in done.stderr
        return
    refusal = next((words for part, words in REFUSED.items() if part in line), None)
    if refusal is not None:
        # The page's package gives text and has no adapter; tests of their own ask an embedder, a
        # reranker, a model that sees, one that listens, and a package with its adapter; others
        # reach a machine.
        there = ExitCode.INPUT if "ADAPTER" in line else ExitCode.USAGE
        assert (done.returncode, done.stdout) == (there, "")
        assert refusal in done.stderr
        return
    if line.startswith("qwen-pack route"):
        # That sweep's model was published nowhere, so nothing is routed to it; tests of its own
        # serve packages that are.
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert "no published score" in done.stderr
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
