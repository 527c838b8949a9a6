"""The package as the build context of a container image. The engine comes from an image that its
user names; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

from packager.checkpoint import sandbox
from packager.checkpoint.retrieval import INSTRUCTION
from packager.errors import usage
from packager.escapes import Safe, plain
from packager.files import folder_that_appears_whole, write_atomically, write_json
from packager.json_values import JsonObject, list_at, object_or_empty
from packager.shipping.apps import snippets
from packager.shipping.apps.layout import copy_package, write_sums
from packager.shipping.shipment import Shipment, free_place

_SERVER = Path(__file__).parent.parent / "server"
_START = b'"""Serve this package; --help says how."""\n\nfrom server.main import main\n\nmain()\n'
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}(@sha256:[0-9a-f]{64})?")
_KINDS = ("engine_", "vectors_")
"""How modules begin of which a package takes one: those that know an engine."""
_ENGINES = {
    "llama.cpp": "llama-server, on the PATH or in /app",
    "openvino": "Python, openvino-genai and Jinja2",
    "onnxruntime": "Python, onnxruntime-genai and Jinja2",
}
_RETRIEVE = {
    "openvino": "Python and openvino-genai",
    "onnxruntime": "Python, onnxruntime, tokenizers and NumPy",
}
"""What the image has for vectors and scores, where that is something else."""
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
            f"{base_image!r} is not a valid image name.",
            "Name it like ghcr.io/ggml-org/llama.cpp@sha256:... or registry/name:tag.",
        )
    own = snippets.facts(shipment)
    values = {**own.values(), **_facts(shipment, own, base_image)}
    with folder_that_appears_whole(out) as folder:
        snippets.write(folder, "Dockerfile", "Dockerfile", values)
        snippets.write(folder, "README.md", "docker.md", values)
        write_atomically(
            folder / ".dockerignore", b"*\n!SHA256SUMS\n!serve.py\n!server\n!package\n"
        )
        write_sums(shipment, folder)
        if own.runtime != "llama.cpp":
            _write_server(shipment, folder, own)
        yield from copy_package(shipment, folder)


def _write_server(shipment: Shipment, folder: Path, own: snippets.Facts) -> None:
    """`serve.py`, the modules that it starts, and what they are told of this package."""
    data = shipment.manifest.data
    chat = object_or_empty(data, "chat")
    profile = object_or_empty(chat, "profile")
    (folder / "server").mkdir()
    kind = "engine" if own.task == "generate" else "vectors"
    for path in (*sorted(_SERVER.glob("*.py")), Path(sandbox.__file__)):
        if not path.name.startswith(_KINDS) or path.stem == f"{kind}_{own.runtime}":
            write_atomically(folder / "server" / path.name, path.read_bytes())
    write_atomically(folder / "serve.py", _START)
    settings = {
        "name": own.name,
        "runtime": own.runtime,
        "package": f"../{snippets.FOLDER}",
        "model": own.model,
        "context": own.context,
        "kv": _kv(shipment),
        "unit": str(_unit(shipment)),
        "ends": list_at(chat, "ends"),
        "sampling": {
            key: value
            for key, value in object_or_empty(data, "sampling").items()
            if value is not None
        },
        "thinking_budget": profile.get("thinking_budget"),
        "tools": list_at(profile, "tools"),
        "environment": {str(name): str(value) for name, value in own.engine.variables},
        "options": {str(name): str(value) for name, value in own.engine.options},
        **({} if own.task == "generate" else {"retrieval": _retrieval(shipment)}),
    }
    write_json(folder / "server" / "settings.json", settings)


def _retrieval(shipment: Shipment) -> JsonObject:
    """How the server makes vectors or scores."""
    known = shipment.manifest.contents.retrieval
    assert known is not None
    return {
        "task": known.task,
        "hidden": known.hidden or 0,
        "dimension": known.dimension,
        "prompt": known.prompt or "",
        "instruction": INSTRUCTION,
    }


def _kv(shipment: Shipment) -> str:
    return shipment.manifest.contents.recipe.kv or "f16"


def _unit(shipment: Shipment) -> Safe:
    """OpenVINO's name for what the model runs on."""
    device = shipment.manifest.contents.device
    runs_on = (device.runs_on if device else None) or "cpu"
    return {"gpu": Safe("GPU"), "npu": Safe("NPU")}.get(runs_on, Safe("CPU"))


def _engine(own: snippets.Facts) -> str:
    if own.task != "generate" and own.runtime in _RETRIEVE:
        return _RETRIEVE[own.runtime]
    return _ENGINES[own.runtime]


def _facts(shipment: Shipment, own: snippets.Facts, base_image: str | None) -> snippets.Values:
    """What the Dockerfile says beside what every template may."""
    contents = shipment.manifest.contents
    profile = contents.chat.profile if contents.chat else None
    distribution = (
        _DISTRIBUTIONS.get(contents.recipe.provider or "cpu") or _DISTRIBUTIONS[own.runtime]
    )
    if contents.task != "generate" and own.runtime == "onnxruntime":
        distribution = "onnxruntime"
    version = contents.tools.get(distribution)
    return {
        "engine": Safe(_engine(own)),
        "tested": Safe(
            f"{distribution}=={plain(version)}" if isinstance(version, str) else distribution
        ),
        "base_image": Safe(base_image or ""),
        "pinned": "@sha256:" in (base_image or ""),
        "kv": _kv(shipment),
        "sampling_flags": [
            (Safe(_SAMPLING_FLAGS[key]), Safe(f"{value:g}"))
            for key, value in (contents.sampling or {}).items()
            if key in _SAMPLING_FLAGS
        ],
        "thinking_off": profile is not None and profile.thinking == "off",
        "gpu_layers": (contents.offload.gpu_layers if contents.offload else None) or 0,
        "unit": _unit(shipment),
    }
