"""The check's parts: ladders as data, what the compiler does to AMX, words for deaths, and what
packages say of the way they were run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from packager.deaths import reason
from packager.engine_check import compiler, identity, ladder, store
from packager.engine_check.outcome import DIED, Outcome, Start
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.runtime import Laddered
from packager.shipping.server import settings as settings_file
from targets import llama_cpp, registry
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import exported, gguf_package
from tests.support.surviving import engine_of

RUNTIMES = registry.BUILT_IN
GOOD = """distributions = ["numpy"]
[[check]]
recipe = "b16"
least = 0.9
[[rung]]
name = "careful"
reason = "Slower."
source = "its manual"
environment = { CARE = "1" }
"""


def start(runtime: str, rung: int) -> Start:
    """As if the engine had died in every way before that rung."""
    adapter = registry.runtime(runtime)
    assert isinstance(adapter, Laddered)
    rungs = adapter.ladder().rungs
    died = tuple(
        Outcome(
            one.name,
            DIED,
            "while computing",
            "SIGSEGV",
            "SIGSEGV, an access to memory that is not its own",
        )
        for one in rungs[:rung]
    )
    return Start(runtime, rungs[rung], died, ("amx_int8",))


def test_an_engine_is_known_to_whatever_runs_on_it() -> None:
    for adapter in map(registry.runtime, RUNTIMES):
        assert isinstance(adapter, Laddered)

        class Taking(type(adapter)):  # type: ignore[misc]
            build_job = "packager.plan.converted:take"

        taking, rungs = Taking(), adapter.ladder()
        taking.engine = adapter
        assert identity.key(taking, rungs) == identity.key(adapter, rungs)
        taking.engine = taking
        assert identity.key(taking, rungs) != identity.key(adapter, rungs)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("least = 0.9", "least = 2", "check[0].least is not a number between 0 and 1"),
        ("least = 0.9", "leats = 0.9", "check[0].leats is not known"),
        ('recipe = "b16"', "", "check[0].recipe is missing"),
        ('name = "careful"', 'name = "default"', "two rungs of one name"),
        ('name = "careful"', 'name = "Not careful"', "rung[0].name is not a word"),
        ('reason = "Slower."', "", "rung[0].reason is missing"),
        ('source = "its manual"', "", "rung[0].source is missing"),
        ('{ CARE = "1" }', "{}", "rung[0].environment sets nothing"),
        (
            '{ CARE = "1" }',
            '{ "A B" = "1" }',
            "rung[0].environment.A B is not the name of a variable",
        ),
        ('{ CARE = "1" }', "{ CARE = 1 }", "rung[0].environment.CARE is not a text"),
        ('["numpy"]', '"numpy"', "distributions is not a list of texts"),
        ("[[check]]", "[check]", "check is not a list of tables"),
        ("distributions", "= distributions", "cannot be read"),
    ],
)
def test_a_mistake_in_a_ladder_is_named_with_file_and_key(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(GOOD)
    assert [rung.name for rung in ladder.read(path).rungs] == ["default", "careful"]
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PackError) as caught:
        ladder.read(path)
    assert str(path) in caught.value.message and words in caught.value.message
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_engine_has_a_ladder_whose_recipes_it_knows_and_whose_ways_differ(name: str) -> None:
    adapter = registry.runtime(name)
    assert isinstance(adapter, Laddered)
    found = adapter.ladder()
    assert all(adapter.recipe(trial.recipe).weights == trial.recipe for trial in found.trials)
    assert (
        len({tuple(sorted(rung.environment.items())) for rung in found.rungs})
        == len(found.rungs)
        > 1
    )
    assert found.rungs[0].environment == {} and set(found.distributions) <= set(
        adapter.distributions
    )


def test_llama_cpp_and_onnx_runtime_do_what_the_variables_of_their_ways_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("llama_cpp")
    from targets.gguf import library
    from targets.onnxruntime.options import session_options

    for runtime in ("llama.cpp", "onnxruntime"):
        for name, value in start(runtime, 1).environment.items():
            monkeypatch.setenv(name, value)
    assert library.model_params().use_extra_bufts is False
    assert session_options() == {"session.disable_prepacking": "1"}
    for name in (library.EXTRA_BUFFERS, "QWEN_PACK_ONNXRUNTIME_OPTIONS"):
        monkeypatch.delenv(name)
    assert library.model_params().use_extra_bufts is True
    assert session_options() == {}


@pytest.mark.parametrize(
    ("runtime", "recipe", "lines"),
    [
        (
            "llama.cpp",
            "Q4_K_M",
            (
                "--load-mode none --no-repack\n",
                "--no-repack --jinja",
                "LLAMA_ARG_REPACK=0 ollama run",
                "params.use_extra_bufts = False",
            ),
        ),
        (
            "openvino",
            "int8_asym",
            (
                'os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"',
                "`ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 ovms",
            ),
        ),
        ("onnxruntime", "int4_sym_b32", ('"session.disable_prepacking": "1"', "og.Model(config)")),
    ],
)
def test_the_commands_of_a_readme_start_the_engine_in_the_way_that_was_found(
    runtime: str, recipe: str, lines: tuple[str, ...]
) -> None:
    adapter = registry.runtime(runtime)
    asked: dict[str, Any] = {"context": 512, "gpu_layers": 0, "files": []}
    plain = adapter.how_to_run(adapter.recipe(recipe), {**asked, "settings": None})
    careful = adapter.how_to_run(
        adapter.recipe(recipe), {**asked, "settings": start(runtime, 1).settings()}
    )
    assert all(line in careful and line not in plain for line in lines), careful
    for text in (plain, careful):
        for block in text.split("```python\n")[1:]:
            compile(block.split("```")[0], "README.md", "exec")


EXPORTED = {
    "docker": ("llama.cpp", '"--load-mode", "none", "--no-repack", "--jinja"]', "Dockerfile"),
    "ollama": (
        "llama.cpp",
        "`LLAMA_ARG_REPACK=0 ollama serve`: on the processor that",
        "README.md",
    ),
    "embedded": ("llama.cpp", " --no-repack --model`", "README.md"),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_an_export_starts_the_engine_in_that_way_and_says_what_to_do_elsewhere(
    name: str, tmp_path: Path
) -> None:
    runtime, line, file = EXPORTED[name]
    named = {"name": runtime, "version": "1", "settings": start(runtime, 1).settings()}
    careful = (
        exported(gguf_package(tmp_path / "careful", runtime=named), name, tmp_path / "one") / file
    )
    plain = exported(gguf_package(tmp_path / "plain"), name, tmp_path / "two")
    assert line in careful.read_text() and line not in (plain / file).read_text()
    if name != "embedded":
        assert "AMX" in (plain / "README.md").read_text()


@pytest.mark.parametrize(
    ("runtime", "rung", "words"),
    [("openvino", 1, "ONEDNN_MAX_CPU_ISA"), ("onnxruntime", 1, "session.disable_prepacking")],
)
def test_the_server_of_a_container_starts_its_engine_in_that_way(
    runtime: str, rung: int, words: str, tmp_path: Path
) -> None:
    named = {"name": runtime, "version": "1", "settings": start(runtime, rung).settings()}
    server = (
        exported(gguf_package(tmp_path / "careful", runtime=named), "docker", tmp_path / "out")
        / "server"
    )
    told = settings_file.read(server / "settings.json")
    assert words in {**told.environment, **told.options}


@pytest.mark.parametrize(
    "settings",
    [
        {"flags": ["--no-repack", "--log-file=/etc/passwd"]},
        {"variables": {"LD_PRELOAD": "/tmp/evil.so"}},
        {"variables": {"LLAMA_ARG_REPACK": "0 evil"}},
    ],
)
def test_settings_of_a_manifest_that_could_do_more_than_start_an_engine_stop_an_export(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    package = gguf_package(
        tmp_path / "evil", runtime={"name": "llama.cpp", "version": "1", "settings": settings}
    )
    with pytest.raises(PackError, match="which is not known here") as caught:
        exported(package, "docker", tmp_path / "out")
    assert caught.value.exit_code == ExitCode.INPUT and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [{"rung": 1}, {"flags": "x"}, {"variables": {"A": 1}}, {"before": [{"seconds": "long"}]}, []],
)
def test_a_manifest_with_settings_of_the_wrong_kind_is_refused(
    settings: Any, tmp_path: Path
) -> None:
    gguf_package(
        tmp_path / "odd", runtime={"name": "llama.cpp", "version": "1", "settings": settings}
    )
    with pytest.raises(PackError, match=r"'runtime\.settings"):
        manifest.read(tmp_path / "odd")


BROKEN = "configure:\n\tmovq\t$1, -72(%rsp)\n\tldtilecfg\t-72(%rsp)\n\tret\n"
WHOLE = "configure:\n\tmovb\t%dil, -24(%rsp)\n\tldtilecfg\t-72(%rsp)\n\tret\n"


def test_a_compiler_that_drops_the_stores_of_a_tile_configuration_is_told_by_what_it_makes() -> (
    None
):
    assert compiler.breaks(BROKEN) and not compiler.breaks(WHOLE)
    assert compiler.flags(["/nowhere/c++"]) == ()


@pytest.mark.skipif(not Path("/usr/bin/c++").exists(), reason="needs a C++ compiler")
def test_the_compiler_of_this_machine_is_asked_and_what_it_breaks_is_left_out() -> None:
    made = compiler.assembly(["/usr/bin/c++"])
    run = subprocess.run(
        [sys.executable, "-P", compiler.__file__],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CXX": "/usr/bin/c++"},
    )
    assert run.stdout.split() == (
        list(compiler.FLAGS) if made is not None and compiler.breaks(made) else []
    )


@pytest.mark.skipif(
    sys.platform != "linux" or not Path("/usr/bin/g++").exists(), reason="needs GCC on Linux"
)
def test_a_compiler_that_copies_the_cxx_library_into_every_library_is_told_to_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copying = tmp_path / "c++"
    copying.write_text('#!/bin/sh\nexec /usr/bin/g++ -static-libstdc++ "$@"\n')
    copying.chmod(0o755)
    assert compiler.carries_copy([str(copying)]) is True
    assert compiler.carries_copy([str(copying)], compiler.LINK_FLAGS) is False
    assert compiler.link_flags(["/usr/bin/g++"]) == ()
    assert compiler.link_flags(["/nowhere/c++"]) == ()
    monkeypatch.setenv("CXX", str(copying))
    assert compiler.main(["--link"]) == 0
    assert capsys.readouterr().out.split() == list(compiler.LINK_FLAGS)
    # Where the system has no C++ library to share, nothing is said that would stop the linker.
    monkeypatch.setattr(compiler, "LINK_FLAGS", ("-l:libnowhere.so.6",))
    assert compiler.link_flags([str(copying)]) == ()


def test_a_llama_cpp_with_copies_of_the_cxx_library_is_installed_anew_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Any = llama_cpp._ladder
    monkeypatch.setattr(compiler, "installed", lambda: tmp_path / "libggml-cpu.so")
    (tmp_path / "libllama.so").write_bytes(b"\x7fELF libm.so.6 libstdc++.so.6")
    assert made.__wrapped__().reinstall.startswith("pip install --force-reinstall")
    (tmp_path / "libllama.so").write_bytes(b"\x7fELF libm.so.6")
    assert "-l:libstdc++.so.6" in made.__wrapped__().reinstall.partition("pip install")[0]
    if sys.platform == "linux":
        monkeypatch.setattr(compiler, "link_flags", lambda: compiler.LINK_FLAGS)
        assert compiler.main(["--installed-is-broken"]) == 0
        monkeypatch.setattr(compiler, "link_flags", tuple)
        monkeypatch.setattr(compiler, "flags", tuple)
        assert compiler.main(["--installed-is-broken"]) == 1


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "loading\n/src/ggml.c:42: GGML_ASSERT(a == b) failed\n[New LWP 7]\nback trace",
            "/src/ggml.c:42: GGML_ASSERT(a == b) failed",
        ),
        (
            "terminate called after throwing an instance of 'x'\n  what():  bad alloc\n",
            "what():  bad alloc",
        ),
        ("one\n\nlast words\n", "last words"),
        ("", ""),
    ],
)
def test_an_abort_is_told_by_the_line_that_gives_its_reason(
    log: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(log)
    assert reason(tmp_path / "log") == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"checked": 1, "deaths": {}}',
        '{"checked": [{"rung": "default"}], "deaths": {}}',
    ],
)
def test_outcomes_that_nobody_here_has_written_count_as_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.FOLDER, str(tmp_path))
    runtime = registry.runtime("llama.cpp")
    store.path(runtime, "key").write_text(text)
    assert store.read(runtime, "key") == store.Known()


CRASHING = """
import os, signal, time, pytest
def test_before(): pass
@pytest.mark.parametrize("number", range(3))
def test_dies(number): os.kill(os.getpid(), signal.SIGSEGV)
def test_hangs(): time.sleep(600)
def test_after(): pass
"""


@pytest.mark.slow
def test_a_test_that_takes_its_worker_down_or_hangs_is_one_failed_test_and_all_others_run(
    tmp_path: Path,
) -> None:
    for name in ("llama", "other"):
        (tmp_path / f"test_{name}.py").write_text(
            CRASHING if name == "llama" else "def test_one(): pass\ndef test_two(): pass\n"
        )
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 5\ntimeout_method = thread\n")
    hooks = "from tests.conftest import pytest_handlecrashitem, pytest_xdist_make_scheduler\n"
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{hooks}"
    )
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--max-worker-restart",
        "400",
        "-p",
        "no:cacheprovider",
        *("-p", "xdist", "-p", "pytest_timeout"),
    ]
    # Six processes load their plug-ins.
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    run = subprocess.run(
        line,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=surroundings,
    )
    assert "4 failed, 4 passed" in run.stdout, run.stdout[-3000:] + run.stderr[-1000:]
    assert "llama.cpp took the process down" in run.stdout
    assert engine_of("tests/test_onnx_engine.py::test_x") == "onnxruntime"
