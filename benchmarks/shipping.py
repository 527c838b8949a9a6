"""What shipping a package of 1 GiB takes: sign, verify, every export, unpack, push, pull, delta,
patch; seconds and peak memory of each.

    python benchmarks/shipping.py --scratch FOLDER [--bytes N] [--repeats N] [--only NAME ...]

The package is synthetic: one file of random bytes, which compress as little as quantized weights,
with a GGUF's size of keys in front. Each step is the command line in a process of its own,
interpreter and all; its memory is what that process had resident at most. The page cache is as the
step before left it. Beside the steps stand floors: hashing the file, and copying it to the disk.
Push and pull speak to Debian's docker-registry on loopback, where it is installed. Takes 10 GB of
disk; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from packager.device.this_machine import describe_machine  # noqa: E402
from packager.files import sha256  # noqa: E402
from packager.package import manifest  # noqa: E402
from packager.shipping.export import FORMATS  # noqa: E402

CHILD = """
import json, sys
from packager.process import peak_resident_bytes
sys.argv[1:], report = sys.argv[2:], sys.argv[1]
{work}
open(report, "w").write(json.dumps(peak_resident_bytes()))
"""
COMMAND = """
from packager.cli import main
code = main(sys.argv[1:])
if code:
    sys.exit(code)
"""
SIGN = """
from pathlib import Path
from packager.shipping.signature import Signer, sign
sign(Path(sys.argv[1]), Signer(Path(sys.argv[2])), Path(sys.argv[3]))
"""
HASH = """
from pathlib import Path
from packager.files import sha256
sha256(Path(sys.argv[1]))
"""
COPY = """
import os, shutil
shutil.copyfile(sys.argv[1], sys.argv[2])
with open(sys.argv[2], "rb+") as file:
    os.fsync(file.fileno())
