"""Files of other languages from templates, with a package's own names, hashes and sizes in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.catalog.licences import spdx
from packager.errors import PackError, bad_input
from packager.files import write_atomically
from packager.shipping.apps import engine_settings
from packager.shipping.apps.escapes import FILTERS, Safe
from packager.shipping.shipment import Shipment
from packager.units import human_bytes

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = Path(__file__).parent.parent / "templates"
FOLDER = "package"
"""Where the package stands, whole, in every format for apps: what `qwen-pack verify` takes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, or all of it: its path below the package's folder, and the pack of a store
    that brings it."""

    path: str
    pack: str = ""


def facts(shipment: Shipment) -> dict[str, Any]:
    """What every template may say of a package. Sizes are bytes; `memory` is 0 where nothing was
    predicted."""
    data = shipment.manifest.data
    peak = ((data.get("predicted") or {}).get("footprint") or {}).get("peak") or 0
    version = data.get("version")
    return {
        "name": shipment.name,
        # Updates need a name of their own: without a version that is the beginning of the
        # manifest's digest.
        "version": version
        if isinstance(version, str) and version
        else f"0+{shipment.files[0].sha256[:12]}",
        "repo_id": data["variant"].get("repo_id") or "unknown",
        "recipe": data["recipe"].get("id") or "unknown",
        "runtime": data["runtime"]["name"],
        "task": (data.get("retrieval") or {}).get("task") or "generate",
        "spdx": spdx(data["variant"].get("license")),
        "device": data.get("target") or "any",
        "context": int((data.get("workload") or {}).get("context") or 0),
        # As JSON, which every app can read; empty where the checkpoint does not say.
        "sampling": json.dumps(data.get("sampling") or {}),
        "thinking_budget": int(
            ((data.get("chat") or {}).get("profile") or {}).get("thinking_budget") or 0
        ),
        "profile": json.dumps(_profile(data), ensure_ascii=False),
        "memory": int(peak),
        "memory_words": Safe(human_bytes(int(peak)) if peak else "not predicted"),
        "total_words": Safe(human_bytes(shipment.total)),
        "model": model(shipment),
        "projector": shipment.projector.path if shipment.projector else "",
        "image_tokens": int((data.get("vision") or {}).get("max_image_tokens") or 0),
        **engine_settings.facts(data),
        "folder": Safe(FOLDER),
        "files": [
            {
                "path": entry.path,
                "size": entry.size,
                "sha256": entry.sha256,
                "pieces": [Piece(entry.path)],
            }
            for entry in shipment.files
        ],
    }


def _profile(data: dict[str, Any]) -> dict[str, Any]:
    """What an app that writes its prompts itself must know: what the build fixed, and the texts
    that end a turn."""
    chat = data.get("chat") or {}
    fixed = {
        key: value
        for key, value in (chat.get("profile") or {}).items()
        if value not in (None, [], {})
    }
    ends = [row["text"] for row in chat.get("ends") or [] if row.get("text")]
    return {**{key: value for key, value in fixed.items() if key != "sampling"}, "ends": ends}


def model(shipment: Shipment) -> str:
    """What the engine is given, below the package: the one GGUF or the first of its shards,
    otherwise the folder."""
    ggufs = sorted(
        entry.path
        for entry in shipment.model_files()
        if entry.path.endswith(".gguf") and not entry.role
    )
    return ggufs[0] if ggufs and shipment.manifest.contents.runtime.name == "llama.cpp" else "model"


def render(template: str, values: dict[str, Any]) -> bytes:
    """The template of that name with `values`; numbers and what went through a filter of escapes.py
    is printed, nothing else.

    Raises PackError (exit code 6) where a value cannot be written in that language.
    """
    text = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    try:
        return _environment().from_string(text).render(values).encode()
    except (ValueError, UnicodeError) as error:
        raise _unwritable(template, error) from None


def write(folder: Path, name: str, template: str, values: dict[str, Any]) -> None:
    """Render a template into a new file of a folder that is being made."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, render(template, values))


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    # Jinja costs 30 ms to import: only a rendered file pays for it.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=_escaped,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _escaped(value: object) -> object:
    """What a template prints: a text that no filter has escaped is a mistake in the template, found
    here and not in an app."""
    if isinstance(value, Safe) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"a template prints {value!r} as it is")


def _unwritable(template: str, error: Exception) -> PackError:
    return bad_input(
        f"{template} cannot be written for this package: {error}.",
        "Get the package again from where it was built.",
    )
