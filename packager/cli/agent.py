"""`qwen-pack agent`: the program that runs a model on a device for `bench --on`."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.output import emit_json, emit_table, json_option, say


@click.group("agent")
def command() -> None:
    """The program that runs a model on a device, for bench --on."""


@command.command("build")
@click.option("--for", "name", required=True, metavar="VARIANT", help="See `qwen-pack agent list`.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Also copy the program there."
)
@json_option
def build_command(name: str, out: Path | None, as_json: bool) -> None:
    """Build the agent of one VARIANT: a static program that needs no Python on the device.

    It takes some minutes once, and is kept in the cache. Needs pip install 'qwen-pack[lab]'.
    """
    from packager.cli.progress import follow
    from packager.errors import usage
    from packager.files import write_atomically
    from packager.pipeline.cache import BuildCache
    from targets.llama_cpp.agent.build import build

    if out is not None and not out.parent.is_dir():
        raise usage(f"There is no folder {str(out.parent)!r}.", "Make it, or name another file.")
    agent = follow(build(name, BuildCache()))
    path = agent.path
    if out is not None:
        write_atomically(out, agent.path.read_bytes())
        out.chmod(0o755)
        path = out
    if as_json:
        size = agent.path.stat().st_size
        row = {"agent": name, "path": str(path), "bytes": size, "sha256": agent.sha256}
        emit_json("agent-build", row)
    else:
        say(str(path))


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The variants that can be built, and which of them are in the cache."""
    from packager.pipeline.cache import BuildCache
    from targets.llama_cpp.agent.build import cached
    from targets.llama_cpp.agent.variants import agents

    cache = BuildCache()
    rows = [(name, agent, cached(name, cache)) for name, agent in agents().variants.items()]
    if as_json:
        listed = [
            {
                "name": name,
                "needs": list(agent.needs),
                "summary": agent.summary,
                "path": str(built.path) if built else None,
                "sha256": built.sha256 if built else None,
            }
            for name, agent, built in rows
        ]
        emit_json("agent-list", {"agents": listed})
        return
    emit_table(
        "Agents",
        ("variant", "for", "needs", "built"),
        [
            (name, agent.summary, " ".join(agent.needs), "yes" if built else "no")
            for name, agent, built in rows
        ],
    )
