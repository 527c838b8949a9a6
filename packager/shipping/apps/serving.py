"""`serve.py` of exports: the modules that answer over OpenAI's protocol, and what they know of a
package."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from packager.checkpoint.retrieval import INSTRUCTION
from packager.escapes import Safe
from packager.files import write_atomically, write_json
from packager.json_values import JsonObject, list_at, object_or_empty
from packager.shipping.apps import snippets
from packager.shipping.shipment import Shipment

SERVER = Path(__file__).parent.parent / "server"
START = b'"""Serve this package; --help says how."""\n\nfrom server.main import main\n\nmain()\n'
_KINDS = ("engine_", "vectors_")
"""How modules begin of which a package takes one: those that know an engine."""


def module_of(own: snippets.Facts) -> str:
    """The module that knows the engine of a package."""
    kind = "engine" if own.task == "generate" else "vectors"
    return f"{kind}_{own.runtime.replace('.', '_')}"


def has_module(own: snippets.Facts) -> bool:
    """Whether there is a module for the engine and task of a package."""
    return (SERVER / f"{module_of(own)}.py").is_file()


def write_modules(folder: Path, engines: Collection[str]) -> None:
    """The modules into the new folder, of those that know an engine only these."""
    folder.mkdir()
    for path in sorted(SERVER.glob("*.py")):
        if not path.name.startswith(_KINDS) or path.stem in engines:
            write_atomically(folder / path.name, path.read_bytes())


def write_settings(shipment: Shipment, own: snippets.Facts, file: Path, package: str) -> None:
    """What the modules are told of a package, whose folder is `package` from that of the file."""
    data = shipment.manifest.data
    chat = object_or_empty(data, "chat")
    profile = object_or_empty(chat, "profile")
    settings = {
        "name": own.name,
        "runtime": own.runtime,
        "package": package,
        "model": own.model,
        "context": own.context,
        "kv": shipment.manifest.contents.recipe.kv or "f16",
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
        "options": _options(shipment, own),
        **({} if own.task == "generate" else {"retrieval": _retrieval(shipment)}),
    }
    write_json(file, settings)


def _options(shipment: Shipment, own: snippets.Facts) -> dict[str, str]:
    offload = shipment.manifest.contents.offload
    if own.runtime == "llama.cpp":
        return {"gpu_layers": str(offload.gpu_layers)} if offload and offload.gpu_layers else {}
    return {str(name): str(value) for name, value in own.engine.options}


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


def unit(shipment: Shipment) -> Safe:
    """OpenVINO's name for what the model runs on."""
    device = shipment.manifest.contents.device
    runs_on = (device.runs_on if device else None) or "cpu"
    return {"gpu": Safe("GPU"), "npu": Safe("NPU")}.get(runs_on, Safe("CPU"))
