"""`qwen-pack serve`: a package behind OpenAI's protocol, on this machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.options import Number
from packager.cli.output import narrate, say
from packager.cli.ports import free_port
from packager.cli.shared_options import package_argument
from packager.errors import PackError, usage
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.package.manifest import Manifest
    from packager.runtime import Runtime


@click.command("serve")
@package_argument
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Interface."
)
@click.option(
    "--port",
    type=Number(0, 65535, whole=True),
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--waiting",
    type=Number(0, 1000, whole=True),
    default=16,
    show_default=True,
    help="Requests that may wait for their turn.",
)
@click.option(
    "--i-know-it-is-exposed",
    "consent",
    is_flag=True,
    help="Allow a --host that other machines reach: whoever has the address can ask the model.",
)
def command(package: Path, host: str, port: int, waiting: int, consent: bool) -> None:
    """Answer /v1/chat/completions with PACKAGE until Ctrl-C; /v1/embeddings or /v1/rerank with one
    for retrieval. The address is printed once the model is loaded.

    A package that takes pictures takes them as image_url of a message, in data: URLs. One that
    takes sound writes down an input_audio of a message, and a file that is sent to
    /v1/audio/transcriptions.
    """
    from packager.cli.tui_browser import is_loopback
    from packager.package import manifest
    from packager.pipeline import bench, climb
    from packager.pipeline.cache import BuildCache
    from packager.pipeline.intact import artifact_key
    from packager.process import Note, Text, run_job
    from targets import registry

    if not consent and not is_loopback(host):
        raise usage(
            f"{host} can be reached from other machines, and the server has no log-in.",
            "Use an SSH tunnel (ssh -L 8080:127.0.0.1:8080 THIS-MACHINE), or add "
            "--i-know-it-is-exposed.",
        )
    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    known = bench.whole(package, runtime)
    if known.contents.source.dummy:
        narrate("The weights of this package are random: its answers mean nothing.")
    logs = BuildCache()
    arguments = {
        **_arguments(package, runtime, known),
        "log": str(logs.log("pictures")),
        "host": host,
        # One for all tries: clients know it once it was printed.
        "port": free_port(host, port),
        "waiting": waiting,
    }
    work = climb.on_ladder(
        runtime,
        "while it served",
        artifact_key(known),
        lambda start: run_job(
            "packager.shipping.serving:serve_job", arguments, logs.log("serve"), start.environment
        ),
    )
    with closing(work):
        for message in work:
            if isinstance(message, Text):
                say(message.piece.rstrip("\n"))
            elif isinstance(message, Note):
                narrate(message.text)


def _arguments(package: Path, runtime: Runtime, known: Manifest) -> JsonObject:
    """What the server is told of the package. Raises PackError (usage) for one that is not served
    here."""
    from packager.runtime import Serves
    from packager.shipping.apps import snippets
    from packager.shipping.apps.server_settings import server_settings
    from packager.shipping.shipment import Shipment

    own = isinstance(runtime, Serves)
    if own and known.contents.task != "generate":
        raise PackError(
            f"`serve` answers no /v1/{known.contents.task} with llama.cpp.",
            f"Start llama-server as {package / 'README.md'} says.",
        )
    shipment = Shipment(package, known, known.files)
    settings = server_settings(shipment, snippets.facts(shipment))
    return {
        "package": str(package),
        "settings": settings,
        "engine": runtime.serving_engine if isinstance(runtime, Serves) else None,
    }
