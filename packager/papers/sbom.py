"""sbom.cdx.json: a bill of materials after CycloneDX 1.6 with a machine-learning model in it.
Source: cyclonedx.org/docs/1.6/json.

No time and no figure of a measurement stands in it, and its number follows from its content: the
same inputs and the same versions of the tools give the same bytes.
"""

from __future__ import annotations

import json
import uuid
from urllib.parse import quote

from packager.catalog.licences import known, spdx
from packager.json_values import JsonObject, at, at_or_none, object_at, object_or_empty, objects_at
from packager.package.content import TOOLCHAIN, content
from packager.papers import words
from packager.papers.licence import address
from packager.records import Contents
from packager.records.origin import AdapterOf

_MODEL, _BASE, _ENGINE = "model", "base", "engine"
_MEDIA = {
    ".gguf": "application/octet-stream",
    ".jinja": "text/plain",
    ".json": "application/json",
    ".xml": "application/xml",
}


def document(data: JsonObject, contents: Contents) -> JsonObject:
    """The whole document."""
    body: JsonObject = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": _tools(object_or_empty(data, "tools"))},
            "component": _model(data, contents),
        },
        "components": [
            _base(data, contents),
            _engine(data),
            *(_file(row) for row in _content(data)),
        ],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [_BASE, _ENGINE, *(_ref(row) for row in _content(data))]},
            *({"ref": ref} for ref in (_BASE, _ENGINE)),
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True, ensure_ascii=False))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "serialNumber": f"urn:uuid:{number}",
        **body,
    }


def _model(data: JsonObject, contents: Contents) -> JsonObject:
    """The package's model with its card."""
    recipe, variant = contents.recipe.id, object_at(data, "variant")
    footprint = object_or_empty(object_or_empty(data, "predicted"), "footprint")
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": data["name"],
        "version": data.get("version") or data.get("content_sha256") or "0",
        "description": words.summary(contents),
        "licenses": _licences(variant),
        "pedigree": {
            "ancestors": [_identity(contents)],
            "notes": _notes(contents),
        },
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "architectureFamily": "transformer",
                "modelArchitecture": contents.variant.repo_id.rpartition("/")[2],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "considerations": {
                "users": [words.users(contents)],
                "useCases": words.uses(contents),
                "technicalLimitations": words.limits(contents),
            },
        },
        "properties": [
            {"name": f"qwen-pack:{name}", "value": str(value)}
            for name, value in {
                "recipe": recipe,
                "target": data.get("target"),
                "context": object_or_empty(data, "workload").get("context"),
                "source": contents.source.kind,
                "predicted_peak_bytes": footprint.get("peak"),
                "content_sha256": data.get("content_sha256"),
                "chat_template_sha256": data.get("chat_template_sha256"),
            }.items()
            if value is not None
        ],
    }


def _notes(contents: Contents) -> str:
    """What was done to the weights."""
    if contents.adapter is not None:
        base = contents.adapter.base
        return f"An adapter for {base.name}, whose content has the sha256 {base.content_sha256}."
    return f"{_merged(contents)}Converted and quantized: {contents.recipe.id}."


def _merged(contents: Contents) -> str:
    """The adapters that were merged, with what their weights are known by."""
    return "".join(
        f"Merged with the adapter {row.location}, scale {row.scale:g}, sha256 {_weights(row)}. "
        for row in contents.source.adapters
    )


def _weights(row: AdapterOf) -> str:
    return next(
        (str(file["sha256"]) for file in row.files if file["path"].endswith(".safetensors")), "?"
    )


def _identity(contents: Contents) -> JsonObject:
    """The model that was converted, by the name and the commit under which its publisher keeps
    it."""
    group, _, name = contents.variant.repo_id.rpartition("/")
    row = {"type": "machine-learning-model", "name": name, **({"group": group} if group else {})}
    revision = contents.variant.revision
    if contents.source.dummy:
        return {**row, "description": "Random weights in its shape, none of its real weights."}
    if revision and contents.source.kind == "modelscope":
        # No package URL has a type for it.
        return {**row, "version": revision}
    if revision:
        row |= {
            "version": revision,
            "purl": f"pkg:huggingface/{quote(group, safe='')}/{quote(name, safe='')}@{revision}",
        }
    return row


def _base(data: JsonObject, contents: Contents) -> JsonObject:
    """The checkpoint, file by file."""
    files: list[JsonObject] = [
        {
            "type": "file",
            "name": row["path"],
            "hashes": [{"alg": "SHA-256", "content": row["sha256"]}],
        }
        for row in objects_at(object_at(data, "source"), "files")
    ]
    page = None if contents.source.dummy else address(object_at(data, "variant"))
    return {
        **_identity(contents),
        "bom-ref": _BASE,
        "licenses": _licences(object_at(data, "variant")),
        **({"externalReferences": [{"type": "distribution", "url": page}]} if page else {}),
        **({"components": files} if files else {}),
    }


def _engine(data: JsonObject) -> JsonObject:
    """What runs the model; it is no part of the package."""
    runtime = object_at(data, "runtime")
    version = {"version": runtime["version"]} if runtime.get("version") else {}
    return {
        "type": "framework",
        "bom-ref": _ENGINE,
        "name": runtime["name"],
        "scope": "excluded",
        **version,
    }


def _file(row: JsonObject) -> JsonObject:
    ending = "." + at(row, "path", str).rpartition(".")[2]
    media = {"mime-type": _MEDIA[ending]} if ending in _MEDIA else {}
    return {
        "type": "file",
        "bom-ref": _ref(row),
        "name": row["path"],
        **media,
        "hashes": [{"alg": "SHA-256", "content": row["sha256"]}],
        "properties": [{"name": "qwen-pack:size", "value": str(row["size"])}],
    }


def _content(data: JsonObject) -> list[JsonObject]:
    """The files that follow from the inputs; the others are papers like this one."""
    return [row for row in objects_at(data, "files") if content(at(row, "path", str))]


def _ref(row: JsonObject) -> str:
    return f"file:{row['path']}"


def _tools(versions: JsonObject) -> list[JsonObject]:
    return [
        {
            "type": "application" if name == "qwen-pack" else "library",
            "name": name,
            "version": str(version),
        }
        for name, version in sorted(versions.items())
        if version and name not in TOOLCHAIN
    ]


def _licences(variant: JsonObject) -> list[JsonObject]:
    """The SPDX id, or name and address of a licence that SPDX does not list."""
    licence = at_or_none(variant, "license", str)
    row = known().get((licence or "").casefold())
    if row and not str(row["spdx"]).startswith("LicenseRef"):
        return [{"license": {"id": spdx(licence), "acknowledgement": "declared"}}]
    if licence is None:
        return [{"license": {"name": "not stated by any known source"}}]
    page = address(variant)
    named = {"name": row["name"] if row else licence, "acknowledgement": "declared"}
    return [{"license": {**named, "url": page} if page else named}]
