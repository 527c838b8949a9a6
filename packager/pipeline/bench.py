"""Measure a finished package again, on this machine, beside what its manifest says."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from packager.device.identity import CLAIMED, UNKNOWN, Here, Identity, Place, of_figures, place
from packager.engines import missing_engine
from packager.errors import NotHere, bad_input
from packager.events import Event
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.package.verify import verify
from packager.pipeline.cache import BuildCache, key_of
from packager.pipeline.run import run_alone
from packager.pipeline.stages import benchmark
from packager.report.budgets import verdicts
from packager.report.evidence import on_device
from packager.runtime import Runtime

COMPARED = (
    *(
        "load_s",
        "ttft_ms",
        "prefill_tps",
        "prefill_128_tps",
        "prefill_512_tps",
        "decode_tps",
        "decode_empty_tps",
        "decode_full_tps",
    ),
    *(
        "token_ms_median",
        "token_ms_p95",
        "token_ms_p99",
        "peak_memory_bytes",
        "proportional_memory_bytes",
    ),
)


def settings_of(found: Manifest) -> dict[str, Any]:
    """What the package's session is opened with: context (tokens), cache type, threads left to the
    engine."""
    context, kv = (found.data.get("workload") or {}).get("context"), found.data["recipe"].get("kv")
    if context is None or kv is None:
        raise bad_input(
            "The manifest has no usable workload context or cache type.", "Build the package again."
        )
    layers = (found.data.get("offload") or {}).get("gpu_layers", 0)
    return {"context": context, "kv": kv, "threads": None, "gpu_layers": layers}


def artifact_key(found: Manifest) -> str:
    """What names the package's model files on this machine: where an engine died with them, it is
    not asked again."""
    return key_of(
        [[entry.path, entry.sha256] for entry in found.files if entry.path.startswith(f"{MODEL}/")]
    )


def whole(package: Path, runtime: Runtime) -> Manifest:
    """The manifest of a package that can be run here.

    Raises PackError: exit code 2 when the engine is not installed, 6 when a file is not what the
    manifest says.
    """
    absent = missing_engine(runtime)
    if absent is not None:
        raise absent
    findings = verify(package)
    if findings:
        first = findings[0]
        raise bad_input(
            f"{package} is not what its manifest says: {first.path} {first.message}.",
            "`qwen-pack verify` lists every difference.",
        )
    return manifest.read(package)


def run(
    package: Path,
    runtime: Runtime,
    here: Here | None = None,
    claimed: bool = False,
    sustained_s: float = 0,
) -> Generator[Event, None, dict[str, Any]]:
    """Yield the events of the measurement and return its figures with their place; the package is
    not changed.

    `here` is this machine, compared with the device in the manifest; `claimed` says that it is the
    device, whatever it calls itself. With `sustained_s` it decodes for so many seconds more and
    shows whether the machine throttles. Raises NotHere where the package is made for what this
    machine does not have.
    """
    found = whole(package, runtime)
    settings = settings_of(found)
    prompt = found.data["workload"].get("prompt") or settings["context"] // 2
    job = benchmark(runtime.session, package / MODEL, settings, prompt, sustained_s)
    result = yield from run_alone(job, BuildCache().log("bench"), runtime, artifact_key(found))
    if "not_measured" in result.value:
        raise NotHere(result.value["not_measured"], result.value.get("hint", ""))
    return {
        **result.value,
        "place": _place(found.data, here, claimed, result.value.get("runs_on", "cpu")).as_dict(),
    }


def _place(data: dict[str, Any], here: Here | None, claimed: bool, runs_on: str) -> Place:
    if claimed:
        return CLAIMED
    try:
        device = Identity.from_dict(data["device"])
    except (KeyError, TypeError):
        return Place(False, "the manifest does not say what the device is")
    return UNKNOWN if here is None else of_figures(place(device, here), device, runs_on)


def judged(data: dict[str, Any], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's budgets against new figures; as they are in the manifest where those are not
    of the device."""
    rows = data.get("verdicts") or []
    return verdicts(rows, data.get("artifact_bytes") or 0, figures) if on_device(figures) else rows


def save(package: Path, figures: dict[str, Any]) -> None:
    """Add a measurement to the package's manifest, beside the ones that are there; one of the
    device judges the budgets."""
    data = dict(manifest.read(package).data)
    if data.get("verdicts"):
        data["verdicts"] = judged(data, figures)
    data["measurements"] = [*(data.get("measurements") or []), figures]
    manifest.write(package, data)


def beside(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per figure: manifest, now, and now as a multiple of the manifest."""
    rows = []
    for name in COMPARED:
        old, new = before.get(name), now.get(name)
        ratio = (
            new / old
            if isinstance(old, int | float) and isinstance(new, int | float) and old
            else None
        )
        rows.append({"figure": name, "manifest": old, "now": new, "ratio": ratio})
    return rows
