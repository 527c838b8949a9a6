"""Bring the output that the README shows up to date: `python benchmarks/readme_output.py`.

Runs the commands whose output is shown, in a terminal of 100 columns, and puts today's figures in
place of those that stand there. The figures are measured: run it on an idle machine.
tests/test_readme.py holds the words against every build.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.shown_output import blocks, up_to_date  # noqa: E402
from tests.support.terminal import printed  # noqa: E402


def main() -> int:
    """Run every command that has output in the README."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "QWEN_PACK_CACHE": f"{folder}/cache"}
        for command, block in blocks(text):
            words = [sys.executable, "-m", "packager.cli", *shlex.split(command)[1:]]
            code, output = printed(words, Path(folder), environment)
            text = text.replace(block, up_to_date(block, output))
            print(json.dumps({"command": command, "exit_code": code}))
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
