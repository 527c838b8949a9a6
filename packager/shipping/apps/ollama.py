"""The package for Ollama: the GGUF as it is, and a Modelfile with template, stops and context."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError, usage
from packager.escapes import Safe
from packager.files import folder_that_appears_whole
from packager.json_values import at, object_or_empty
from packager.package.sampling import KEYS
from packager.shipping.added import Added
from packager.shipping.apps import snippets
from packager.shipping.apps.layout import copy_added, copy_package, write_sums
from packager.shipping.apps.ollama_template import translated
from packager.shipping.shipment import Shipment, free_place

_STOP = "<|im_end|>"
_LARGEST = 1 << 20
_PARAMETERS = {"repetition_penalty": "repeat_penalty"}
_PATH = re.compile(r"[A-Za-z0-9._/-]+")


def write(
    shipment: Shipment, out: Path, limit: int | None = None, *, added: Sequence[Added] = ()
) -> Generator[int, None, None]:
    """Write the folder `out`, with a Modelfile more for each adapter: Ollama chooses by the name of
    a model. Yields sizes."""
    free_place(out)
    values = facts(shipment)
    names = [(row.name, row.path) for row in added]
    with folder_that_appears_whole(out) as folder:
        snippets.write(folder, "Modelfile", "Modelfile", values)
        for name, path in names:
            if not _PATH.fullmatch(path):
                raise _unnamed(path)
            more = {**values, "adapter": Safe(path)}
            snippets.write(folder, f"Modelfile.{name}", "Modelfile", more)
        snippets.write(folder, "README.md", "ollama.md", {**values, "added": _safe(names)})
        write_sums(shipment, folder, added)
        yield from copy_package(shipment, folder)
        yield from copy_added(added, shipment, folder)


def _safe(names: Sequence[tuple[str, str]]) -> list[tuple[Safe, Safe]]:
    """Names are slugs, and paths were looked at."""
    return [(Safe(name), Safe(path)) for name, path in names]


@dataclass(frozen=True, slots=True)
class Chat:
    """What Ollama is told of chats: a template in its language, stops, and what the template cannot
    do."""

    template: str
    stops: tuple[str, ...]
    limits: tuple[str, ...]


def chat(shipment: Shipment) -> Chat | None:
    """The package's own chat template for Ollama; None for a base model.

    Raises PackError (usage) for a template that Go's language cannot say: Ollama would make a
    prompt that the model was not trained on, and say nothing.
    """
    if shipment.manifest.contents.modality == "audio":
        raise usage(
            "Ollama's requests have no field for sound (github.com/ollama/ollama, issue 11798).",
            "Take the format docker, whose server takes it, or dir.",
        )
    template = _small(shipment, "chat_template.jinja").decode(errors="replace")
    if not template:
        return None
    template_or_why = translated(template)
    if isinstance(template_or_why, str):
        raise usage(
            f"Ollama cannot be given this model's chat template: {template_or_why}.",
            "Take the format docker, whose server reads the template itself, or dir.",
        )
    spoken = shipment.manifest.contents.chat
    stops = tuple(end.text for end in (spoken.ends if spoken else ()) if end.text)
    return Chat(template_or_why.template, stops or (_STOP,), template_or_why.limits)


def refusal(shipment: Shipment) -> str | None:
    """Why Ollama cannot be given this package, as a sentence; None where it can."""
    try:
        chat(shipment)
    except PackError as error:
        return error.message
    return None


def parameters(shipment: Shipment) -> dict[str, float]:
    """What Ollama is told of context and sampling, by its own names."""
    context = shipment.manifest.contents.context
    sampling = object_or_empty(shipment.manifest.data, "sampling")
    return {
        **({"num_ctx": context} if context else {}),
        **{
            _PARAMETERS.get(key, key): at(sampling, key, float)
            for key, value in sampling.items()
            if key in KEYS and value is not None
        },
    }


def _small(shipment: Shipment, path: str) -> bytes:
    """A text of the package; empty where there is none, or more than any such text has."""
    return next(
        (
            shipment.read(path)
            for entry in shipment.files
            if entry.path == path and entry.size <= _LARGEST
        ),
        b"",
    )


def facts(shipment: Shipment) -> snippets.Values:
    """What the Modelfile says. Raises PackError (usage) for a GGUF whose name a Modelfile cannot
    hold."""
    own = snippets.facts(shipment)
    for path in filter(None, (own.model, own.projector)):
        if not _PATH.fullmatch(path):
            raise _unnamed(path)
    spoken = chat(shipment) or Chat("", (), ())
    licence = _small(shipment, "LICENSE")
    kv, offload = shipment.manifest.contents.recipe.kv, shipment.manifest.contents.offload
    return {
        **own.values(),
        "gguf": Safe(own.model),
        "adapter": Safe(""),
        "tower": Safe(own.projector),
        "template": Safe(spoken.template),
        "limits": [Safe(limit) for limit in spoken.limits],
        # Three quotes would end the text of a Modelfile: the file itself stands in the package in
        # any case.
        "licence_text": Safe("" if b'"""' in licence else licence.decode(errors="replace")),
        "stops": [Safe(_quoted(stop)) for stop in spoken.stops],
        "parameters": [
            (Safe(key), Safe(f"{value:g}")) for key, value in parameters(shipment).items()
        ],
        "layers": (offload.gpu_layers if offload else None) or 0,
        "kv": Safe(kv) if kv in ("q8_0", "q4_0") else Safe(""),
    }


def _quoted(stop: str) -> str:
    return '"' + stop.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unnamed(path: str) -> PackError:
    return usage(
        f"A Modelfile cannot name {path!r}.",
        "Take the format oci: Ollama pulls that from a registry.",
    )
