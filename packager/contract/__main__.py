"""`python -m packager.contract`: every breach of the contract on its own line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from packager.contract import build_problems, problems
from packager.engines import plug_ins_by_name
from packager.errors import ExitCode, PackError
from packager.process import resolve
from packager.scratch import temporary_folder

GROUP = "qwen_pack.runtimes"


@click.command()
@click.argument("runtime", metavar="NAME|module:Class")
@click.option("--build", is_flag=True, help="Build a tiny model too and ask its session.")
@click.option("--recipe", metavar="WEIGHTS", help="Build with this recipe, not with the first.")
def main(runtime: str, build: bool, recipe: str | None) -> None:
    """Check a runtime adapter against packager/runtime.py."""
    adapter = _adapter(runtime)
    breaches = problems(adapter)
    if build and not breaches:
        with temporary_folder() as folder:
            try:
                breaches = build_problems(adapter, folder, recipe)
            except PackError as error:
                breaches = [f"the build ends with: {error.message}"]
    for breach in breaches:
        click.echo(breach)
    if breaches:
        raise SystemExit(ExitCode.USAGE)
    built = ", and a tiny model was built and asked" if build else ""
    click.echo(f"{runtime} keeps the contract{built}.")


def _adapter(name: str) -> Any:
    if ":" in name:
        return _made(name, lambda: resolve(name))
    try:
        by_name = plug_ins_by_name(GROUP)
    except PackError as error:
        raise click.UsageError(str(error)) from None
    if name not in by_name:
        raise click.UsageError(
            f"There is no runtime {name!r}. Installed: {', '.join(sorted(by_name))}."
        )
    return _made(name, by_name[name].load)


def _made(name: str, load: Callable[[], Any]) -> Any:
    """The adapter; its module is its author's, and the sentence names what it raised."""
    try:
        return load()()
    except Exception as error:
        raise click.UsageError(f"{name} does not load: {type(error).__name__}: {error}.") from None


if __name__ == "__main__":
    main()
