"""What the server knows of its package: the file settings.json beside this one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packager.errors import bad_input, usage

from .parsed import Parsed

APART = ("openvino",)
"""Engines that take pictures and sound by modules of their own, which packages of text alone do
without."""


def kind_of(runtime: str, *, sees: bool, hears: bool) -> str:
    """The beginning of the name of the module that answers with text."""
    if runtime not in APART or not (sees or hears):
        return "engine"
    return "seeing" if sees else "hearing"


AGAIN = "Its files may be damaged: export the package again."
_LONGEST = 16 << 20
"""Bytes of a file of settings at most."""

# Any: functions in the form of OpenAI's, which the template alone reads, and what a session of
# llama.cpp reads.


@dataclass(frozen=True)
class Settings:
    """`model` is what the engine loads. `context` counts tokens, `ends` are ids that end a turn.

    `tools` are those that the template brings where a request has none.
    """

    name: str
    runtime: str
    model: Path
    template: str
    context: int
    kv: str
    unit: str
    ends: frozenset[int]
    end_texts: tuple[str, ...]
    sampling: dict[str, float]
    thinking_budget: int | None
    # Any: functions in the form of OpenAI's, whose JSON schemas nobody here reads.
    tools: tuple[dict[str, Any], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that the engine reads when it is loaded."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of an ONNX Runtime session."""
    session: Parsed = field(default_factory=dict)
    """What a session of llama.cpp is opened with: context, cache type, limits of pictures, what
    drafts."""
    task: str = "generate"
    """Or embed, or rerank."""
    hidden: int = 0
    """Numbers of a vector, of which `dimension` are kept where a request does not say."""
    dimension: int | None = None
    prompt: str = ""
    """Of a reranker, with {query} and {document}; `instruction` is what stands in it where a
    request does not say."""
    instruction: str = ""
    sees: bool = False
    """Whether a message may bring pictures."""
    hears: bool = False
    """Whether a message may bring a sound, which is written down."""
    audio_seconds: int = 0
    """Seconds of sound that are taken at once; a longer one is cut into pieces."""
    asked: bool = False
    """Whether a sound is asked about as a whole, and not written down."""
    adapters: tuple[Path, ...] = ()
    """Files of adapters that are added to the model."""
    choices: dict[str, Path] = field(default_factory=dict)
    """Adapter packages of which a request may name one as its `model`, by name."""
    content_sha256: str = ""
    """What names the content of the package: an adapter says which one it belongs to."""


def read(path: Path) -> Settings:
    """The settings in a file that `qwen-pack export` wrote; paths in it are relative to its folder.

    Raises PackError: usage where there is none, bad input for what was not written so.
    """
    try:
        with path.open("rb") as file:
            # Any: JSON that `of` reads field by field.
            data: dict[str, Any] = json.loads(file.read(_LONGEST))
        known = of(data, (path.parent / data["package"]).resolve())
        named = {
            str(name): path.parent / str(folder)
            for name, folder in dict(data.get("adapters") or {}).items()
        }
    except OSError as error:
        raise usage(
            f"{path} cannot be read: {error.strerror}.", "Name the settings with --settings."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise bad_input(f"{path} is not what qwen-pack wrote there.", AGAIN) from None
    return replace(known, choices=named)


# Any: JSON that `qwen-pack export` wrote.
def of(data: dict[str, Any], package: Path) -> Settings:
    """The settings in what such a file holds, of the package in that folder. Raises PackError (bad
    input) for a chat template that is no text."""
    return Settings(
        str(data["name"]),
        str(data["runtime"]),
        package / data["model"],
        _template(package / "chat_template.jinja"),
        int(data["context"]),
        str(data["kv"]),
        str(data["unit"]),
        frozenset(row["id"] for row in data["ends"]),
        tuple(row["text"] for row in data["ends"]),
        dict(data["sampling"]),
        data["thinking_budget"],
        tuple(data["tools"]),
        _texts(data, "environment"),
        _texts(data, "options"),
        sees=bool(data.get("sees")),
        hears=bool(data.get("hears")),
        audio_seconds=int(data.get("audio_seconds") or 0),
        asked=bool(data.get("audio_asked")),
        session=_session(dict(data.get("session") or {}), package),
        content_sha256=str(data.get("content_sha256") or ""),
        **dict(data.get("retrieval") or {}),
    )


def _template(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except ValueError:
        raise bad_input(f"{path} is not text in UTF-8.", AGAIN) from None


# Any: as in `of`.
def _texts(data: dict[str, Any], key: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(data.get(key) or {}).items()}


def _session(given: Parsed, package: Path) -> Parsed:
    """With the model that drafts where it stands: in a folder of the package."""
    drafting = given.get("speculation")
    if not drafting or not drafting.get("artifact"):
        return given
    return {**given, "speculation": {**drafting, "artifact": str(package / drafting["artifact"])}}
