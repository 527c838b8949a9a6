"""Prepared packages for pictures of the screens: what a manifest may say, written by hand."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from packager.events import Event, StageProgress
from packager.package.manifest import FileEntry, Manifest
from packager.package.package import Package
from packager.records.measurement import Measurement
from packager.shipping.export import Exported
from tests.support.contents import contents_of
from tui.leaving import Order

HOME = Path("/home/me/packages")
_GB, _MB = 10**9, 10**6


def changed(package: Package, **fields: Any) -> Package:
    """The same package, with other values of its manifest."""
    data = {**package.manifest.data, **fields}
    return replace(
        package, manifest=replace(package.manifest, data=data, contents=contents_of(data))
    )


def measured_on_the_shelf() -> Measurement:
    """The figures of the slower package."""
    measured = SHELF[1].contents.measured
    assert measured is not None
    return measured


def package(
    name: str = "qwen3-0.6b-openvino-int4_sym_g128",
    *,
    recipe: str = "openvino:int4_sym_g128",
    scale: float = 1.0,
    tokens: bool = True,
    license: str = "apache-2.0",
    source: str = "local",
) -> Package:
    """A finished package; `scale` makes it larger and slower."""
    limit = {
        "rule": "decode",
        "limit": 6.0,
        "measured": 91.2 / scale,
        "unit": "tok/s",
        "passed": 91.2 / scale >= 6,
        "enforced": False,
    }
    data: dict[str, Any] = {
        "name": name,
        "created": "2026-01-02T03:04:05+00:00",
        "target": "laptop-cpu",
        "workload": {"use_case": "chat", "context": 4096},
        "variant": {"repo_id": "local/qwen", "license": license},
        "source": {"kind": source},
        "recipe": {"id": recipe, "kv": "u8"},
        "runtime": {
            "name": "openvino" if recipe.startswith("openvino") else "llama.cpp",
            "version": "1.0",
        },
        "artifact_bytes": round(392 * _MB * scale),
        "predicted": {
            "artifact_bytes": round(394 * _MB * scale),
            "footprint": {"peak": round(1.31 * _GB * scale)},
            "forecast": {
                "decode_tps": 95.4 / scale,
                "prefill_tps": 410.0 / scale,
                "ttft_ms": 1300.0 * scale,
            },
        },
        "measured": {
            "prompt_tokens": 512,
            "decode_tps": 91.2 / scale,
            "prefill_tps": 402.5 / scale,
            "ttft_ms": 1272.0 * scale,
            "token_ms_median": 10.9 * scale,
            "token_ms_p95": 12.4 * scale,
            "token_ms_p99": 13.7 * scale,
            "decode_full_tps": 84.6 / scale,
            "full_context_tokens": 3968,
            "load_s": 1.4 * scale,
            "peak_memory_bytes": round(1.27 * _GB * scale),
            "steady_memory_bytes": round(1.1 * _GB * scale),
            "measured_at": "2026-01-02T03:04:05+00:00",
            "machine": {"processor": "a processor"},
            "noisy": False,
            **(
                {
                    "token_ms": [
                        [10.9 * scale + (index * step) % 7 * 0.3 for index in range(63)]
                        for step in (1, 3, 5)
                    ]
                }
                if tokens
                else {}
            ),
        },
        "verdicts": [
            {
                "rule": "memory",
                "limit": 12 * _GB,
                "measured": round(1.27 * _GB * scale),
                "unit": "B",
                "passed": 1.27 * scale <= 12,
                "enforced": True,
            },
            limit,
        ],
        "quality": None,
    }
    rows = [
        ("model/openvino_model.bin", 391 * _MB),
        ("model/openvino_model.xml", 1_400_000),
        ("README.md", 1543),
        ("LICENSE", 11343),
    ]
    files = tuple(
        FileEntry(path, size, f"{number:x}" * 64) for number, (path, size) in enumerate(rows, 10)
    )
    return Package(HOME / name, Manifest(data, files, contents_of(data)))


SHELF = (
    package(),
    package("qwen3-1.7b-gguf-q4_k_m", recipe="gguf:Q4_K_M", scale=2.6),
    package("qwen3-14b-gguf-q4_k_m", recipe="gguf:Q4_K_M", scale=18.0, tokens=False),
)


def tried() -> Package:
    """A package with all the evidence there can be."""
    one = package()
    failures = {"wrong_answer": 3, "lost_fact": 2, "format": 1, "tool_misuse": 0, "wrong_stop": 0}
    found = {"passed": 32, "total": 38, "failures": failures}
    measured = {
        **one.manifest.data["measured"],
        "noisy": True,
        "place": {"on_device": False, "why": "this is no laptop"},
    }
    return changed(one, behaviour=found, measured=measured)


def embedder() -> Package:
    """A package that makes vectors."""
    vectors = {"task": "embed", "pooling": "last", "normalized": True, "hidden": 1024}
    measured = {
        "task": "embed",
        "prompt_tokens": 512,
        "ttft_ms": 812.0,
        "documents_128_dps": 6.1,
        "documents_512_dps": 1.4,
        "query_ms": 71.0,
        "query_ms_p95": 78.0,
        "load_s": 0.9,
        "peak_memory_bytes": 880 * _MB,
        "measured_at": "2026-01-02T03:04:05+00:00",
        "machine": {"processor": "a processor"},
    }
    one = package("qwen3-embedding-0.6b-gguf-q8_0", recipe="gguf:Q8_0")
    chosen = {"repo_id": "Qwen/Qwen3-Embedding-0.6B", "license": "apache-2.0"}
    return changed(
        one,
        variant=chosen,
        workload={"use_case": "embed", "context": 2048},
        retrieval={**vectors, "dimension": 512},
        measured=measured,
        verdicts=one.manifest.data["verdicts"][:1],
    )


def own_model() -> Package:
    """A fine-tune with an adapter, and with its behaviour fixed."""
    profile = {"thinking": "off", "system_prompt": "Be brief.", "sampling": {"temperature": 0.7}}
    adapters = [{"location": "style", "scale": 0.5, "files": []}]
    source = {"kind": "local", "location": "mine", "adapters": adapters}
    return changed(package("mine-lora-gguf-q4_k_m"), source=source, chat={"profile": profile})


def exporting(order: Order) -> Generator[Event, None, Exported]:
    """An export that takes for ever after its first bytes; it ends when the screen closes it."""
    yield StageProgress("export", 240 * _MB, 393 * _MB)
    waiting = threading.Event()
    while not waiting.wait(0.01):
        yield StageProgress("export", 240 * _MB, 393 * _MB)
    raise AssertionError


def exported(order: Order) -> Generator[Event, None, Exported]:
    """An export that is done at once."""
    yield StageProgress("export", 393 * _MB, 393 * _MB)
    return Exported(order.out, order.format, 5, 393 * _MB)
