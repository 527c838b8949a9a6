"""`qwen-pack route`: the packages that a sweep's routing table names, in one folder that serves
them."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, emit_table, json_option, say
from packager.cli.shared_options import consent_options, out_option
from packager.errors import ExitCode


@click.command("route")
@click.argument("sweep", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--target", metavar="NAME", help="Whose routes; needed where the table has several.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="TASK",
    help="A kind of task, e.g. chat; repeatable. All that have a package by default.",
)
@out_option("DIR", "The new folder; routes-TARGET, here, by default.")
@consent_options("Export")
@json_option
def command(
    sweep: Path,
    target: str | None,
    kinds: tuple[str, ...],
    out: Path | None,
    accepted: tuple[str, ...],
    allow_dummy: bool,
    as_json: bool,
) -> int:
    """Export the packages of a sweep's routing table, with a server that chooses among them.

    DIR is the folder of a sweep. The new folder has the packages, route.json, and serve.py, which
    answers over OpenAI's protocol: `model` in a request names the kind of task.
    """
    from packager.cli.progress import follow
    from packager.names import plain_name
    from packager.shipping.apps.routed import export_routes, target_of
    from packager.units import human_bytes

    name = target_of(sweep, target)
    work = export_routes(
        sweep,
        out or Path(f"routes-{plain_name(Path(name).stem)}"),
        name,
        kinds,
        allow_dummy=allow_dummy,
        accepted=accepted,
    )
    done = follow(work)
    if as_json:
        emit_json(
            "route",
            {
                "path": str(done.path),
                "target": done.target,
                "routes": done.kinds,
                "bytes": done.bytes,
            },
        )
        return ExitCode.DONE
    emit_table("", ("kind of task", "package"), list(done.kinds.items()))
    say(f"{done.path}: {human_bytes(done.bytes)}; serve it with: python {done.path / 'serve.py'}")
    return ExitCode.DONE
