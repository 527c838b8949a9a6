"""What decodes beside what in benchmarks/decode_roof.py: candidates of each runtime, the peers, and
the artifacts of one shape."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.artifacts import ROOT, finish, found, shape_of
from packager import catalog, huge_pages
from packager.checkpoint import Checkpoint
from packager.errors import no_room
from packager.shape import Shape
from packager.units import human_bytes
from targets.gguf.library import EXTRA_BUFFERS

MODELS = ("Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2.5-1.5B-Instruct", "Qwen3-1.7B")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe, and how its engine is started: `env` are variables of its process."""

    recipe: str
    how: str = ""
    env: dict[str, str] = field(default_factory=dict)
    small: bool = False
    """Whether its memory stays in small pages, which changes no number."""

    @property
    def numerics(self) -> str:
        """Its name where only what it answers counts."""
        return f"{self.recipe}, {self.how}" if self.how else self.recipe

    @property
    def label(self) -> str:
        """Its name in the results."""
        return f"{self.numerics}, small pages" if self.small else self.numerics

    def variables(self) -> dict[str, str]:
        """Of its process."""
        return {**self.env, **({huge_pages.VARIABLE: "0"} if self.small else {})}

    def settings(self) -> dict[str, Any]:
        """Of its session."""
        kv = found(self.recipe)[1].kv
        return {"context": CONTEXT, "kv": kv, "threads": None}


CANDIDATES = {
    "gguf": (
        Candidate("gguf:Q4_K_M"),
        Candidate("gguf:Q4_K_M/kv_q8_0"),
        Candidate("gguf:Q4_K_M", "not repacked", env={EXTRA_BUFFERS: "0"}),
    ),
    "openvino": (
        Candidate("openvino:int4_sym_g128"),
        Candidate("openvino:int4_asym_g64_head4"),
    ),
    "onnx": (
        Candidate("onnx:int4_sym_b32"),
        Candidate("onnx:int4_sym_b128_mixed"),
    ),
}
PEERS = {
    "gguf": "llama-bench, Q4_K_M",
    "openvino": "optimum, int4, openvino_genai.LLMPipeline",
    "onnx": "ONNX Runtime GenAI's builder, int4",
}
UNQUANTIZED = "gguf:F16"
PROMPT, NEW_TOKENS, CONTEXT = 256, 64, 1024
TINY = "tiny-qwen3"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one shape's artifacts are."""

    name: str
    scratch: Path
    tiny: bool

    @property
    def folder(self) -> Path:
        """Of this shape."""
        return self.scratch / self.name

    @property
    def log(self) -> Path:
        """Of the jobs."""
        return self.folder / "log"

    @property
    def truth(self) -> Path:
        """What the unquantized model expects."""
        return self.folder / "unquantized.npy"

    def shape(self) -> Shape:
        """Of the model."""
        return Checkpoint.open(self.checkpoint()).shape if self.tiny else shape_of(self.name)

    def checkpoint(self) -> Path:
        """The checkpoint that everything is made of; written where it is not there."""
        if self.tiny:
            return ROOT / "tests" / "models" / TINY
        place = self.folder / "checkpoint"
        if not place.is_dir():
            variant = catalog.find(self.name)
            shape = asdict(shape_of(self.name))
            job = "packager.sources.dummy:fetch"
            finish(job, self.log, repo_id=variant.repo_id, shape=shape, out=str(place))
        return place

    def made(self, recipe_id: str) -> Path:
        """Our artifact; recipes that differ in the cache share it. Raises PackError (no room) where
        the memory that is free is less than the conversion takes."""
        place = self.folder / recipe_id.partition("/")[0].replace(":", "-")
        if not place.is_dir():
            runtime, recipe = found(recipe_id)
            self.require(runtime.build_needs(self.shape(), recipe).memory)
            half = self.folder / f".{place.name}"
            shutil.rmtree(half, ignore_errors=True)
            order: dict[str, Any] = {
                "checkpoint": str(self.checkpoint()),
                "recipe": asdict(recipe),
                "out": str(half),
            }
            finish(runtime.build_job, self.log, workload={"context": CONTEXT}, **order)
            half.replace(place)
            print(f"{self.name} {place.name}: built", flush=True)
        return place

    def require(self, needed: int) -> None:
        """Raises PackError (no room) where less memory is free: whatever else runs here would be
        ended."""
        free = psutil.virtual_memory().available
        if free < needed:
            raise no_room(
                f"A conversion of {self.name} takes {human_bytes(needed)} of memory, and "
                f"{human_bytes(free)} are free.",
                "Run it again when nothing else runs.",
            )

    def peers(self, runtime: str) -> Path:
        """What the peer's own tool makes of the checkpoint with its own settings."""
        if runtime == "gguf":
            return self.made("gguf:Q4_K_M")
        place = self.folder / f"peer-{runtime}"
        if place.is_dir():
            return place
        # It holds what our own conversion of the same runtime holds, or more.
        engine, recipe = found(CANDIDATES[runtime][0].recipe)
        self.require(engine.build_needs(self.shape(), recipe).memory)
        half = self.folder / f".{place.name}"
        shutil.rmtree(half, ignore_errors=True)
        source = str(self.checkpoint())
        export = "optimum.commands.optimum_cli export openvino --task text-generation-with-past"
        build = "onnxruntime_genai.models.builder -m peer -p int4 -e cpu"
        cache = str(self.folder / "peer-cache")
        order = {
            "openvino": [*export.split(), "--weight-format", "int4", "--model", source, str(half)],
            "onnx": [*build.split(), "-i", source, "-o", str(half), "-c", cache],
        }[runtime]
        with (self.folder / f"peer-{runtime}.log").open("wb") as log:
            subprocess.run([sys.executable, "-m", *order], check=True, stdout=log, stderr=log)
        shutil.rmtree(self.folder / "peer-cache", ignore_errors=True)
        half.replace(place)
        print(f"{self.name} {place.name}: built", flush=True)
        return place


def candidates(place: Place, runtime: str) -> list[Candidate]:
    """Those of a runtime that can be built in this shape."""
    shape = place.shape()
    rows = []
    for one in CANDIDATES[runtime]:
        engine, recipe = found(one.recipe)
        if engine.obstacle(shape, recipe) is None:
            rows.append(one)
    return rows
