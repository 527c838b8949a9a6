"""A package as an OCI artifact after CNCF ModelPack; one GGUF stands under a Docker and an Ollama
manifest as well.

Sources: github.com/modelpack/model-spec@d78bf32 (docs/spec.md, schema/config-schema.json,
specs-go/v1), the OCI image specification 1.1 (image-layout.md, manifest.md). Weights are raw
layers, so a blob is the file that the engine maps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.catalog.licences import spdx
from packager.files import folder_that_appears_whole, let_all_read
from packager.json_values import JsonDict, JsonObject, object_at, object_or_empty
from packager.package.manifest import FileEntry
from packager.shipping.apps import ollama
from packager.shipping.shipment import Shipment, free_place

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MODEL_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"

_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
_WEIGHT_ENDINGS = (".gguf", ".bin", ".onnx", ".data", ".safetensors")
_FORMATS = {"llama.cpp": "gguf", "openvino": "openvino", "onnxruntime": "onnx"}


@dataclass(frozen=True, slots=True)
class Blob:
    """What a digest stands for: bytes of ours, or a file of the package."""

    media_type: str
    digest: str
    size: int
    data: bytes | None = None
    entry: FileEntry | None = None

    def descriptor(self, **annotations: str) -> JsonObject:
        """The OCI descriptor."""
        row: JsonDict = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        return {**row, "annotations": annotations} if annotations else row


@dataclass(frozen=True, slots=True)
class Image:
    """One manifest with everything that it points to; `suffix` ends the tag under which it is
    pushed."""

    suffix: str
    manifest: Blob
    blobs: tuple[Blob, ...]


def images(shipment: Shipment) -> list[Image]:
    """The ModelPack image, and for a package of one GGUF the Docker and the Ollama image over the
    same blob.

    There is no image for Ollama where its language cannot say the chat template: see
    `ollama.refusal`.
    """
    collected = [_model_pack(shipment)]
    gguf = _one_gguf(shipment)
    if gguf is not None:
        collected.append(_docker(shipment, gguf))
        if ollama.refusal(shipment) is None:
            collected.append(_ollama(shipment, gguf))
    return collected


def _one_gguf(shipment: Shipment) -> FileEntry | None:
    """The text model where it is one GGUF, alone or beside a vision tower; else None. An adapter is
    no model."""
    if shipment.manifest.contents.adapter is not None:
        return None
    texts = [entry for entry in shipment.model_files() if not entry.role]
    return texts[0] if len(texts) == 1 and texts[0].path.endswith(".gguf") else None


def without_ollama(shipment: Shipment) -> str | None:
    """Why a package of one GGUF has no image for Ollama, as a sentence; None where it has one, or
    is none."""
    return ollama.refusal(shipment) if _one_gguf(shipment) is not None else None


def write_layout(
    shipment: Shipment, out: Path, limit: int | None = None
) -> Generator[int, None, None]:
    """Write an OCI image layout into the new folder `out`: oci-layout, index.json,
    blobs/sha256/...; yields sizes."""
    free_place(out)
    with folder_that_appears_whole(out) as folder:
        store = folder / "blobs" / "sha256"
        store.mkdir(parents=True)
        index = []
        for image in images(shipment):
            for blob in (*image.blobs, image.manifest):
                file = store / blob.digest.removeprefix("sha256:")
                if not file.exists():
                    yield from _write(shipment, blob, file)
            index.append(image.manifest.descriptor(**{REF_NAME: f"latest{image.suffix}"}))
        (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
        (folder / "index.json").write_bytes(
            _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": index})
        )


def _write(shipment: Shipment, blob: Blob, place: Path) -> Generator[int, None, None]:
    with place.open("xb") as file:
        for chunk in [blob.data] if blob.data is not None else shipment.chunks(_entry(blob)):
            file.write(chunk)
            yield len(chunk)
        file.flush()
        os.fsync(file.fileno())
        let_all_read(file)


def _entry(blob: Blob) -> FileEntry:
    assert blob.entry is not None
    return blob.entry


def _model_pack(shipment: Shipment) -> Image:
    data = shipment.manifest.data
    layers = [_layer(entry) for entry in sorted(shipment.files, key=_order)]
    variant, recipe = shipment.manifest.contents.variant, shipment.manifest.contents.recipe
    engine = shipment.manifest.contents.runtime.name
    descriptor = {
        "createdAt": data.get("created"),
        "family": "qwen",
        "name": shipment.name,
        "sourceURL": variant.repo_id,
        "revision": variant.revision,
        "vendor": "Qwen",
        "licenses": [spdx(variant.license)],
        "title": variant.repo_id.rpartition("/")[2],
        "description": shipment.manifest.contents.why.sentence
        if shipment.manifest.contents.why
        else None,
    }
    config: JsonObject = {
        "descriptor": {key: value for key, value in descriptor.items() if value},
        "config": {
            "format": _FORMATS.get(engine, engine),
            "quantization": recipe.id.partition(":")[2],
            "capabilities": {"inputTypes": _inputs(shipment), "outputTypes": ["text"]},
        },
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }
    blob = _own(MODEL_CONFIG, config)
    body: JsonObject = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": MODEL_MANIFEST,
        "config": blob.descriptor(),
        "layers": [
            layer.descriptor(**{FILEPATH: _entry(layer).path, TITLE: _entry(layer).path})
            for layer in layers
        ],
        "annotations": _annotations(data),
    }
    return Image("", _own(IMAGE_MANIFEST, body), (blob, *layers))


def _inputs(shipment: Shipment) -> list[str]:
    """What comes in, in ModelPack's words. Source: github.com/modelpack/model-spec, docs/config.md,
    which knows text, image and audio."""
    other = {"vision": "image", "audio": "audio"}.get(shipment.manifest.contents.modality)
    return ["text", *([other] if other else [])]


def _annotations(data: JsonObject) -> dict[str, str]:
    """What a registry shows without fetching a layer: memory and speed, where they were measured or
    predicted."""
    rows = {
        "dev.qwen-pack.recipe": object_at(data, "recipe").get("id"),
        "dev.qwen-pack.context": object_or_empty(data, "workload").get("context"),
        "dev.qwen-pack.target": data.get("target"),
        "dev.qwen-pack.predicted.peak_bytes": object_or_empty(
            object_or_empty(data, "predicted"), "footprint"
        ).get("peak"),
    }
    measured = object_or_empty(data, "measured")
    for key in ("peak_memory_bytes", "decode_tps", "ttft_ms"):
        rows[f"dev.qwen-pack.measured.{key}"] = measured.get(key)
    return {key: str(value) for key, value in rows.items() if value is not None}


def _docker(shipment: Shipment, gguf: FileEntry) -> Image:
    """Docker's model artifact. Source: github.com/docker/model-spec, config.md."""
    data = shipment.manifest.data
    layers = [_file(gguf, "application/vnd.docker.ai.gguf.v3")]
    if shipment.projector is not None:
        layers.append(_file(shipment.projector, "application/vnd.docker.ai.mmproj"))
    layers += [
        _file(entry, "application/vnd.docker.ai.license")
        for entry in shipment.files
        if entry.path == "LICENSE"
    ]
    layers += [
        _file(entry, "application/vnd.docker.ai.chat.template.jinja")
        for entry in shipment.files
        if entry.path == "chat_template.jinja"
    ]
    config: JsonDict = {
        "config": {
            "format": "gguf",
            "quantization": shipment.manifest.contents.recipe.id.partition(":")[2],
            "size": str(gguf.size),
        },
        "descriptor": {"created": data["created"]} if data.get("created") else {},
        "rootfs": {"type": "rootfs", "diff_ids": [layer.digest for layer in layers]},
    }
    blob = _own("application/vnd.docker.ai.model.config.v0.1+json", config)
    body: JsonObject = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": blob.descriptor(),
        "layers": [layer.descriptor(**{FILEPATH: _entry(layer).path}) for layer in layers],
    }
    return Image("-docker", _own(IMAGE_MANIFEST, body), (blob, *layers))


