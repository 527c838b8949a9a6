"""Which versions of an engine read a package: data with sources, never above what is installed, and
compared with an app's own engine."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.package.floor import Floor, numbers, read, sentence, verdicts
from packager.recipe import Recipe
from packager.records.contents import Minimum, MinimumReason
from packager.shape import Shape
from targets.gguf.presets import KV_BITS, TENSOR_TYPES
from targets.llama_cpp import floor as llama_cpp
from targets.onnxruntime import floor as onnxruntime
from targets.openvino import floor as openvino
from targets.registry import runtimes
from tests.conftest import REPOSITORY
from tests.support.make_package import body, write_package
from tests.support.shipping_packages import FORMATS_FOR_APPS, exported, gguf_package

QWEN3 = Shape("qwen3", 256, 2, 4, 2, 64, 512, 1024, False, True, True, 2048)
MINIMUM = Minimum(
    engine="llama.cpp",
    version="b5092",
    reasons=(
        MinimumReason(what="architecture qwen3", version="b5092", source="somewhere"),
        MinimumReason(what="tensor Q4_K", version="b1405", source="somewhere"),
    ),
)


def pinned(distribution: str) -> str:
    """The version in constraints.txt."""
    found = re.search(
        rf"^{re.escape(distribution)}==(\S+)$",
        (REPOSITORY / "constraints.txt").read_text(),
        re.MULTILINE,
    )
    assert found, distribution
    return found[1]


@pytest.mark.parametrize(
    ("known", "distribution"),
    [
        (openvino.data(), "openvino"),
        (openvino.data(), "openvino-genai"),
        (openvino.data(), "openvino-tokenizers"),
        (onnxruntime.data(), "onnxruntime-genai"),
    ],
)
def test_no_floor_is_above_the_pinned_version(known: Floor, distribution: str) -> None:
    for kind, rows in known.rows.items():
        for name, row in rows.items():
            assert numbers(row.version) <= numbers(pinned(distribution)), (kind, name)


def test_no_build_of_llama_cpp_is_newer_than_the_pinned_binding_holds() -> None:
    known = llama_cpp.data()
    assert known.releases
    for kind, rows in known.rows.items():
        for name, row in rows.items():
            release = known.releases.first_with(numbers(row.version)[0])
            assert release, (kind, name)
            assert numbers(release) <= numbers(pinned("llama_cpp_python")), (kind, name)


def test_everything_that_is_written_as_gguf_has_a_floor() -> None:
    gguf = pytest.importorskip("gguf")
    from targets.gguf import arch, projector, tokenizer

    rows = llama_cpp.data().rows
    modules = [
        import_module(f"{arch.__name__}.{module.name}") for module in iter_modules(arch.__path__)
    ]
    written = {
        gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[converter.arch]]
        for module in modules
        for converter in vars(module).values()
        if isinstance(converter, type) and hasattr(converter, "arch")
    }
    assert len(written) >= 10
    assert written <= rows["architecture"].keys()
    assert set(tokenizer._PRE_TOKENIZERS.values()) <= rows["pre_tokenizer"].keys()
    assert {*TENSOR_TYPES, "F32"} <= rows["tensor"].keys()
    assert KV_BITS.keys() <= rows["cache"].keys()
    projectors = {*projector._PROJECTORS.values(), *projector._HEARING.values()}
    assert projectors <= rows["projector"].keys()
    assert {"embed", "rerank"} == rows["task"].keys()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "engine is missing"),
        ('engine = "e"\n[tensor.Q4]\nversion = "b1"', "tensor.Q4 does not have the keys"),
        ('engine = "e"\n[tensor.Q4]\nversion = "b1"\nsource = ""', "tensor.Q4.source is not"),
        ('engine = "e"\n[tensor.Q4]\nversion = "new"\nsource = "s"', "tensor.Q4.version is not"),
        ('engine = "e"\ntensor = 1', "tensor is not a table"),
        ('engine = "e"\n[releases]\nengine = "b"', "releases does not have the keys"),
        (
            'engine = "e"\n[releases]\nengine = "b"\nsource = "s"\nbuilds = {"2" = 9, "3" = 8}',
            "oldest version first",
        ),
        ("engine = ", "cannot be read"),
    ],
)
def test_data_that_is_wrong_is_refused_with_its_file_and_key(
    text: str, wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "floor.toml"
    path.write_text(text)
    with pytest.raises(PackError) as caught:
        read(path)
    assert wrong in caught.value.message
    assert str(path) in caught.value.message


def test_the_floor_is_the_newest_of_what_a_file_holds_and_names_the_binding_that_has_it() -> None:
    facts = {"architecture": "qwen3", "pre_tokenizer": "qwen2", "types": {"F32": 9, "Q4_K": 2}}
    own, binding = runtime("llama.cpp").minimum(Path(), QWEN3, recipe("gguf", "f16"), facts)
    assert (own.engine, own.version) == ("llama.cpp", "b5092")
    assert {row.what for row in own.reasons} >= {"architecture qwen3", "tensor Q4_K"}
    assert all(row.source for row in own.reasons)
    assert (binding.engine, binding.version) == ("llama-cpp-python", "0.3.9")
    facts |= {"architecture": "qwen2", "types": {"Q4_0": 1}}
    [cached, _] = runtime("llama.cpp").minimum(Path(), QWEN3, recipe("gguf", "q8_0"), facts)
    assert cached.version == "b3062"  # a quantized cache is newer than the architecture


def test_what_the_data_does_not_know_is_no_floor_but_an_error() -> None:
    facts = {"architecture": "qwen9", "pre_tokenizer": "qwen2", "types": {}}
    with pytest.raises(PackError, match=re.escape("architecture.qwen9")):
        runtime("llama.cpp").minimum(Path(), QWEN3, recipe("gguf", "f16"), facts)


def test_an_ir_takes_the_openvino_that_knows_its_operations_and_its_tokenizers(
    tmp_path: Path,
) -> None:
    (tmp_path / "openvino_model.xml").write_text(
        '<net version="11">\n<layer id="0" name="a" type="Parameter" version="opset1">\n'
        '<layer id="1" name="b" type="ScaledDotProductAttention" version="opset13">\n</net>'
    )
    (tmp_path / "openvino_tokenizer.xml").write_text(
        '<layer id="0" name="a" type="RegexSplit" version="extension">\n'
        '<layer id="1" name="b" type="Truncate" version="extension">\n'
    )
    rows = runtime("openvino").minimum(tmp_path, QWEN3, recipe("openvino", "u8"), {})
    assert {row.engine: row.version for row in rows} == {
        "openvino": "2023.2",
        "openvino-tokenizers": "2025.2",
        "openvino-genai": "2025.2",
    }
    assert runtime("onnxruntime").minimum(tmp_path, QWEN3, recipe("onnx", "f16"), {})[0].version


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_versions_compare_as_numbers_and_zeros_at_the_end_do_not_count(parts: list[int]) -> None:
    text = ".".join(map(str, parts))
    assert numbers(text) == numbers(f"v{text}") == numbers(f"b{text}")
    assert len(parts) == 5 or numbers(text) == numbers(f"{text}.0")
    assert numbers(f"{parts[0] + 1}") > numbers(text)


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ("llama.cpp=b5092", ExitCode.DONE, "reads it"),
        ("llama.cpp=6000", ExitCode.DONE, "reads it"),
        ("llama.cpp=b5091", ExitCode.RESOURCE, "architecture qwen3 takes b5092 or newer"),
        ("llama.cp=b5092", ExitCode.USAGE, "llama.cpp"),
        ("llama.cpp", ExitCode.USAGE, "ENGINE=VERSION"),
        ("llama.cpp=new", ExitCode.USAGE, "not a valid engine version"),
        ("=b1", ExitCode.USAGE, "ENGINE=VERSION"),
    ],
)
def test_verify_compares_the_engine_of_an_app(
    asked: str,
    code: ExitCode,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = with_minimum(tmp_path)
    assert main(["verify", str(package), "--engine-version", asked]) == code
    seen = capsys.readouterr()
    assert words in seen.out + seen.err


def test_the_verdict_is_in_the_json_and_damage_counts_for_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = with_minimum(tmp_path)
    command = ["verify", str(package), "--engine-version", "llama.cpp=b1500", "--json"]
    assert main(command) == ExitCode.RESOURCE
    [row] = json.loads(capsys.readouterr().out)["engines"]
    assert row == {
        "engine": "llama.cpp",
        "version": "b1500",
        "minimum": "b5092",
        "reads": False,
        "because": ["architecture qwen3"],
    }
    (package / "README.md").write_text("changed")
    assert main(command) == ExitCode.INPUT


def test_a_package_that_says_nothing_is_not_called_readable(tmp_path: Path) -> None:
    assert verdicts((), ()) == []
    with pytest.raises(PackError) as caught:
        verdicts((), ["llama.cpp=b5092"])
    assert caught.value.exit_code is ExitCode.USAGE
    assert sentence(()) == ""


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_every_export_for_apps_says_which_engines_read_it(name: str, tmp_path: Path) -> None:
    engine = {"name": "llama.cpp", "version": "1", "minimum": [MINIMUM.to_json()]}
    package = gguf_package(tmp_path / "tiny", runtime=engine)
    folder = exported(package, name, tmp_path / "out")
    text = (folder / "README.md").read_text()
    assert "An app's engine must be llama.cpp b5092 or newer." in text


def test_a_minimum_that_is_no_version_is_refused(tmp_path: Path) -> None:
    wrong = {**MINIMUM.to_json(), "version": "$(id)"}
    with pytest.raises(PackError, match="minimum"):
        with_minimum(tmp_path, wrong)
        manifest.read(tmp_path / "package")


def with_minimum(folder: Path, minimum: Any = None) -> Path:
    """A package that says which engine reads it."""
    package = write_package(folder / "package")
    data = body(package)
    data["runtime"]["minimum"] = [minimum or MINIMUM.to_json()]
    manifest.write(package, data)
    return package


def recipe(prefix: str, kv: str) -> Recipe:
    """A recipe of which only the type of its cache counts."""
    return Recipe("any", prefix, "any", kv, 16.0, "")


def runtime(name: str) -> Any:
    """The adapter of that name."""
    return next(adapter for adapter in runtimes() if adapter.name == name)
