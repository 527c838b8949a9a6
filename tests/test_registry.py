"""Registry: names without imports, one, all; runtimes by entry points, targets by files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from packager.contract.__main__ import main as contract
from packager.errors import ExitCode, PackError
from packager.runtime import Runtime
from targets import registry


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path where a test can lay down another distribution, as an installer
    would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(registry.PLUG_INS)
    registry._entry_points.cache_clear()
    registry.runtime.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    registry._entry_points.cache_clear()
    registry.runtime.cache_clear()


def install(folder: Path, name: str, value: str) -> None:
    information = folder / "third_party-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {value}\n")


def test_a_runtime_of_another_distribution_is_found_by_its_entry_point(plug_in: Path) -> None:
    install(plug_in, "someone", "third_party_runtime:Adapter")
    assert "someone" in registry.runtime_names()


def test_what_others_left_broken_keeps_no_runtime_from_being_found(plug_in: Path) -> None:
    for name, metadata, brings in (
        ("unread", b"Name: unread\n", b"[console_scripts]\na = \xff:b\n"),
        ("nameless", b"", f"[{registry.GROUP}]\nnameless = third:Adapter\n".encode()),
        ("unlisted", b"Name: unlisted\n", b"[console_scripts]\na line without a value\n"),
    ):
        information = plug_in / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_bytes(metadata)
        (information / "entry_points.txt").write_bytes(brings)
    assert registry.runtime_names() == (*registry.BUILT_IN[:1], "nameless", *registry.BUILT_IN[1:])


def test_a_plug_in_whose_list_is_broken_is_named_and_can_be_left_out(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plug_in, "someone", "third:Adapter\na line without a value")
    with pytest.raises(PackError, match="What third-party brings cannot be read") as failure:
        registry.runtime_names()
    assert failure.value.exit_code == ExitCode.USAGE
    monkeypatch.setenv(registry.PLUG_INS, "0")
    assert registry.runtime_names() == registry.BUILT_IN


def test_of_a_distribution_that_is_there_twice_the_first_counts(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plug_in, "someone", "third:Adapter")
    newer = plug_in / "newer" / "Third_Party-2.0.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: Third.Party\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(newer.parent)
    assert "someone" not in registry.runtime_names()


def test_plug_ins_of_others_are_left_out_where_the_variable_asks_for_it(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plug_in, "llama.cpp", "third_party_runtime:Adapter")
    monkeypatch.setenv(registry.PLUG_INS, "0")
    assert {point.value for point in registry._entry_points().values()} == {
        "targets.llama_cpp:LlamaCpp",
        "targets.onnxruntime:OnnxRuntime",
        "targets.openvino:OpenVino",
    }


def test_names_come_without_importing_the_plug_in(plug_in: Path) -> None:
    install(plug_in, "someone", "third_party_runtime:Adapter")
    (plug_in / "third_party_runtime.py").write_text("raise RuntimeError('imported')\n")
    assert "someone" in registry.runtime_names()


def test_a_plug_in_that_does_not_import_is_named_with_the_reason_and_its_distribution(
    plug_in: Path,
) -> None:
    install(plug_in, "someone", "third_party_runtime:Adapter")
    (plug_in / "third_party_runtime.py").write_text("import a_module_that_is_nowhere\n")
    with pytest.raises(PackError) as failure:
        registry.runtime("someone")
    assert "'someone'" in failure.value.message
    assert "a_module_that_is_nowhere" in failure.value.message
    assert "third-party" in failure.value.hint
    assert failure.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("module", "text", "reason"),
    [
        ("third_party_attributeless", "", "AttributeError: .*Adapter"),
        ("third_party_unfinished", "text = (", "SyntaxError: .*line 1"),
        ("third_party_raising", "raise ValueError('a table is missing')", "a table is missing"),
        ("third_party_arguments", "class Adapter:\n  def __init__(self, x): 0", "TypeError: .*'x'"),
    ],
)
def test_a_plug_in_that_does_not_load_is_refused_whatever_it_raises(
    plug_in: Path, module: str, text: str, reason: str
) -> None:
    install(plug_in, "someone", f"{module}:Adapter")
    (plug_in / f"{module}.py").write_text(text)
    with pytest.raises(PackError, match=f"does not load: .*{reason}") as failure:
        registry.runtime("someone")
    assert failure.value.exit_code == ExitCode.USAGE


def test_a_plug_in_that_breaks_the_contract_is_refused(plug_in: Path) -> None:
    install(plug_in, "someone", "third_party_contractless:Adapter")
    (plug_in / "third_party_contractless.py").write_text("class Adapter:\n    name = 'someone'\n")
    with pytest.raises(PackError, match=r"does not follow the contract .* lacks .*build_job, "):
        registry.runtime("someone")


def test_the_contract_is_checked_of_the_plug_in_that_every_command_takes(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two distributions bring the same name: one search says which of them counts."""
    for distribution, module in (("behind", "first"), ("before", "last")):
        folder = plug_in / distribution
        information = folder / f"{distribution}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
        (information / "entry_points.txt").write_text(
            f"[{registry.GROUP}]\nsomeone = third_party_{module}:Adapter\n"
        )
        (folder / f"third_party_{module}.py").write_text(f"raise ValueError('the {module} one')")
        monkeypatch.syspath_prepend(folder)
    with pytest.raises(PackError, match="the last one"):
        registry.runtime("someone")
    done = CliRunner().invoke(contract, ["someone"])
    assert done.exit_code == ExitCode.USAGE and "the last one" in done.output


