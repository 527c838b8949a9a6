"""What the server of a package is told of it: the content of its settings.json."""

from __future__ import annotations

from pathlib import Path

from packager.checkpoint.retrieval import INSTRUCTION
from packager.escapes import Safe
from packager.json_values import JsonObject, list_at, object_or_empty
from packager.measure.session_settings import settings_of, speculation_of
from packager.package import adapters
from packager.shipping.apps import snippets
from packager.shipping.shipment import Shipment


def server_settings(shipment: Shipment, own: snippets.Facts) -> JsonObject:
    """See packager.shipping.server.settings; `package` is relative to the folder of the file that
    they are written to, and what drafts to that of the package."""
    data = shipment.manifest.data
    chat = object_or_empty(data, "chat")
    profile = object_or_empty(chat, "profile")
    return {
        "name": own.name,
        "content_sha256": adapters.digest(shipment.manifest),
        "runtime": own.runtime,
        "package": f"../{snippets.FOLDER}",
        "model": own.model,
        "context": own.context,
        "kv": cache_type(shipment),
        "unit": str(unit(shipment)),
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
        "sees": own.sees and not own.audio_seconds,
        "hears": bool(own.audio_seconds),
        "audio_seconds": own.audio_seconds,
        "audio_asked": own.audio_asked,
        **_of_task(shipment, own),
    }


def _of_task(shipment: Shipment, own: snippets.Facts) -> JsonObject:
    """What vectors, scores, and answers of llama.cpp take besides."""
    if own.task != "generate":
        return {"retrieval": _retrieval(shipment)}
    if own.runtime != "llama.cpp":
        return {}
    drafting = speculation_of(shipment.manifest, Path())
    return {
        "session": {
            **settings_of(shipment.manifest),
            **({"speculation": drafting} if drafting else {}),
        }
    }


def cache_type(shipment: Shipment) -> str:
    """The type of the cache that the package was planned with."""
    return shipment.manifest.contents.recipe.kv or "f16"


def unit(shipment: Shipment) -> Safe:
    """OpenVINO's name for what the model runs on."""
    device = shipment.manifest.contents.device
    runs_on = (device.runs_on if device else None) or "cpu"
    return {"gpu": Safe("GPU"), "npu": Safe("NPU")}.get(runs_on, Safe("CPU"))


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


def drafting_flags(shipment: Shipment, package: str) -> list[str]:
    """What llama-server is told of the way of drafting that pays, for the package in that
    folder."""
    speculation = shipment.manifest.contents.speculation
    return speculation.llama_server_options(package) if speculation else []
