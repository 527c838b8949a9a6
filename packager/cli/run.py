"""`qwen-pack run`: a quick look at what a package says."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import narrate


@click.command("run")
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=256, show_default=True, help="Longest answer.")
@click.option("--think", is_flag=True, help="Let a model that can think do so before it answers.")
def command(package: Path, prompt: str, max_tokens: int, think: bool) -> None:
    """Answer one PROMPT with PACKAGE; the answer goes to stdout as it is decoded."""
    from packager import bench, template
    from packager.cache import BuildCache
    from packager.package import MODEL
    from packager.process import Text, run_job
    from targets import registry

    found = bench.whole(package)
    runtime = registry.runtime(found.data["runtime"].get("name", ""))
    if found.data["source"].get("kind") == "dummy":
        narrate("The weights of this package are random: what follows means nothing.")
    chat = package / "chat_template.jinja"
    messages = [{"role": "user", "content": prompt}]
    text = template.render(chat.read_text(), messages, enable_thinking=think) if chat.is_file() else prompt
    arguments = {
        "session": runtime.session,
        "artifact": str(package / MODEL),
        "settings": bench.settings_of(found),
        "prompt": text,
        "max_new_tokens": max_tokens,
    }
    work = run_job("packager.answer:answer", arguments, BuildCache().root / "logs" / "run.log")
    try:
        for message in work:
            if isinstance(message, Text):
                click.echo(message.piece, nl=False)
    finally:
        work.close()
        click.echo()
