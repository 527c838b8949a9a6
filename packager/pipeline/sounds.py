"""Packages that take sound: how they are known, and what their sessions are opened with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packager.checkpoint import template
from packager.errors import PackError, usage
from packager.hearing import Hears
from packager.json_values import JsonObject
from packager.need.usecases import SOUND, use_case
from packager.parts import refuse_half
from packager.pipeline.cache import BuildCache
from packager.runtime import Runtime
from packager.sounds import prompt, take, transcripts

if TYPE_CHECKING:
    from packager.package.manifest import Manifest


def session_of(runtime: Runtime, package: Manifest) -> str:
    """The dotted name of the session that listens. Raises PackError (usage) for a package that
    takes no sound."""
    if package.contents.modality == "audio":
        refuse_half(runtime, Hears)
    if package.contents.modality != "audio" or not isinstance(runtime, Hears):
        raise usage(
            f"The package {package.name} takes no sound.",
            "Build one with `--use-case audio`, or leave --audio out.",
        )
    return runtime.audio_session


def asked(package: Manifest) -> bool:
    """Whether a package answers questions about a sound as a whole; others write down what is said,
    and cut a long one."""
    own = package.contents.audio
    return own is not None and own.window_seconds is not None


def window_of(package: Manifest) -> int | None:
    """Seconds that a sound may have at most; None where a longer one is cut into pieces."""
    return most_of(package) if asked(package) else None


def texts_of(package: Path, context: str, *, asked: bool = False) -> list[str]:
    """What the chat template of a package writes before and after a sound; `context` names what
    occurs in it, or is the question where sounds are `asked` about. Raises PackError (exit code 6)
    for a template that takes none."""
    messages = prompt.messages(context, asked=asked)
    chat = package / "chat_template.jinja"
    if not chat.is_file():
        raise prompt.no_place("there is none")
    try:
        rendered = template.render_apart(
            template.read(chat), messages, BuildCache().log("template"), enable_thinking=False
        )
    except PackError as error:
        # One of text alone often fails where a message has parts.
        raise prompt.no_place(error.message.rstrip(".")) from None
    return prompt.around(rendered)


def recordings_of(path: Path, folder: Path) -> list[JsonObject]:
    """The recordings of a list (packager.sounds.transcripts), decoded into `folder`, as the
    benchmark takes them."""
    rows: list[JsonObject] = []
    log = BuildCache().log("sounds")
    for number, row in enumerate(transcripts.read(path)):
        own = folder / str(number)
        own.mkdir()
        rows.append({"sound": take(row.audio, own, log).as_dict(), "text": row.text})
    return rows


def most_of(package: Manifest) -> int:
    """Seconds of sound that are taken at once, as the package was planned."""
    need = package.contents.workload
    usual = use_case(SOUND).max_audio_seconds
    assert usual is not None
    return (need.max_audio_seconds if need else None) or int(usual.value)