def test_the_contract_says_whose_list_of_plug_ins_is_broken(plug_in: Path) -> None:
    install(plug_in, "someone", "third:Adapter\na line without a value")
    done = CliRunner().invoke(contract, ["someone"])
    assert done.exit_code == ExitCode.USAGE, done.output
    assert "What third-party brings cannot be read" in done.output


def test_every_installed_runtime_loads_and_calls_itself_what_the_registry_calls_it() -> None:
    adapters = registry.runtimes()
    assert [adapter.name for adapter in adapters] == list(registry.runtime_names())
    assert all(isinstance(adapter, Runtime) for adapter in adapters)


def test_a_misspelt_runtime_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(PackError, match="Did you mean 'openvino'") as failure:
        registry.runtime("openvno")
    assert failure.value.exit_code == ExitCode.USAGE


def test_a_misspelt_target_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(PackError, match="Did you mean 'laptop-cpu'") as failure:
        registry.target("laptop-cp")
    assert failure.value.exit_code == ExitCode.USAGE


def test_a_path_that_ends_in_toml_works_where_a_name_does(tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text((registry.DEVICES / "laptop-cpu.toml").read_text())
    assert registry.target(str(copy)).device == registry.target("laptop-cpu").device


def test_a_path_that_leads_nowhere_is_named() -> None:
    with pytest.raises(PackError, match=r"no device file 'nowhere/mine.toml'"):
        registry.target("nowhere/mine.toml")


def test_target_names_read_no_file_and_all_targets_come_in_their_order() -> None:
    assert tuple(target.name for target in registry.targets()) == registry.target_names()


def test_asking_for_names_loads_no_adapter_and_no_engine() -> None:
    code = (
        "import sys; from targets import registry; registry.runtime_names(); "
        "registry.target_names(); "
        "print([name for name in sys.modules if name.startswith(('targets.openvino', "
        "'targets.llama', 'targets.onnx', 'numpy'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_target_answers_to_its_other_names_and_none_of_them_is_another_targets() -> None:
    assert registry.target("rtx-3060") == registry.target("rtx-3060-12gb")
    assert registry.target("jetson-agx-orin").name == "jetson-agx-orin-64gb"
    aliases = [alias for target in registry.targets() for alias in target.aliases]
    assert not {*aliases} & {*registry.target_names()} and len(aliases) == len({*aliases})


@pytest.mark.parametrize(
    "name",
    ["edge-gpu", "jetson-orin-nano", "jetson-agx-orin", "rtx-3060", "android-onnx", "windows-dml"],
)
def test_every_edge_target_names_recipes_that_exist_for_runtimes_in_order_of_preference(
    name: str,
) -> None:
    target = registry.target(name)
    by_prefix = {runtime.prefix: runtime for runtime in registry.runtimes()}
    served = []
    for recipe in target.recipes:
        prefix, weights = recipe.split(":")
        assert by_prefix[prefix].recipe(weights).id == recipe
        served.append(by_prefix[prefix].name)
    assert tuple(dict.fromkeys(served)) == target.runtimes
