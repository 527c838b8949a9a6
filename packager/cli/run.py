"""`qwen-pack run`: a quick look at what a package says."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from packager.cli.output import narrate, printable
from packager.cli.shared_options import package_argument, think_option
from packager.json_values import JsonObject


@click.command("run")
@package_argument
@click.argument("prompt")
@click.option(
    "--max-tokens",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    help="Longest answer.",
)
@think_option
def command(package: Path, prompt: str, max_tokens: int, think: bool) -> None:
    """Answer one PROMPT with PACKAGE; the answer goes to stdout as it is decoded."""
    from packager.checkpoint import template
    from packager.errors import usage
    from packager.package import manifest
    from packager.package.package import MODEL
    from packager.pipeline import bench, climb
    from packager.pipeline.cache import BuildCache
    from packager.process import Note, Text, run_job
    from targets import registry

    if any("\ud800" <= char <= "\udfff" for char in prompt):
        raise usage("The prompt is not valid UTF-8.", "Check the terminal's encoding.")
    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    found = bench.whole(package, runtime)
    if found.contents.task != "generate":
        raise usage(
            f"{package} gives no text.",
            f"`qwen-pack {found.contents.task} {package} ...` asks it what it is made for.",
        )
    if found.contents.source.dummy:
        narrate("The weights of this package are random: what follows means nothing.")
    logs = BuildCache()
    chat = package / "chat_template.jinja"
    text = prompt
    if chat.is_file():
        messages: list[JsonObject] = [{"role": "user", "content": prompt}]
        text = template.render_apart(
            template.read(chat), messages, logs.log("template"), enable_thinking=think
        )
    arguments: JsonObject = {
        "session": runtime.session,
        "artifact": str(package / MODEL),
        "settings": bench.settings_of(found),
        "prompt": text,
        "max_new_tokens": max_tokens,
    }
    show = printable if sys.stdout.isatty() else str
    said = False
    answering = climb.on_ladder(
        runtime,
        "while it answered",
        bench.artifact_key(found),
        lambda start: run_job(
            "packager.behaviour.one_prompt:answer", arguments, logs.log("run"), start.environment
        ),
    )
    with closing(answering) as work:
        try:
            for message in work:
                if isinstance(message, Text):
                    said = True
                    click.echo(show(message.piece), nl=False)
                elif isinstance(message, Note):
                    # Where the engine died in the middle of an answer, the answer begins anew.
                    if said:
                        click.echo()
                    said = False
                    narrate(message.text)
        finally:
            if said:
                click.echo()
