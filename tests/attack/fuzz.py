"""`python -m tests.attack.fuzz`: fuzzing of the parsers that are ours, guided by the lines that an
input reaches.

Every kind runs in a process of its own, whose packages are instrumented by atheris (libFuzzer) while
they are imported. It begins with the genuine input and with mutants of it as its corpus, and mutates
by the kind's own rules as well as byte by byte. The last thing that is printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = (
    "safetensors header",
    "model.gguf of a package",
    "model.onnx of a package",
    "openvino_model.xml of a package",
    "genai_config.json of a package",
    "importance matrix, GGUF",
    "importance matrix, older form",
    "manifest.json",
    "device file",
    "patch",
    "manifest of a registry",
    "pieces.json",
    "zip",
    "tar.zst",
    "config.json",
    "tokenizer.json",
    "qwen.tiktoken",
    "adapter_config.json of an adapter",
    "config.json of gptq",
    "set of tasks",
    "tools of a profile",
    "request to a server",
    "record of the cache",
    "model card",
)
"""Parsers that run within the process; what starts another one is for the campaign itself."""

_CORPUS = 100
_MEMORY_MB = 2048
_LONGEST_S = 10
_SHOWN = 3000
_TOLD = "INFO: "
_OURS = ["packager", "targets", "tui"]


def main() -> int:
    """Exit code 0 where nothing was found, 4 where something was."""
    flags = argparse.ArgumentParser(prog="python -m tests.attack.fuzz", description=__doc__)
    flags.add_argument("kinds", nargs="*", help="Names of kinds; all of them by default.")
    flags.add_argument("--seconds", type=int, default=30, help="for each kind")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument(
        "--found",
        type=Path,
        default=Path(tempfile.gettempdir()) / "qwen-pack-found",
        help="where findings are kept",
    )
    flags.add_argument("--one", help=argparse.SUPPRESS)
    flags.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    asked = flags.parse_args()
    if asked.one is not None:
        _fuzz(asked.one, asked.place, asked.seconds, asked.seed)
    figures: dict[str, Any] = {"schema": "qwen-pack/fuzz/1", "seed": asked.seed, "kinds": {}}
    for name in asked.kinds or KINDS:
        figures["kinds"][name] = _apart(name, asked.seconds, asked.seed, asked.found)
        print(f"{name}: {figures['kinds'][name]}", file=sys.stderr, flush=True)
    figures["inputs"] = sum(row["inputs"] for row in figures["kinds"].values())
    figures["passed"] = all(row["passed"] for row in figures["kinds"].values())
    print(json.dumps(figures, indent=2))
    return 0 if figures["passed"] else 4


def _apart(name: str, seconds: int, seed: int, found: Path) -> dict[str, Any]:
    """One kind in a process of its own: inputs read, lines and branches that they reached."""
    with tempfile.TemporaryDirectory(prefix="qwen-pack-fuzz-") as folder:
        words = ["--one", name, "--place", folder, "--seconds", str(seconds), "--seed", str(seed)]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.attack.fuzz", *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        inputs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        row: dict[str, Any] = {
            "inputs": int(inputs[1]) if inputs else 0,
            "covered": int(covered[-1]) if covered else 0,
            "passed": done.returncode == 0 and inputs is not None,
        }
        if not row["passed"]:
            said = [
                line for line in f"{done.stdout}{done.stderr}".splitlines() if _TOLD not in line
            ]
            row["said"] = "\n".join(said)[:_SHOWN]
            for finding in Path(folder).glob("found-*"):
                found.mkdir(parents=True, exist_ok=True)
                shutil.copy(finding, found / f"{name.replace('/', '_')} {finding.name}")
        return row


def _fuzz(name: str, place: Path, seconds: int, seed: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=_OURS):
        from tests.attack.inputs import KINDS as ALL
        from tests.attack.mutants import import_readers

        import_readers()
    kind = next(one for one in ALL if one.name == name)
    room, corpus = place / "room", place / "corpus"
    room.mkdir()
    corpus.mkdir()
    genuine = kind.seed(room)
    # Once before: what is imported late is instrumented too.
    with atheris.instrument_imports(include=_OURS):
        _read(kind.read, room, genuine)
    (corpus / "genuine").write_bytes(genuine)
    for number in range(_CORPUS):
        mutant = kind.mutant(random.Random(f"{seed} {name} {number}"), genuine)
        (corpus / str(number)).write_bytes(mutant)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, most))
        try:
            return kind.mutant(random.Random(number), data)[:most]
        except Exception:  # what is no JSON any more has no values to change
            return bytes(atheris.Mutate(data, most))

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={max(4096, 2 * len(genuine))}",
        f"-rss_limit_mb={_MEMORY_MB}",
        f"-timeout={_LONGEST_S}",
        f"-seed={seed}",
        f"-artifact_prefix={place}/found-",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [name, *options, str(corpus)],
        lambda data: _read(kind.read, room, data),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def _read(read: Callable[[Path, bytes], Any], room: Path, data: bytes) -> None:
    """A refusal is how an input ends well; everything else is a finding."""
    from packager.errors import PackError

    try:
        read(room, data)
    except PackError as error:
        if error.exit_code == 1:
            raise
    finally:
        shutil.rmtree(room / "in", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
