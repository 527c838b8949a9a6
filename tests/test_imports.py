"""No command pays for an engine it does not use: looked at in a clean interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = (
    "torch",
    "transformers",
    "openvino",
    "openvino_genai",
    "onnxruntime",
    "onnxruntime_genai",
    "llama_cpp",
    "huggingface_hub",
    "textual",
    "nncf",
    "optimum",
    "distributed",
    "dask",
    "fsspec",
    "s3fs",
    "asyncssh",
    "pyarrow",
    "PIL",
)
LIGHT = (*ENGINES, "numpy", "rich", "tokenizers", "safetensors")


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running `code`, its own output
    aside."""
    script = (
        "import contextlib, io, json, sys\n"
        "with contextlib.redirect_stdout(io.StringIO()), "
        f"contextlib.redirect_stderr(io.StringIO()):\n    {code}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["fit", "--target", "laptop-cpu", "--json"],
        ["targets", "--json"],
        ["models", "--json"],
        ["doctor", "--json"],
        ["cache", "--json"],
        ["shelf", "--json"],
        ["build", "--help"],
        ["sweep", "--help"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_that_only_looks_things_up_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_after(f"from packager.cli import main; main({arguments!r})")
    assert loaded.isdisjoint(LIGHT)
    # What measures and watches processes comes with psutil.
    assert arguments[0] != "fit" or "psutil" not in loaded


def test_importing_every_adapter_loads_no_engine() -> None:
    assert loaded_after("from targets import registry; registry.runtimes()").isdisjoint(ENGINES)


def test_the_list_of_runtimes_and_targets_imports_no_adapter() -> None:
    loaded = loaded_after(
        "from targets import registry; registry.runtime_names(); registry.target_names()"
    )
    assert loaded.isdisjoint(ENGINES)


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that import one another by some way round: Tarjan's strongly connected
    components of more than one module."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in imports[module]:
            if imported not in order:
                visit(imported)
            if imported in stack:
                lowest[module] = min(lowest[module], lowest[imported])
        if lowest[module] == order[module]:
            start = stack.index(module)
            group = set(stack[start:])
            del stack[start:]
            if len(group) > 1:
                groups.append(group)

    for module in imports:
        if module not in order:
            visit(module)
    return groups


def test_circles_are_found_whichever_way_round_they_go() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d", "e"}}
    assert circles(imports) == [{"a", "b", "c"}]
    assert circles({**imports, "c": {"d"}}) == []


def test_no_modules_import_one_another_in_a_circle_but_the_screens_that_lead_to_each_other() -> (
    None
):
    """Late imports count, and those for types alone."""
    import grimp

    graph = grimp.build_graph("packager", "targets", "tui", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    others = [
        group
        for group in circles(imports)
        if not all(module == "tui.app" or module.startswith("tui.screens.") for module in group)
    ]
    assert others == []


def test_tables_whose_values_have_no_type_stand_at_borders_alone() -> None:
    """JSON and TOML that come in and go out; what is ours in between has types."""
    root = Path(__file__).parent.parent
    files = [
        path for folder in ("packager", "targets", "tui") for path in (root / folder).rglob("*.py")
    ]
    assert len(files) > 400
    assert sum(path.read_text("utf-8").count("dict[str, Any]") for path in files) < 80