"""
MORE = {"docker": ("--base-image", "registry.example/engine@sha256:" + "0" * 64)}
KEYS = 6 << 20


def package(folder: Path, size: int, seed: int, template: bytes, moved: bool = False) -> Path:
    """A package with one file of `size` bytes; `template` stands behind the keys, and moves what
    follows where asked."""
    (folder / "model").mkdir(parents=True)
    head = bytearray(random.Random(0).randbytes(KEYS))
    if moved:
        head += template
    else:
        head[-len(template) :] = template
    numbers = random.Random(seed)
    with (folder / "model/model.gguf").open("wb") as file:
        file.write(head)
        for start in range(KEYS, size, 1 << 24):
            file.write(numbers.randbytes(min(1 << 24, size - start)))
    (folder / "chat_template.jinja").write_bytes(template)
    (folder / "LICENSE").write_bytes(b"as it is\n")
    (folder / "README.md").write_text("# A package to measure with\n")
    rows = [
        {
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    data = {
        "schema": manifest.SCHEMA,
        "name": "shipping-gguf-q4_k_m",
        "version": f"1.{seed}.{len(template)}",
        "files": rows,
        "target": "laptop-cpu",
        "runtime": {"name": "llama.cpp", "version": "0"},
        "recipe": {"id": "gguf:Q4_K_M", "kv": "f16"},
        "variant": {"repo_id": "Qwen/Qwen3-1.7B", "revision": "0" * 40, "license": "apache-2.0"},
        "source": {"kind": "hub", "location": "Qwen/Qwen3-1.7B"},
        "workload": {"context": 4096, "prompt": 128, "use_case": "chat"},
        "artifact_bytes": size,
        "predicted": {"footprint": {"total": 2 * size, "peak": 2 * size}},
        "chat_template_sha256": hashlib.sha256(template).hexdigest(),
    }
    manifest.write(folder, data)
    return folder


@contextmanager
def removed(*places: Path) -> Iterator[None]:
    """What a step wrote goes before the next one."""
    try:
        yield
    finally:
        for place in places:
            for path in place.parent.glob(f"{place.name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class Steps:
    """Runs steps and keeps their figures."""

    def __init__(self, scratch: Path, repeats: int, only: list[str]) -> None:
        self._scratch, self._repeats, self._only = scratch, repeats, only
        self.rows: dict[str, dict[str, Any]] = {}

    def run(
        self,
        name: str,
        work: str,
        *words: str | Path,
        out: Path | None = None,
        more: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """One step, `repeats` times; what it wrote at `out` is removed between them and stays the
        last time."""
        if self._only and name not in self._only:
            return
        report = self._scratch / "report"
        seconds, peaks = [], []
        for number in range(self._repeats):
            if number and out is not None:
                with removed(out):
                    pass
            started = time.perf_counter()
            line = [sys.executable, "-c", CHILD.format(work=work), str(report), *map(str, words)]
            done = subprocess.run(
                line,
                cwd=ROOT,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
            seconds.append(time.perf_counter() - started)
            if done.returncode:
                print(f"{name:<22} failed: {done.stderr.strip().splitlines()[-2:]}", flush=True)
                self.rows[name] = {"failed": done.stderr.strip()[-300:]}
                return
            peaks.append(json.loads(report.read_text()))
        self.rows[name] = {
            "seconds": round(statistics.median(seconds), 2),
            "peak_bytes": max(peaks),
            **more(),
        }
        print(
            f"{name:<22} {self.rows[name]['seconds']:7.2f} s  {max(peaks) / 1e6:6.0f} MB  "
            f"{more() or ''}",
            flush=True,
        )


def measure(steps: Steps, scratch: Path, size: int) -> None:
    """Every step on one package."""
    old = package(scratch / "old", size, 1, b"{{ messages }}" * 40)
    model, key = old / "model/model.gguf", scratch / "team.key"
    steps.run("floor: sha256", HASH, model)
    with removed(scratch / "copied"):
        steps.run("floor: copy", COPY, model, scratch / "copied", out=scratch / "copied")
    subprocess.run(
        [sys.executable, "-m", "packager.cli", "keys", "new", str(key)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    steps.run("sign", SIGN, old, key, scratch / "old.sig", out=scratch / "old.sig")
    steps.run("verify", COMMAND, "verify", old)
    steps.run(
        "verify --key",
        COMMAND,
        "verify",
        old,
        "--key",
        f"{key}.pub",
        "--signature",
        scratch / "old.sig",
    )
    for name in FORMATS:
        out = scratch / "exported" / f"as-{name}"
        with removed(out):
            steps.run(
                f"export {name}",
                COMMAND,
                "export",
                old,
                "--format",
                name,
                "--out",
                out,
                *MORE.get(name, ()),
                out=out,
            )
            if name in ("tar.zst", "zip") and out.exists():
                with removed(scratch / "back"):
                    steps.run(
                        f"unpack {name}",
                        COMMAND,
                        "unpack",
                        out,
                        "--out",
                        scratch / "back",
                        out=scratch / "back",
                    )
    _registry(steps, scratch, old)
    for name, seed, template, moved in (
        ("another template", 1, b"{{ messages }}" * 60, False),
        ("keys that moved it", 1, b"{{ messages }}" * 60, True),
        ("other weights", 2, b"{{ messages }}" * 40, False),
    ):
        new, patch, made = scratch / "new", scratch / "update.patch", scratch / "made"
        with removed(new, patch, made):
            package(new, size, seed, template, moved)
            steps.run(
                f"delta, {name}",
                COMMAND,
                *("delta", old, new, "--out", patch),
                out=patch,
                more=lambda patch=patch: {"patch_bytes": patch.stat().st_size},
            )
            if patch.exists():
                steps.run(f"patch, {name}", COMMAND, "patch", patch, old, "--out", made, out=made)


def _registry(steps: Steps, scratch: Path, old: Path) -> None:
    if shutil.which("docker-registry") is None:
        print("push and pull: docker-registry is not installed", flush=True)
        return
    from tests.support.oci_registry import real_registry

    with ExitStack() as held:
        held.enter_context(removed(scratch / "pulled", scratch / "store"))
        host = held.enter_context(real_registry(scratch))
        # What is there is not sent again, so each repeat has a name of its own only where there is
        # one.
        steps.run("push", COMMAND, "push", old, f"{host}/team/model:v1")
        steps.run("push again", COMMAND, "push", old, f"{host}/team/model:v2")
        steps.run(
            "pull",
            COMMAND,
            "pull",
            f"{host}/team/model:v1",
            "--out",
            scratch / "pulled",
            out=scratch / "pulled",
        )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, required=True)
    options.add_argument("--bytes", type=int, default=1 << 30)
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--only", action="append", default=[])
    chosen = options.parse_args()
    scratch = chosen.scratch / "shipping"
    scratch.mkdir(parents=True)
    steps = Steps(scratch, chosen.repeats, chosen.only)
    load = os.getloadavg()[0]
    try:
        measure(steps, scratch, chosen.bytes)
    finally:
        shutil.rmtree(scratch)
    print(
        json.dumps(
            {
                "benchmark": "shipping",
                "bytes": chosen.bytes,
                "repeats": chosen.repeats,
                "machine": describe_machine(),
                "load_before": load,
                "load_after": os.getloadavg()[0],
                "versions": {
                    name: version(name) for name in ("zstandard", "oras", "model-signing", "numpy")
                },
                "steps": steps.rows,
            }
        )
    )


if __name__ == "__main__":
    main()
