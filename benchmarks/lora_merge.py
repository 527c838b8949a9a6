"""What merging an adapter costs a build: `build --lora` beside the same build without it, in
alternating runs.

    python benchmarks/lora_merge.py --scratch FOLDER [--variants NAME ...] [--recipe R]
                                    [--rank N] [--repeats N] [--modules all|attention]

Checkpoints have the true shape of the variants (Qwen3-0.6B and Qwen3-1.7B unless others are named,
`tiny` for a trial) and random weights; the adapter has random matrices of that rank for every
matrix of the layers, or those of attention. Every run starts with an empty cache, so that it reads,
converts, hashes and packages all; engines are known before the first, and the gate compares tokens
and template alone, as random weights predict nothing. Seconds are the whole command's. Memory is
the most that the process and its children held at one time, sampled: proportional set size where
Linux tells it, so that shared pages count once. `convert_peak_bytes` is the manifest's peak of the
conversion's own process. The ratio is of medians, with the least and the greatest of the pairs. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager import catalog
from packager.sources import dummy
from packager.units import human_bytes
from tests.support.make_checkpoint import Silent, write_tiny

VARIANTS = ("Qwen3-0.6B", "Qwen3-1.7B")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MODULES = {"attention": ATTENTION, "all": (*ATTENTION, "gate_proj", "up_proj", "down_proj")}
_SAMPLE_S = 0.02
_FIGURES = ("seconds", "tree_peak_bytes", "convert_peak_bytes")
Figures = dict[str, float]


def checkpoint(scratch: Path, name: str) -> Path:
    """A checkpoint of the variant's shape with random weights, kept between runs."""
    folder = scratch / name
    if folder.is_dir():
        return folder
    if name == "tiny":
        return write_tiny(folder, hidden=256, heads=4, kv_heads=2, intermediate=512)
    variant = catalog.find(name)
    assert variant.shape is not None
    from dataclasses import asdict

    dummy.fetch(Silent(), repo_id=variant.repo_id, shape=asdict(variant.shape), out=str(folder))
    return folder


def adapter(scratch: Path, base: Path, rank: int, modules: tuple[str, ...]) -> Path:
    """An adapter as PEFT saves it, for those matrices of every layer."""
    from packager.checkpoint import Checkpoint

    folder = scratch / f"{base.name}-lora-{rank}-{len(modules)}"
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    matrices: dict[str, Any] = {}
    for name, tensor in Checkpoint.open(base).tensors.items():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] not in modules:
            continue
        rows, columns = tensor.shape
        for part, shape in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
            values = random.normal(0, 0.01, shape).astype(np.float32)
            matrices[f"base_model.model.{layer}.{part}.weight"] = values
    save_file(matrices, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(modules),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


class Tree:
    """The most memory that a process and its children held at one time."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root, self._done = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Tree:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.peak = max(self.peak, sum(self._sizes()))

    def _sizes(self) -> Iterator[int]:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                memory = process.memory_full_info()
            except psutil.Error:
                continue
            yield int(getattr(memory, "pss", memory.uss))


@contextmanager
def emptied(cache: Path) -> Iterator[Path]:
    """A cache that knows the engines and nothing else, gone afterwards."""
    for part in cache.iterdir() if cache.is_dir() else ():
        if part.name != "engines":
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    yield cache


def build(scratch: Path, base: Path, lora: Path | None, recipe: str) -> Figures:
    """One build from an empty cache."""
    out, cache = scratch / "package", scratch / "cache"
    shutil.rmtree(out, ignore_errors=True)
    asked = ["build", "--target", "laptop-cpu", "--weights", str(base), "--recipe", recipe]
    asked += ["--context", "256", "--out", str(out), *(("--lora", str(lora)) if lora else ())]
    with emptied(cache):
        started = time.perf_counter()
        log = (scratch / "build.log").open("w+")
        with log:
            run = subprocess.Popen(
                [sys.executable, "-m", "packager.cli", *asked],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "QWEN_PACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            )
            with Tree(run.pid) as tree:
                code = run.wait()
            seconds = time.perf_counter() - started
            log.seek(0)
            if code:
                raise SystemExit(f"The build ended with {code}:\n{log.read()[-2000:]}")
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["source"].get("adapters", ())) == (lora is not None)
    shutil.rmtree(out)
    return {
        "seconds": seconds,
        "tree_peak_bytes": tree.peak,
        "convert_peak_bytes": manifest["build"]["convert_peak_bytes"],
        "convert_seconds": manifest["build"]["convert_seconds"],
    }


def compared(plain: list[Figures], merged: list[Figures]) -> dict[str, Any]:
    """Medians of both ways, and their ratio with the least and the greatest of the pairs."""
    rows: dict[str, Any] = {}
    for figure in (*_FIGURES, "convert_seconds"):
        pairs = [with_it[figure] / one[figure] for one, with_it in zip(plain, merged, strict=True)]
        medians = [statistics.median(run[figure] for run in runs) for runs in (plain, merged)]
        rows[figure] = {
            "plain": medians[0],
            "merged": medians[1],
            "ratio": round(medians[1] / medians[0], 4),
            "least": round(min(pairs), 4),
            "greatest": round(max(pairs), 4),
        }
    return rows


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--recipe", default="gguf:Q4_K_M")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--modules", choices=MODULES, default="all")
    given = parser.parse_args()
    scratch = given.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in given.variants:
        base = checkpoint(scratch, name)
        lora = adapter(scratch, base, given.rank, MODULES[given.modules])
        # Engines are tried, and files are read into the system's cache.
        build(scratch, base, None, given.recipe)
        plain: list[Figures] = []
        merged: list[Figures] = []
        for number in range(given.repeats):
            ways = [(plain, None), (merged, lora)]
            for runs, added in ways if number % 2 == 0 else reversed(ways):
                runs.append(build(scratch, base, added, given.recipe))
        found[name] = compared(plain, merged)
        row = found[name]
        print(
            f"{name}, {given.recipe}: {row['seconds']['merged']:.1f} s against "
            f"{row['seconds']['plain']:.1f} s ({row['seconds']['ratio']:.2f}), "
            f"{human_bytes(round(row['tree_peak_bytes']['merged']))} against "
            f"{human_bytes(round(row['tree_peak_bytes']['plain']))} "
            f"({row['tree_peak_bytes']['ratio']:.2f}); conversion alone "
            f"{row['convert_seconds']['ratio']:.2f} and {row['convert_peak_bytes']['ratio']:.2f}"
        )
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    told = {"recipe": given.recipe, "rank": given.rank, "modules": given.modules}
    told |= {"repeats": given.repeats, "machine": platform.machine(), "variants": found}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
