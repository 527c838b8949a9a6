"""Building a GGUF: our one pass beside llama.cpp's own converter and quantizer, on the same
checkpoints, in alternating runs.

    python benchmarks/gguf_build.py --scratch FOLDER [--variants NAME ...] [--presets NAME ...]
                                    [--repeats N]

The peer is convert_hf_to_gguf.py with bfloat16 between, then llama_model_quantize; for Q8_0 the
converter alone, which writes it in one step. It is taken from the source archive of
llama-cpp-python, which pip downloads into the scratch folder. Checkpoints have the true shape and
random weights. Every tensor of both results is compared. Beside the times stand those of the floor:
the bare kernels on all cores, and reading the checkpoint plus writing the result to the disk. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer import source

ROOT = Path(__file__).resolve().parent.parent

OURS = """
import sys
from pathlib import Path
from targets.llama_cpp.build import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""

CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
from conversion import base
# The peer knows pre-tokenizers by the hash of what they make of a text, and does not know a
# vocabulary of our own making.
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""

QUANTIZE = """
import sys
import ctypes
import gguf
from targets.llama_cpp import library
lib = library.llama()
library.silence()
params = lib.llama_model_quantize_default_params()
params.ftype = int(gguf.LlamaFileType["MOSTLY_" + sys.argv[3]])
sys.exit(lib.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""

KERNELS = """
import sys, threading, time
from pathlib import Path
import gguf
import numpy as np
from targets.gguf.kernels import GgmlKernels
from targets.gguf.writer import BLOCK_ELEMENTS
work = []
for tensor in gguf.GGUFReader(sys.argv[1]).tensors:
    columns = int(tensor.shape[0])
    rows = int(np.prod(tensor.shape)) // columns
    step = max(1, BLOCK_ELEMENTS // columns)
    row_bytes = tensor.n_bytes // rows
    name = tensor.tensor_type.name
    work += [(name, min(step, rows - at), columns, row_bytes) for at in range(0, rows, step)]
kernels, lock = GgmlKernels(), threading.Lock()
most = max(rows * columns for _, rows, columns, _ in work)
noise = np.random.default_rng(0).standard_normal(most, dtype=np.float32) * 0.02
left = iter(work)
def run():
    while True:
        with lock:
            item = next(left, None)
        if item is None:
            return
        name, rows, columns, row_bytes = item
        values = noise[: rows * columns].reshape(rows, columns)
        kernels.encode(name, values, np.empty(rows * row_bytes, np.uint8), None)
threads = [threading.Thread(target=run) for _ in range(int(sys.argv[2]))]
started = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(time.perf_counter() - started)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=["Qwen2.5-0.5B-Instruct", "Qwen3-0.6B"])
    parser.add_argument("--presets", nargs="+", default=["Q8_0", "Q4_0", "Q4_K_M"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    peer = peer_source(options.scratch)
    results = []
    for name in options.variants:
        folder = checkpoint(options.scratch, name)
        for preset in options.presets:
            results.append(compare(peer, folder, preset, options.scratch / "out", options.repeats))
            print(row(results[-1]), file=sys.stderr)
    from packager.device.this_machine import describe_machine

    versions = {
        package: version(package)
        for package in ("llama-cpp-python", "gguf", "numpy", "torch", "transformers")
    }
    print(
        json.dumps(
            {
                "benchmark": "gguf_build",
                "machine": describe_machine(),
                "versions": versions,
                "results": results,
            }
        )
    )
    return 0


def peer_source(scratch: Path) -> Path:
    """llama.cpp's own sources; what its converter imports lies beside."""
    folder = source(scratch)
    if not (scratch / "site" / "sentencepiece").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(scratch / "site"),
            "sentencepiece",
        ]
        subprocess.run(command, check=True)
    return folder


def checkpoint(scratch: Path, name: str) -> Path:
    """A checkpoint of the variant's true shape with random weights, written once."""
    from dataclasses import asdict

    from packager import catalog
    from packager.sources import dummy

    variant = catalog.find(name)
    folder = scratch / "checkpoints" / variant.name
    if not folder.is_dir():
        assert variant.shape is not None
        folder.parent.mkdir(parents=True, exist_ok=True)
        dummy.fetch(Quiet(), repo_id=variant.repo_id, shape=asdict(variant.shape), out=str(folder))
    return folder


def compare(peer: Path, folder: Path, preset: str, out: Path, repeats: int) -> dict[str, Any]:
    """Alternating runs of both, then the floor."""
    from packager.cores import cores

    runs: dict[str, list[dict[str, float]]] = {"peer": [], "ours": []}
    threads = cores().at_once
    digests = {}
    for _ in range(repeats):
        for who, commands in (
            ("peer", peer_commands(peer, folder, preset, out)),
            ("ours", our_commands(folder, preset, out)),
        ):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            runs[who].append(measured(commands, out, peer))
            digests[who] = tensor_digests(out / "model.gguf")
    assert digests["peer"] == digests["ours"], f"{folder.name} {preset}: tensors differ"
    bare = subprocess.run(
        [sys.executable, "-c", KERNELS, str(out / "model.gguf"), str(threads)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    floor = {
        "kernels_s": float(bare.stdout),
        "read_write_s": read_and_write(folder, out / "model.gguf", out / "floor.bin"),
    }
    middle = {
        who: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for who, found in runs.items()
    }
    return {
        "checkpoint": folder.name,
        "preset": preset,
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "tensors_identical": len(digests["ours"]),
        "artifact_bytes": (out / "model.gguf").stat().st_size,
        "median": middle,
        "runs": runs,
        "floor": floor,
        "ratio": {
            key: middle["ours"][key] / middle["peer"][key]
            for key in ("seconds", "cpu_seconds", "peak_memory_bytes")
        },
        "over_floor": middle["ours"]["seconds"] / max(floor.values()),
    }


def peer_commands(peer: Path, folder: Path, preset: str, out: Path) -> list[list[str]]:
    """One step for what the converter writes itself, two for the rest."""
    converter = [sys.executable, "-c", CONVERT, str(peer), str(folder)]
    if preset in ("F16", "BF16", "Q8_0"):
        return [[*converter, "--outtype", preset.lower(), "--outfile", str(out / "model.gguf")]]
    between = str(out / "between.gguf")
    return [
        [*converter, "--outtype", "bf16", "--outfile", between],
        [sys.executable, "-c", QUANTIZE, between, str(out / "model.gguf"), preset],
    ]


def our_commands(folder: Path, preset: str, out: Path) -> list[list[str]]:
    return [[sys.executable, "-c", OURS, str(folder), str(out / "model.gguf"), preset]]


def measured(commands: list[list[str]], out: Path, peer: Path) -> dict[str, float]:
    """Wall and processor seconds, peak resident memory of the largest step, and peak disk beyond
    the result."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    started = time.perf_counter()
    cpu, memory, disk = 0.0, 0, 0
    for command in commands:
        # The converter imports the gguf package of its own archive, the rest the installed one.
        path = (
            [str(peer / "gguf-py"), str(peer.parents[2] / "site")]
            if command[2] is CONVERT
            else [str(ROOT)]
        )
        child = subprocess.Popen(
            command,
            env={**environment, "PYTHONPATH": os.pathsep.join(path)},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        watch = Watch(child.pid, out)
        assert child.stderr is not None
        said = child.stderr.read()
        watch.stop()
        _, status, usage = os.wait4(child.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{command[3:]} failed:\n{said.decode(errors='replace')[-2000:]}")
        cpu += usage.ru_utime + usage.ru_stime
        memory, disk = max(memory, watch.memory), max(disk, watch.disk)
    seconds = time.perf_counter() - started
    extra = max(0, disk - (out / "model.gguf").stat().st_size)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory_bytes": memory,
        "extra_disk_bytes": extra,
    }


class Watch:
    """The most memory a process had resident and the most bytes a folder held, looked at every 10
    ms.

    Not getrusage: its maximum starts with the size of the process that forked.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder, self._ended = pid, folder, threading.Event()
        self.memory = self.disk = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        from packager.process import peak_resident_bytes

        while not self._ended.wait(0.01):
            self.memory = max(self.memory, peak_resident_bytes(self._pid))
            with suppress(FileNotFoundError):
                self.disk = max(
                    self.disk, sum(path.stat().st_size for path in self._folder.iterdir())
                )

    def stop(self) -> None:
        """No more looking."""
        self._ended.set()
        self._thread.join()


class Quiet:
    """A report that nobody reads."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """See packager.runtime.Report."""

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""

    def text(self, piece: str) -> None:
        """See packager.runtime.Report."""


def tensor_digests(path: Path) -> dict[str, str]:
    """Type and SHA-256 of every tensor."""
    import gguf

    return {
        tensor.name: f"{tensor.tensor_type.name} "
        f"{hashlib.sha256(tensor.data.tobytes()).hexdigest()}"
        for tensor in gguf.GGUFReader(path).tensors
    }


def read_and_write(folder: Path, result: Path, scratch: Path) -> float:
    """Seconds to read the checkpoint's weights and write as many bytes as the result has, flushed
    to the disk."""
    left = result.stat().st_size
    block = os.urandom(1 << 22)
    started = time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 22)
            while file.readinto(buffer):
                pass
    with scratch.open("wb", buffering=0) as file:
        while left > 0:
            left -= file.write(block[: min(left, len(block))])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    scratch.unlink()
    return seconds


def row(result: dict[str, Any]) -> str:
    ratio, median = result["ratio"], result["median"]
    return (
        f"{result['checkpoint']} {result['preset']}: {median['ours']['seconds']:.1f} s against "
        f"{median['peer']['seconds']:.1f} s "
        f"({ratio['seconds']:.2f}; processor {ratio['cpu_seconds']:.2f}), memory "
        f"{ratio['peak_memory_bytes']:.2f}, extra disk "
        f"{median['ours']['extra_disk_bytes'] / 1e6:.0f} against "
        f"{median['peer']['extra_disk_bytes'] / 1e6:.0f} MB, "
        f"{result['over_floor']:.2f} of the floor ({result['floor']['kernels_s']:.1f} / "
        f"{result['floor']['read_write_s']:.1f} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
