"""What the pages for contributors tell people to do is done here: a runtime of one's own, a device,
a preset."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from packager.cli import main
from packager.contract import build_problems, problems
from packager.need.workload import workload_for
from packager.runtime import BuildNeeds
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.plain_runtime import PlainRuntime, fit, target
from tests.support.tiers import thorough

PAGE = (REPOSITORY / "docs" / "adding-a-runtime.md").read_text(encoding="utf-8")


def code(language: str) -> list[str]:
    """The blocks of that language on the page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's module with its entry point on the path, as `pip install` leaves them."""
    folder = tmp_path_factory.mktemp("plug-in")
    (folder / "numpy_runtime.py").write_text(code("python")[0], encoding="utf-8")
    entry = re.search(r"^\[project\.entry-points.*\n(.+)$", code("toml")[0], re.MULTILINE)
    assert entry is not None
    information = folder / "numpy_runtime-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy-runtime\nVersion: 1.0\n"
    )
    name, value = (part.strip().strip('"') for part in entry[1].split("="))
    (information / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {value}\n")
    return folder


def run(plug_in: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(plug_in), str(REPOSITORY))),
        "QWEN_PACK_CACHE": str(plug_in / "cache"),
    }
    del environment[registry.PLUG_INS]
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=plug_in,
        check=False,
    )


def command(plug_in: Path, line: str) -> subprocess.CompletedProcess[str]:
    line = line.split("#")[0].replace("tests/models", str(REPOSITORY / "tests/models"))
    program, *words = shlex.split(line)
    if program == "qwen-pack":
        return run(plug_in, "packager.cli", *words)
    assert (program, words[0]) == ("python", "-m")
    return run(plug_in, *words[1:])


@pytest.mark.engine
@pytest.mark.thorough(
    "test_the_contract_names_every_breach",
    "test_our_own_runtimes_build_and_answer_as_the_contract_asks",
)
def test_the_runtime_of_the_page_is_found_fits_and_builds_as_the_page_says(plug_in: Path) -> None:
    own = command(plug_in, "qwen-pack targets new mine --from laptop-cpu")
    assert own.returncode == 0, own.stderr
    device = plug_in / "mine.toml"
    text = re.sub(r"^recipes = .*\n", "", device.read_text(), flags=re.MULTILINE)
    served = re.search(r"^runtimes = .*$", code("toml")[1], re.MULTILINE)
    assert served is not None
    device.write_text(re.sub(r"^runtimes = .*$", served[0], text, flags=re.MULTILINE))
    lines = [line for block in code("sh") for line in block.splitlines()]
    outputs = {}
    for line in lines:
        done = command(plug_in, line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        outputs[line.split("#")[0].strip()] = done.stdout
    assert outputs["python -m packager.contract numpy"] == "numpy keeps the contract.\n"
    assert re.search(r"^numpy +ready: numpy", outputs["qwen-pack doctor"], re.MULTILINE)
    made = json.loads((plug_in / "made" / "manifest.json").read_text())
    assert made["recipe"]["id"] == "numpy:bf16"
    assert made["quality"]["skipped"] is None and made["quality"]["kl_mean"] < 1e-4
    told = re.search(
        r"^python (-c .*)$", (plug_in / "made" / "README.md").read_text(), re.MULTILINE
    )
    assert told is not None
    answer = subprocess.run(
        [sys.executable, *shlex.split(told[1])],
        capture_output=True,
        text=True,
        cwd=plug_in / "made",
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(plug_in), str(REPOSITORY)))},
        check=False,
    )
    assert answer.returncode == 0 and answer.stdout.strip(), answer.stderr


def test_the_device_of_the_page_is_copied_checked_and_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "adding-a-device.md").read_text(encoding="utf-8")
    lines = re.findall(r"^qwen-pack (.+)$", page, re.MULTILINE)
    assert [line.split()[:2] for line in lines] == [
        ["targets", "new"],
        ["targets", "check"],
        ["fit", "--target"],
    ]
    assert main(shlex.split(lines[0])) == 0
    device = tmp_path / "orange-pi-5.toml"
    device.write_text(device.read_text().replace('"Raspberry Pi 5"', '"Orange Pi 5"'))
    for line in lines[1:]:
        assert main(shlex.split(line)) == 0, capsys.readouterr()


def test_a_missing_plug_in_engine_is_installed_by_its_own_line() -> None:
    from packager.engines import install_line, missing_engine

    class Elsewhere(PlainRuntime):
        extra = ""
        distributions = ("a-distribution-nobody-made",)

    assert install_line(Elsewhere()) == "pip install a-distribution-nobody-made"
    told = Elsewhere()
    told.install = "conda install theirs"  # type: ignore[attr-defined]
    missing = missing_engine(told)
    assert missing is not None and missing.hint == "Install it with: conda install theirs"


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_our_own_runtimes_state_what_the_contract_asks_for(name: str) -> None:
    assert problems(registry.runtime(name)) == []


@pytest.mark.engine
@pytest.mark.parametrize(
    # What is loaded to build for ONNX Runtime is ten times the others.
    "name",
    [thorough(name) if name == "onnxruntime" else name for name in registry.BUILT_IN],
)
def test_our_own_runtimes_build_and_answer_as_the_contract_asks(name: str, tmp_path: Path) -> None:
    assert build_problems(registry.runtime(name), tmp_path) == []


