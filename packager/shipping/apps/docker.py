"""The package as the build context of a container image. The engine comes from an image that its
user names; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from packager.errors import usage
from packager.files import folder_that_appears_whole, write_atomically, write_json
from packager.shipping.apps import snippets
from packager.shipping.apps.escapes import Safe, plain
from packager.shipping.apps.layout import copy_package, write_sums
from packager.shipping.shipment import Shipment, free_place

_SERVER = Path(__file__).parent.parent / "server"
_START = b'"""Serve this package; --help says how."""\n\nfrom server.main import main\n\nmain()\n'
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}(@sha256:[0-9a-f]{64})?")
_ENGINES = {
    "llama.cpp": "llama-server, on the PATH or in /app",
    "openvino": "Python, openvino-genai and Jinja2",
    "onnxruntime": "Python, onnxruntime-genai and Jinja2",
}
_SAMPLING_FLAGS = {
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "repetition_penalty": "--repeat-penalty",
}
_DISTRIBUTIONS = {
    "llama.cpp": "llama-cpp-python",
    "openvino": "openvino-genai",
    "cuda": "onnxruntime-genai-cuda",
    "dml": "onnxruntime-genai-directml",
    "onnxruntime": "onnxruntime-genai",
}


def write(
    shipment: Shipment, out: Path, limit: int | None = None, *, base_image: str | None = None
) -> Generator[int, None, None]:
    """Write the folder `out`; yields sizes. Without `base_image` the image is named when it is
    built."""
    free_place(out)
    if base_image is not None and not _IMAGE.fullmatch(base_image):
        raise usage(
            f"{base_image!r} is no name of an image.",
            "Name it like ghcr.io/ggml-org/llama.cpp@sha256:... or registry/name:tag.",
        )
    values = facts(shipment, base_image)
    with folder_that_appears_whole(out) as folder:
        snippets.write(folder, "Dockerfile", "Dockerfile", values)
        snippets.write(folder, "README.md", "docker.md", values)
        write_atomically(
            folder / ".dockerignore", b"*\n!SHA256SUMS\n!serve.py\n!server\n!package\n"
        )
        write_sums(shipment, folder)
        if values["runtime"] != "llama.cpp":
            _write_server(shipment, folder, values)
        yield from copy_package(shipment, folder)


def _write_server(shipment: Shipment, folder: Path, values: dict[str, Any]) -> None:
    """`serve.py`, the modules that it starts, and what they are told of this package."""
    data, engine = shipment.manifest.data, values["runtime"]
    chat = data.get("chat") or {}
    profile = chat.get("profile") or {}
    (folder / "server").mkdir()
    for path in sorted(_SERVER.glob("*.py")):
        if not path.name.startswith("engine_") or path.stem == f"engine_{engine}":
            write_atomically(folder / "server" / path.name, path.read_bytes())
    write_atomically(folder / "serve.py", _START)
    settings = {
        "name": str(values["name"]),
        "runtime": engine,
        "package": f"../{snippets.FOLDER}",
        "model": values["model"],
        "context": values["context"],
        "kv": values["kv"],
        "unit": str(values["unit"]),
        "ends": chat.get("ends") or [],
        "sampling": {
            key: value for key, value in (data.get("sampling") or {}).items() if value is not None
        },
        "thinking_budget": profile.get("thinking_budget"),
        "tools": profile.get("tools") or [],
        "environment": {str(name): str(value) for name, value in values["engine_variables"]},
        "options": {str(name): str(value) for name, value in values["engine_options"]},
    }
    write_json(folder / "server" / "settings.json", settings)


def facts(shipment: Shipment, base_image: str | None) -> dict[str, Any]:
    """What the Dockerfile says."""
    values = snippets.facts(shipment)
    data = shipment.manifest.data
    engine = values["runtime"]
    profile = (data.get("chat") or {}).get("profile") or {}
    provider = data["recipe"].get("provider") or "cpu"
    distribution = _DISTRIBUTIONS.get(provider) or _DISTRIBUTIONS[engine]
    version = (data.get("tools") or {}).get(distribution)
    return {
        **values,
        "engine": Safe(_ENGINES[engine]),
        "tested": Safe(
            f"{distribution}=={plain(version)}" if isinstance(version, str) else distribution
        ),
        "base_image": Safe(base_image or ""),
        "pinned": "@sha256:" in (base_image or ""),
        "kv": data["recipe"].get("kv") or "f16",
        "sampling_flags": [
            (Safe(_SAMPLING_FLAGS[key]), Safe(f"{value:g}"))
            for key, value in (data.get("sampling") or {}).items()
            if key in _SAMPLING_FLAGS and value is not None
        ],
        "thinking_off": profile.get("thinking") == "off",
        "gpu_layers": int((data.get("offload") or {}).get("gpu_layers") or 0),
        "unit": {"gpu": Safe("GPU"), "npu": Safe("NPU")}.get(
            (data.get("device") or {}).get("runs_on") or "cpu", Safe("CPU")
        ),
    }
