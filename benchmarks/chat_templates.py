"""Chat templates as transformers, llama.cpp and qwen-pack render them, text by text.

    python benchmarks/chat_templates.py --scratch FOLDER [TEMPLATE ...]

Without names: the templates in the folder qwen/templates of QWEN_PACK_SHARED (or of `shared` beside
the repository). Each is rendered for every conversation that builds are checked with (tools, a
tool's answer, thinking on and off, several turns), by transformers, by qwen-pack's sandbox, and by
llama.cpp's engine, compiled with c++ from the source archive of the installed llama-cpp-python.
Exit code 0 when all three agree everywhere. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer import source
from packager.checkpoint.template import render
from packager.errors import PackError
from packager.quality.parity_corpus import CONVERSATIONS

HERE = Path(__file__).resolve().parent
SWITCHES: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": True}, {"enable_thinking": False})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("templates", type=Path, nargs="*")
    options = parser.parse_args()
    files = options.templates or known_templates()
    program = engine(options.scratch)
    rows = []
    for file in files:
        rows.append(compared(file, program))
        print(
            f"{file.name}: {rows[-1]['equal']} of {rows[-1]['renderings']} equal", file=sys.stderr
        )
    versions = {
        package: version(package) for package in ("llama-cpp-python", "transformers", "jinja2")
    }
    print(json.dumps({"benchmark": "chat_templates", "versions": versions, "templates": rows}))
    return 0 if rows and all(row["equal"] == row["renderings"] for row in rows) else 1


def known_templates() -> list[Path]:
    """The genuine ones, as far as they are at hand."""
    shared = Path(os.environ.get("QWEN_PACK_SHARED", HERE.parent.parent / "shared"))
    return sorted((shared / "qwen" / "templates").glob("*.jinja"))


def engine(scratch: Path) -> Path:
    """llama.cpp's template engine as a program, compiled once."""
    program = scratch / "render-templates"
    text = HERE / "render.cpp"
    if not program.exists() or program.stat().st_mtime < text.stat().st_mtime:
        common = source(scratch) / "common"
        parts = [
            *sorted((common / "jinja").glob("*.cpp")),
            common / "json.cpp",
            common / "unicode.cpp",
        ]
        include = [
            f"-I{common}",
            f"-I{common.parent / 'vendor'}",
            f"-I{common.parent / 'include'}",
            f"-I{common.parent / 'ggml' / 'include'}",
        ]
        half = program.with_suffix(".half")
        subprocess.run(
            ["c++", "-std=c++17", "-O1", *include, str(text), *map(str, parts), "-o", str(half)],
            check=True,
        )
        half.rename(program)
    return program


def compared(file: Path, program: Path) -> dict[str, Any]:
    """How many renderings agree, and those that do not."""
    template = file.read_text(encoding="utf-8")
    cases = {
        f"{name}{''.join(f', {key}={value}' for key, value in switch.items())}": {
            "add_generation_prompt": True,
            **switch,
            **conversation,
        }
        for name, conversation in CONVERSATIONS.items()
        for switch in SWITCHES
        if not set(switch) & set(conversation)
    }
    jobs = [{"template": template, "variables": case} for case in cases.values()]
    run = subprocess.run(
        [str(program)], input=json.dumps(jobs), capture_output=True, text=True, check=True
    )
    differing = []
    for (name, case), answer in zip(cases.items(), json.loads(run.stdout), strict=True):
        texts = {
            "transformers": by_transformers(template, case),
            "qwen-pack": ours(template, case),
            "llama.cpp": answer.get("text"),
        }
        if len(set(texts.values())) > 1:
            differing.append({"case": name, "error": answer.get("error"), **texts})
    return {
        "template": file.name,
        "renderings": len(cases),
        "equal": len(cases) - len(differing),
        "differing": differing,
    }


def by_transformers(template: str, case: dict[str, Any]) -> str | None:
    """None where the template refuses the conversation."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    given = {name: value for name, value in case.items() if name != "messages"}
    try:
        rendered, _ = render_jinja_template(
            conversations=[case["messages"]], chat_template=template, **given
        )
    except TemplateError:
        return None
    return str(rendered[0])


def ours(template: str, case: dict[str, Any]) -> str | None:
    """None where the template refuses the conversation."""
    given = {name: value for name, value in case.items() if name != "messages"}
    try:
        return render(template, case["messages"], **given)
    except PackError:
        return None


if __name__ == "__main__":
    sys.exit(main())
