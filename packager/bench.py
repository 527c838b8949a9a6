"""Measure a finished package again, on this machine, beside what its manifest says."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from packager import manifest
from packager.cache import BuildCache
from packager.errors import bad_input
from packager.events import Event
from packager.manifest import Manifest
from packager.package import MODEL
from packager.pipeline import run_alone
from packager.plan import missing_engine
from packager.runtime import Runtime
from packager.stages import benchmark
from packager.verify import verify

COMPARED = (
    *("load_s", "ttft_ms", "prefill_tps", "prefill_128_tps", "prefill_512_tps", "decode_tps", "decode_empty_tps", "decode_full_tps"),
    *("token_ms_median", "token_ms_p95", "token_ms_p99", "peak_memory_bytes", "proportional_memory_bytes"),
)


def settings_of(found: Manifest) -> dict[str, Any]:
    """What the package's session is opened with: context (tokens), cache type, threads left to the engine."""
    context, kv = (found.data.get("workload") or {}).get("context"), found.data["recipe"].get("kv")
    if context is None or kv is None:
        raise bad_input("The manifest has no usable workload context or cache type.", "Build the package again.")
    return {"context": context, "kv": kv, "threads": None}


def whole(package: Path, runtime: Runtime) -> Manifest:
    """The manifest of a package that can be run here.

    Raises PackError: exit code 2 when the engine is not installed, 6 when a file is not what the manifest says.
    """
    absent = missing_engine(runtime)
    if absent is not None:
        raise absent
    findings = verify(package)
    if findings:
        first = findings[0]
        raise bad_input(
            f"{package} is not what its manifest says: {first.path} {first.message}.", "`qwen-pack verify` lists every difference."
        )
    return manifest.read(package)


def run(package: Path, runtime: Runtime, sustained_s: float = 0) -> Generator[Event, None, dict[str, Any]]:
    """Yield the events of the measurement and return its figures; the package is not changed.

    With `sustained_s` it decodes for so many seconds more and shows whether the machine throttles.
    """
    found = whole(package, runtime)
    settings = settings_of(found)
    prompt = found.data["workload"].get("prompt") or settings["context"] // 2
    job = benchmark(runtime.session, package / MODEL, settings, prompt, sustained_s)
    result = yield from run_alone(job, BuildCache().log("bench"))
    return result.value


def save(package: Path, figures: dict[str, Any]) -> None:
    """Add a measurement to the package's manifest, beside the ones that are there."""
    data = dict(manifest.read(package).data)
    data["measurements"] = [*(data.get("measurements") or []), figures]
    manifest.write(package, data)


def beside(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per figure: manifest, now, and now as a multiple of the manifest."""
    rows = []
    for name in COMPARED:
        old, new = before.get(name), now.get(name)
        ratio = new / old if isinstance(old, int | float) and isinstance(new, int | float) and old else None
        rows.append({"figure": name, "manifest": old, "now": new, "ratio": ratio})
    return rows
