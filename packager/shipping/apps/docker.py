"""The package as the build context of a container image. The engine comes from an image that its
user names; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from pathlib import Path

from packager.errors import usage
from packager.escapes import Safe, plain
from packager.files import folder_that_appears_whole, write_atomically
from packager.shipping.added import Added
from packager.shipping.apps import serving, snippets
from packager.shipping.apps.layout import copy_added, copy_package, write_sums
from packager.shipping.apps.server_settings import cache_type, drafting_flags, unit
from packager.shipping.shipment import Shipment, free_place

_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}(@sha256:[0-9a-f]{64})?")
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
    shipment: Shipment,
    out: Path,
    limit: int | None = None,
    *,
    base_image: str | None = None,
    added: Sequence[Added] = (),
) -> Generator[int, None, None]:
    """Write the folder `out`; yields sizes. Without `base_image` the image is named when it is
    built. Of the adapters in `added` a request chooses one, or none."""
    free_place(out)
    if base_image is not None and not _IMAGE.fullmatch(base_image):
        raise usage(
            f"{base_image!r} is not a valid image name.",
            "Name it like ghcr.io/ggml-org/llama.cpp@sha256:... or registry/name:tag.",
        )
    own = snippets.facts(shipment)
    rows = [(Safe(row.name), row.path) for row in added]
    values = {**own.values(), **_facts(shipment, own, base_image, added), "added": rows}
    with folder_that_appears_whole(out) as folder:
        snippets.write(folder, "Dockerfile", "Dockerfile", values)
        snippets.write(folder, "README.md", "docker.md", values)
        write_atomically(
            folder / ".dockerignore", b"*\n!SHA256SUMS\n!serve.py\n!server\n!package\n!adapters\n"
        )
        write_sums(shipment, folder, added)
        if values["serves"]:
            serving.write_one(shipment, own, folder, added)
        yield from copy_package(shipment, folder)
        yield from copy_added(added, shipment, folder)
        _let_anybody_read(folder)


def _let_anybody_read(folder: Path) -> None:
    """An image keeps the modes of what is copied into it, and its server runs as nobody: whatever
    the umask takes away here, it must read."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _engine(own: snippets.Facts) -> str:
    if own.task != "generate" and own.runtime in _RETRIEVE:
        return _RETRIEVE[own.runtime]
    return _ENGINES[own.runtime]


def _facts(
    shipment: Shipment, own: snippets.Facts, base_image: str | None, added: Sequence[Added]
) -> snippets.Values:
    """What the Dockerfile says beside what every template may."""
    contents = shipment.manifest.contents
    profile = contents.chat.profile if contents.chat else None
    distribution = (
        _DISTRIBUTIONS.get(contents.recipe.provider or "cpu") or _DISTRIBUTIONS[own.runtime]
    )
    if contents.task != "generate" and own.runtime == "onnxruntime":
        distribution = "onnxruntime"
    version = contents.tools.get(distribution)
    # Adapters of llama.cpp are chosen by llama-server alone.
    serves = serving.has_module(own) and not (added and own.runtime == "llama.cpp")
    return {
        "engine": Safe(_engine(own)),
        "tested": Safe(
            f"{distribution}=={plain(version)}" if isinstance(version, str) else distribution
        ),
        "base_image": Safe(base_image or ""),
        "pinned": "@sha256:" in (base_image or ""),
        "kv": cache_type(shipment),
        "sampling_flags": [
            (Safe(_SAMPLING_FLAGS[key]), Safe(f"{value:g}"))
            for key, value in (contents.sampling or {}).items()
            if key in _SAMPLING_FLAGS
        ],
        "drafting_flags": drafting_flags(shipment, f"/opt/qwen-pack/{snippets.FOLDER}"),
        "thinking_off": profile is not None and profile.thinking == "off",
        "gpu_layers": (contents.offload.gpu_layers if contents.offload else None) or 0,
        "unit": unit(shipment),
        "serves": serves,
        "installs": Safe(" ".join(serving.installed(own)[1:]) if serves else ""),
    }