def test_the_contract_names_every_breach() -> None:
    class Broken(PlainRuntime):
        build_job = "nowhere_at_all:build"
        session = "no colon"

    found = problems(Broken())
    assert "build_job names the module nowhere_at_all, which is not there." in found
    assert "session 'no colon' is not written module:name." in found

    class Shrinking(PlainRuntime):
        session = build_job = "tests.support.plain_runtime:no_job"

        def decode_bytes(self, shape: object, recipe: object, context: int) -> int:
            return 10**6 - context

        def build_needs(self, shape: object, recipe: object) -> BuildNeeds:
            raise ValueError("no table")

        def how_to_run(self, recipe: object, workload: object) -> str:
            return " "

    breaches = problems(Shrinking())
    assert any("decode_bytes does not grow" in breach for breach in breaches)
    assert any("raises ValueError: no table" in breach for breach in breaches)
    assert problems(object()) == [
        "object lacks artifact_bytes, build_job, build_needs, context_in_artifact, decode_bytes, "
        "distributions, extra, footprint, how_to_run, least_file_bytes, more_tools, name, "
        "obstacle, prefix, recipe, recipes, session, speed, tools."
    ]


class SeesByHalf(PlainRuntime):
    """As a plug-in of the time before a picture's limit and its units were asked for."""

    session = build_job = vision_session = "tests.support.plain_runtime:no_job"
    projector = "tower.bin"


def test_what_an_adapter_lacks_of_a_part_that_it_has_begun_is_named() -> None:
    lacking = (
        "The adapter of plain lacks image_limit_in_artifact, pictures_on, which Sees in "
        "packager.runtime asks for."
    )
    assert lacking in problems(SeesByHalf())

    class Whole(SeesByHalf):
        pictures_on = ("cpu",)
        image_limit_in_artifact = False

    # The name of a tower's file alone does not say what the tower is for.
    assert not any("lacks" in breach for breach in problems(Whole()))

    class Wrong(Whole):
        pictures_on = "cpu"
        audio_session = drafts = "nowhere_at_all:Session"

    breaches = problems(Wrong())
    assert "pictures_on is 'cpu', not a tuple of cpu, gpu, npu." in breaches
    assert "audio_session names the module nowhere_at_all, which is not there." in breaches
    assert any("lacks drafting, which Drafts" in breach for breach in breaches)


def test_a_user_is_told_what_the_adapter_lacks_and_not_that_it_builds_text_alone() -> None:
    workload = workload_for("vision")
    device = target(runtimes=("plain",))
    for runtime, why in (
        (SeesByHalf(), "lacks image_limit_in_artifact, pictures_on"),
        (PlainRuntime(), "builds the text decoder alone"),
    ):
        judged = fit(device, workload, "Qwen3-VL-2B-Instruct", runtimes=[runtime])
        assert judged
        for one in judged:
            assert any(why in reason.has for reason in one.reasons), one.reasons


@pytest.mark.engine
def test_a_session_that_answers_otherwise_than_its_checkpoint_is_found_out(
    plug_in: Path,
) -> None:
    module = plug_in / "wrong_runtime.py"
    text = (plug_in / "numpy_runtime.py").read_text().replace("numpy_runtime:", "wrong_runtime:")
    text = text.replace("rows = Reference", "rows = -Reference").replace(
        "if len(ids) > self._context:", "if not ids:"
    )
    module.write_text(text)
    done = run(plug_in, "packager.contract", "wrong_runtime:NumpyRuntime", "--build")
    assert done.returncode == 2
    assert "the logits correlate to -1.00" in done.stdout
    assert "takes more ids than the context holds" in done.stdout


def test_engines_that_are_imported_with_the_adapter_are_found_out(plug_in: Path) -> None:
    module = plug_in / "hasty_runtime.py"
    text = (plug_in / "numpy_runtime.py").read_text().replace("numpy_runtime:", "hasty_runtime:")
    module.write_text(
        text.replace("import shutil\n", "import shutil\n\nimport pytest\n").replace(
            '("numpy",)', '("pytest",)'
        )
    )
    done = run(plug_in, "packager.contract", "hasty_runtime:NumpyRuntime")
    assert done.returncode == 2
    assert "importing hasty_runtime imports pytest" in done.stdout


def test_the_tables_hold_every_preset_for_every_shape() -> None:
    from targets.gguf import layers, sizes
    from targets.gguf.presets import PRESETS

    kept = json.loads(sizes.TABLE.read_text(encoding="utf-8"))
    assert kept["presets"] == sizes.COLUMNS, "`make tables` asks llama.cpp for the new ones"
    rows = json.loads(layers.TABLE.read_text(encoding="utf-8"))["shapes"]
    # Heads draft beside the layers: only their size is a table's.
    with_heads = {name for name in kept["shapes"] if name.endswith(" heads 1")}
    assert rows.keys() == kept["shapes"].keys() - with_heads and with_heads
    assert {name.removesuffix(" heads 1") for name in with_heads} <= rows.keys()
    assert [name for name, row in rows.items() if row.keys() != PRESETS.keys()] == []


def test_the_picture_of_the_architecture_is_drawn_from_the_import_rules() -> None:
    program = REPOSITORY / "docs" / "pictures" / "architecture.py"
    drawing = runpy.run_path(str(program))
    told = f"python {program.relative_to(REPOSITORY)} draws it again"
    assert drawing["FILE"].read_text(encoding="utf-8") == drawing["drawn"](), told
    named = {name for floor in drawing["floors"]() for name in floor}
    assert set(drawing["WAY"]) <= named


def test_every_make_target_of_the_pages_is_there() -> None:
    targets_of_make = set(
        re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    )
    pages = [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
    named = {
        name
        for page in pages
        for name in re.findall(
            r"(?:^|`)make ([a-z-]+)(?:`|\s+#|$)", page.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert {"lint", "quick", "tables", "demo", "test", "test-thorough"} <= named <= targets_of_make
