"""Files of other languages from templates, with a package's own names, hashes and sizes in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from packager.catalog import licences
from packager.errors import PackError, bad_input
from packager.escapes import FILTERS, Safe
from packager.files import write_atomically
from packager.json_values import JsonObject, object_or_empty, objects_at
from packager.need.usecases import SOUND, use_case
from packager.package.floor import sentence
from packager.records.contents import Contents
from packager.shipping.apps.engine_settings import EngineStart, engine_start
from packager.shipping.shipment import Shipment
from packager.units import human_bytes

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = Path(__file__).parent.parent / "templates"
FOLDER = "package"
"""Where the package stands, whole, in every format for apps: what `qwen-pack verify` takes."""
_TWO_FILES = "llama.cpp"
"""The engine that is given the file of a vision tower or an audio encoder by its name."""


Values: TypeAlias = Mapping[str, object]
"""What a template is given, by name."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, or all of it: its path below the package's folder, and the pack of a store
    that brings it."""

    path: str
    pack: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the package, and the parts in which an app gets it. Size in bytes."""

    path: str
    size: int
    sha256: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What every template may say of a package. Sizes are bytes; `memory` is 0 where nothing was
    predicted."""

    name: str
    version: str
    repo_id: str
    recipe: str
    runtime: str
    task: str
    spdx: str
    """The id of the licence where programs read it, `NOASSERTION` where none is stated,"""
    licence: str
    """the same where people read it,"""
    licence_sentence: str
    """and as a sentence."""
    device: str
    context: int
    sampling: str
    """As JSON, which every app can read; empty where the checkpoint does not say."""
    thinking_budget: int
    profile: str
    retrieval: str
    """How vectors or scores are made, as JSON; empty for text."""
    memory: int
    memory_words: Safe
    total_words: Safe
    model: str
    projector: str
    """The file of the vision tower or the audio encoder that the engine is given beside the model;
    empty for text alone, and for an engine that opens a folder."""
    sees: bool
    """Whether it takes pictures."""
    image_tokens: int
    audio_seconds: int
    """Seconds of sound that are taken at once; 0 for a package that takes none."""
    audio_asked: bool
    """Whether a sound is asked about as a whole; others are written down, and may be cut."""
    engine: EngineStart
    engine_minimum: str
    """The oldest engines that read it, as a sentence; empty where none are known."""
    folder: Safe
    files: tuple[File, ...]

    def values(self) -> Values:
        """What a template is given."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**own, **self.engine.values()}


def facts(shipment: Shipment) -> Facts:
    """See Facts."""
    data, contents = shipment.manifest.data, shipment.manifest.contents
    predicted = contents.predicted
    footprint = predicted.footprint if predicted else None
    peak = (footprint.peak if footprint else None) or 0
    drafts = contents.speculation
    # Older manifests do not count in the footprint what drafts.
    if footprint and peak and footprint.drafting is None and drafts and drafts.pays:
        peak += drafts.memory_bytes or 0
    profile = contents.chat.profile if contents.chat else None
    return Facts(
        name=shipment.name,
        # Updates need a name of their own: without a version that is the beginning of the
        # manifest's digest.
        version=contents.version or f"0+{shipment.files[0].sha256[:12]}",
        repo_id=contents.variant.repo_id or "unknown",
        recipe=contents.recipe.id or "unknown",
        runtime=contents.runtime.name,
        task=contents.task,
        spdx=licences.spdx(contents.variant.license),
        licence=licences.named(contents.variant.license),
        licence_sentence=licences.sentence(contents.variant.license),
        device=contents.target or "any",
        context=contents.context or 0,
        sampling=json.dumps(object_or_empty(data, "sampling")),
        thinking_budget=(profile.thinking_budget if profile else None) or 0,
        profile=json.dumps(_profile(data), ensure_ascii=False),
        retrieval=_retrieval(data),
        memory=peak,
        memory_words=Safe(human_bytes(peak) if peak else "not predicted"),
        total_words=Safe(human_bytes(shipment.total)),
        model=model(shipment),
        projector=_projector(shipment),
        sees=shipment.projector is not None and contents.modality != "audio",
        image_tokens=(contents.vision.max_image_tokens if contents.vision else None) or 0,
        audio_seconds=_audio_seconds(contents),
        audio_asked=contents.audio is not None and contents.audio.window_seconds is not None,
        engine=engine_start(contents.runtime),
        engine_minimum=sentence(contents.runtime.minimum),
        folder=Safe(FOLDER),
        files=tuple(
            File(entry.path, entry.size, entry.sha256, (Piece(entry.path),))
            for entry in shipment.files
        ),
    )


def _projector(shipment: Shipment) -> str:
    beside = shipment.manifest.contents.runtime.name == _TWO_FILES
    return shipment.projector.path if shipment.projector and beside else ""


def _audio_seconds(contents: Contents) -> int:
    """Seconds of sound that a package takes at once, see packager.pipeline.sounds.most_of; 0 where
    it takes none."""
    if contents.modality != "audio" or contents.audio is None:
        return 0
    usual = use_case(SOUND).max_audio_seconds
    return contents.audio.max_audio_seconds or (int(usual.value) if usual else 0)


def _profile(data: JsonObject) -> JsonObject:
    """What an app that writes its prompts itself must know: what the build fixed, and the texts
    that end a turn."""
    chat = object_or_empty(data, "chat")
    fixed = {
        key: value
        for key, value in object_or_empty(chat, "profile").items()
        if value not in (None, [], {})
    }
    ends = [row["text"] for row in objects_at(chat, "ends") if row.get("text")]
    return {**{key: value for key, value in fixed.items() if key != "sampling"}, "ends": ends}


def _retrieval(data: JsonObject) -> str:
    """What an app must know that makes vectors or scores: what the manifest says of it."""
    known = {
        key: value for key, value in object_or_empty(data, "retrieval").items() if value is not None
    }
    return json.dumps(known, ensure_ascii=False) if known else ""


def model(shipment: Shipment) -> str:
    """What the engine is given, below the package: the one GGUF or the first of its shards,
    otherwise the folder."""
    ggufs = sorted(
        entry.path
        for entry in shipment.model_files()
        if entry.path.endswith(".gguf") and not entry.role
    )
    return ggufs[0] if ggufs and shipment.manifest.contents.runtime.name == "llama.cpp" else "model"


def render(template: str, values: Values) -> bytes:
    """The template of that name with `values`; numbers and what went through a filter of escapes.py
    is printed, nothing else.

    Raises PackError (exit code 6) where a value cannot be written in that language.
    """
    text = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    try:
        return _environment().from_string(text).render(values).encode()
    except (ValueError, UnicodeError) as error:
        raise _unwritable(template, error) from None


def write(folder: Path, name: str, template: str, values: Values) -> None:
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