def _ollama(shipment: Shipment, gguf: FileEntry) -> Image:
    """Ollama's layers. Source: github.com/ollama/ollama, server/images.go and manifest/."""
    layers = [_file(gguf, "application/vnd.ollama.image.model")]
    if shipment.projector is not None:
        layers.append(_file(shipment.projector, "application/vnd.ollama.image.projector"))
    chat = ollama.chat(shipment)
    stop = list(chat.stops) if chat else []
    if chat:
        layers.append(_own_bytes("application/vnd.ollama.image.template", chat.template.encode()))
    if "LICENSE" in {entry.path for entry in shipment.files}:
        layers.append(_file(shipment.entry("LICENSE"), "application/vnd.ollama.image.license"))
    layers.append(
        _own(
            "application/vnd.ollama.image.params",
            {**ollama.parameters(shipment), **({"stop": stop} if stop else {})},
        )
    )
    config: JsonObject = {
        "model_format": "gguf",
        "file_type": shipment.manifest.contents.recipe.id.partition(":")[2],
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    blob = _own("application/vnd.docker.container.image.v1+json", config)
    body: JsonObject = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": blob.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Image("-ollama", _own(DOCKER_MANIFEST, body), (blob, *layers))


def _order(entry: FileEntry) -> tuple[int, int, str]:
    """Weights first, the largest of them in front except for shards, which follow their numbers;
    papers last."""
    kind = [_WEIGHT, _WEIGHT_CONFIG, _DOC].index(_media_type(entry.path))
    return kind, 0 if "-of-" in entry.path else -entry.size, entry.path


def _media_type(path: str) -> str:
    if not path.startswith("model/"):
        return _DOC
    return _WEIGHT if path.endswith(_WEIGHT_ENDINGS) else _WEIGHT_CONFIG


def _layer(entry: FileEntry) -> Blob:
    return _file(entry, _media_type(entry.path))


def _file(entry: FileEntry, media_type: str) -> Blob:
    return Blob(media_type, f"sha256:{entry.sha256}", entry.size, entry=entry)


def _own(media_type: str, value: JsonObject) -> Blob:
    return _own_bytes(media_type, _json(value))


def _own_bytes(media_type: str, data: bytes) -> Blob:
    return Blob(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), data=data)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


__all__ = [
    "DOCKER_MANIFEST",
    "FILEPATH",
    "IMAGE_MANIFEST",
    "MODEL_CONFIG",
    "MODEL_MANIFEST",
    "Blob",
    "Image",
    "images",
    "write_layout",
]
