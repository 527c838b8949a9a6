"""Nothing of ours imports what lies in the current folder, which may be a checkpoint or a package
of a stranger."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from packager.cli import COMMANDS
from packager.python import python_command, python_environment, without
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import write_tiny
from tests.support.tiers import thorough

HELPER = "packager/python.py"
_STARTS = {
    *(
        "multiprocessing",
        "concurrent.futures.ProcessPoolExecutor",
        "ProcessPoolExecutor",
        "runpy",
        "pty",
    ),
    *(
        "os.execv",
        "os.execve",
        "os.execvp",
        "os.execl",
        "os.spawnv",
        "os.spawnl",
        "os.posix_spawn",
        "os.system",
        "os.popen",
        "os.fork",
    ),
}
_LAST_WORDS = "|".join(sorted({"executable", *(name.rpartition(".")[2] for name in _STARTS)}))
_MAY_START = re.compile(rf"\b({_LAST_WORDS})\b|[\"']python")
"""What stands in a file that holds any of it: only such a file is parsed."""
MODULES = (
    "click",
    "json",
    "numpy",
    "gguf",
    "tomllib",
    "llama_cpp",
    "packager",
    "targets",
    "rich",
    "jinja2",
    "sitecustomize",
    "psutil",
)
SOME = {"build", "run", "verify", "export", "unpack", "fit"}


def sources() -> list[Path]:
    return [
        path
        for part in ("packager", "targets", "tui")
        for path in sorted((REPOSITORY / part).rglob("*.py"))
    ]


def dotted(node: ast.AST) -> str:
    return (
        f"{dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Attribute)
        else getattr(node, "id", "")
    )


_SERVERS = ("packager/shipping/server/prompts.py", "packager/shipping/router/keeper.py")
"""They go along with packages, without the helper, and start files of their own folder."""


def test_one_function_alone_writes_the_command_line_of_our_python() -> None:
    """Whoever starts Python needs its path, or a library that starts it: neither stands anywhere
    else."""
    seen = 0
    for path in sources():
        name, text = path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text if _MAY_START.search(text) else "")):
            word = dotted(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if word == "sys.executable" or "executable" in names:
                seen += 1
                assert name in (HELPER, *_SERVERS), f"{name}:{node.lineno}"
            for found in (word, *names, *module):
                assert found not in _STARTS and not found.startswith("multiprocessing."), (
                    f"{name}: {found}"
                )
            if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
                assert not str(node.elts[0].value).startswith("python"), f"{name}:{node.lineno}"
    assert seen == 3


def test_the_command_line_and_the_environment_keep_the_current_folder_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert python_command("packager.cli", "tui") == [
        sys.executable,
        "-P",
        "-m",
        "packager.cli",
        "tui",
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/one", "", "/two", ""]))
    assert (
        python_environment({"A": "b"}).items()
        >= {"PYTHONPATH": f"/one{os.pathsep}/two", "PYTHONSAFEPATH": "1", "A": "b"}.items()
    )


def test_a_module_that_is_left_out_counts_as_not_installed_for_the_while_and_no_longer() -> None:
    name = next(one for one in ("antigravity", "this") if one not in sys.modules)
    with without(name, "sys", "nowhere_at_all"):
        assert find_spec(name) is None and find_spec("sys") is not None
        with pytest.raises(ImportError):
            import_module(name)
    assert find_spec(name) is not None and not {name, "nowhere_at_all"} & sys.modules.keys()


@pytest.mark.engine
@pytest.mark.parametrize("every", [False, thorough(True)], ids=["some", "every"])
def test_no_command_runs_the_python_of_the_folder_it_is_started_in(
    every: bool, tmp_path: Path, own_cache: Path
) -> None:
    folder, marks = tmp_path / "stranger", tmp_path / "ran"
    checkpoint = write_tiny(folder / "tiny", hidden=256, intermediate=512)
    for place in (folder, checkpoint):
        for name in MODULES:
            (place / f"{name}.py").write_text(
                f"open({str(marks)!r}, 'a').write({name + ' '!r})\nraise SystemExit(99)\n"
            )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "QWEN_PACK_CACHE": str(own_cache)}
    flags = ["--target", "laptop-cpu", "--context", "64"]
    build = ["build", *flags, "--recipe", "gguf:Q8_0", "--weights", "tiny", "--out", "p"]
    lines = [
        *(
            build,
            ["run", "p", "hello", "--max-tokens", "2"],
            ["bench", "p"],
            ["verify", "p"],
            ["compare", "p", "p"],
        ),
        *(
            ["export", "p", "--format", "zip", "--out", "p.zip", "--accept-license", "unstated"],
            ["unpack", "p.zip", "--out", "q"],
        ),
        *(
            ["fit", *flags],
            ["models"],
            ["targets"],
            ["doctor"],
            ["shelf"],
            ["cache"],
            ["keys", "new", "k"],
            ["tui"],
        ),
        *(
            ["delta", "p", "q", "--out", "d", "--accept-license", "unstated"],
            ["patch", "d", "p", "--out", "r"],
        ),
        *(
            ["behave", "p", "--prompts", "tasks.jsonl"],
            ["push", "p", "127.0.0.1:1/x:v1"],
            ["pull", "127.0.0.1:1/x:v1"],
            ["probe"],
        ),
    ]
    lines += [[name, "--help"] for name in sorted(set(COMMANDS) - {line[0] for line in lines})]
    if not every:
        # Those that start children or read what a stranger has written.
        lines = [line for line in lines if line[0] in SOME and "--help" not in line]
    (folder / "tasks.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
    codes = {}
    for line in lines:
        command = python_command("packager.cli", *line)
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        codes[line[0]] = done.returncode
        assert not marks.exists(), (line, marks.read_text())
        assert done.returncode not in (1, 99), (line, done.stderr)
    done_well = {name for name, code in codes.items() if code == 0}
    assert done_well >= ({*SOME, "bench"} if every else SOME), codes
