"""`qwen-pack run`: a quick look at what a package says."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.options import Number
from packager.cli.output import narrate, printable
from packager.cli.shared_options import adapters_option, package_argument, think_option
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.package.manifest import Manifest
    from packager.runtime import Runtime


@click.command("run")
@package_argument
@click.argument("prompt", required=False)
@click.option(
    "--max-tokens",
    type=Number(1, 1_000_000, whole=True),
    default=256,
    show_default=True,
    help="Longest answer.",
)
@click.option(
    "--image",
    "images",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A picture that the prompt asks about (PNG, JPEG or WebP); repeatable.",
)
@click.option(
    "--audio",
    type=click.Path(path_type=Path),
    help="Write down what is said in this sound (WAV, FLAC, Ogg or MP3); PROMPT may then name what "
    "occurs in it. With Qwen2-Audio PROMPT is a question about the sound.",
)
@adapters_option
@think_option
def command(
    package: Path,
    prompt: str | None,
    max_tokens: int,
    images: tuple[Path, ...],
    audio: Path | None,
    adapters: tuple[Path, ...],
    think: bool,
) -> None:
    """Answer one PROMPT with PACKAGE; the answer goes to stdout as it is decoded."""
    from packager.errors import usage
    from packager.measure import session_settings
    from packager.package import manifest
    from packager.package.package import MODEL
    from packager.pipeline import bench, climb
    from packager.pipeline.cache import BuildCache
    from packager.pipeline.intact import artifact_key
    from packager.process import run_job
    from targets import registry

    if prompt is None and audio is None:
        raise click.UsageError("Missing argument 'PROMPT'.")
    if images and audio is not None:
        raise click.UsageError("--image and --audio do not go together.")
    prompt = prompt or ""
    if any("\ud800" <= char <= "\udfff" for char in prompt):
        raise usage("The prompt is not valid UTF-8.", "Check the terminal's encoding.")
    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    packaged = bench.whole(package, runtime)
    if packaged.contents.task != "generate":
        raise usage(
            f"{package} gives no text.",
            f"`qwen-pack {packaged.contents.task}` asks it what it is made for.",
        )
    if adapters and (images or audio is not None):
        raise usage(
            "A question about pictures or sound takes no --adapter.",
            "Ask it without one of the two.",
        )
    settings = bench.settings_with(packaged, package, runtime, adapters)
    logs = BuildCache()
    with logs.work_folder() as work:
        if images:
            job, asked = _about_pictures(package, runtime, packaged, prompt, images, think, work)
        elif audio is not None:
            job, asked = _about_sound(package, runtime, packaged, prompt, audio, work)
        else:
            job, asked = _about_text(package, runtime, prompt, think)
            if packaged.contents.warm is not None and packaged.contents.warm.how == "file":
                asked = {**asked, "prefix": _prefix(package, packaged, think)}
            speculation = None if adapters else session_settings.speculation_of(packaged, package)
            if speculation is not None:
                asked = {**asked, "speculation": speculation}
        if packaged.contents.source.dummy:
            narrate("The weights of this package are random: what follows means nothing.")
        arguments = {
            "artifact": str(package / MODEL),
            "settings": settings,
            "max_new_tokens": max_tokens,
            **asked,
        }
        _said(
            climb.on_ladder(
                runtime,
                "while it answered",
                artifact_key(packaged),
                lambda start: run_job(job, arguments, logs.log("run"), start.environment),
            )
        )


def _about_text(
    package: Path, runtime: Runtime, prompt: str, think: bool
) -> tuple[str, JsonObject]:
    """The job that answers a prompt of text, and its own arguments."""
    chat = package / "chat_template.jinja"
    text = prompt
    if chat.is_file():
        text = _rendered(chat, [{"role": "user", "content": prompt}], think)
    return "packager.behaviour.one_prompt:answer", {"session": runtime.session, "prompt": text}


def _prefix(package: Path, found: Manifest, think: bool) -> JsonObject:
    """How the state of the prefix that every chat shares is found again."""
    from packager.digests import key_of
    from packager.measure.session_settings import settings_of
    from packager.pipeline import warm_stage
    from packager.pipeline.intact import artifact_key

    chat = package / "chat_template.jinja"
    probes = [
        _rendered(chat, [{"role": "user", "content": text}], think) for text in warm_stage.PROBES
    ]
    template = next(entry.sha256 for entry in found.files if entry.path == chat.name)
    return warm_stage.asked(
        key_of([artifact_key(found), template, settings_of(found)["kv"]]), probes
    )


def _about_pictures(
    package: Path,
    runtime: Runtime,
    found: Manifest,
    question: str,
    images: tuple[Path, ...],
    think: bool,
    work: Path,
) -> tuple[str, JsonObject]:
    """The job that answers a question about pictures, which are decoded into the folder `work`, and
    its own arguments."""
    from packager.cli import picture_shown
    from packager.errors import PackError
    from packager.pictures import prompt, take
    from packager.pipeline import pictures
    from packager.pipeline.cache import BuildCache

    session = pictures.session_of(runtime, found)
    messages = prompt.messages(question, len(images))
    taken = take(images, work, BuildCache().log("pictures"))
    for note in (note for picture in taken for note in picture.notes):
        narrate(note)
    picture_shown.show(taken)
    chat = package / "chat_template.jinja"
    if not chat.is_file():
        raise prompt.no_places("there is none")
    try:
        rendered = _rendered(chat, messages, think)
    except PackError as error:
        # One of text alone often fails where a message has parts.
        raise prompt.no_places(error.message.rstrip(".")) from None
    texts = prompt.around(rendered, len(images))
    rows = [picture.as_dict() for picture in taken]
    return "packager.behaviour.one_prompt:look", {
        "session": session,
        "texts": texts,
        "pictures": rows,
    }


def _about_sound(
    package: Path, runtime: Runtime, found: Manifest, context: str, audio: Path, work: Path
) -> tuple[str, JsonObject]:
    """The job that writes down what is said in a sound, which is decoded into the folder `work`,
    or answers the question `context` about it, and its own arguments."""
    from packager.pipeline import sounds
    from packager.pipeline.cache import BuildCache
    from packager.sounds import take
    from packager.sounds.cut import too_long

    session, seconds = sounds.session_of(runtime, found), sounds.most_of(found)
    asked = sounds.asked(found)
    texts = sounds.texts_of(package, context, asked=asked)
    samples = take(audio, work, BuildCache().log("sounds"))
    if asked and samples.seconds > seconds:
        raise too_long(samples.seconds, seconds)
    if samples.seconds > seconds:
        narrate(
            f"The sound has {samples.seconds:.0f} s: it is cut into pieces of at most {seconds}."
        )
    return "packager.behaviour.one_prompt:hear", {
        "session": session,
        "texts": texts,
        "sound": samples.as_dict(),
        "seconds": seconds,
        "asked": asked,
    }


def _rendered(chat: Path, messages: list[JsonObject], think: bool) -> str:
    from packager.checkpoint import template
    from packager.pipeline.cache import BuildCache

    return template.render_apart(
        template.read(chat), messages, BuildCache().log("template"), enable_thinking=think
    )


def _said(answering: Generator[Any, None, Any]) -> None:
    """Print an answer as it comes."""
    from packager.process import Note, Text

    show = printable if sys.stdout.isatty() else str
    written = False
    with closing(answering) as work:
        try:
            for message in work:
                if isinstance(message, Text):
                    written = True
                    click.echo(show(message.piece), nl=False)
                elif isinstance(message, Note):
                    # Where the engine died in the middle of an answer, the answer begins anew.
                    if written:
                        click.echo()
                    written = False
                    narrate(message.text)
        finally:
            if written:
                click.echo()
