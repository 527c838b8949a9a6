"""`qwen-pack build`: choose, fetch, convert, measure and package for a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.options import sustained_option, workload_from, workload_options
from packager.cli.output import emit_json, emit_table, json_option, narrate
from packager.errors import ExitCode, PackError

if TYPE_CHECKING:
    from packager.package import Package

_ENFORCED = {"min_decode_tps": "decode", "max_ttft_ms": "ttft"}


@click.command("build")
@click.option("--target", required=True, metavar="NAME|FILE.toml", help="The device it is for; `qwen-pack targets` lists them.")
@click.option("--model", metavar="ID", help="Take this variant instead of choosing one.")
@click.option("--recipe", metavar="R", help="Take this recipe, for example openvino:int8_asym.")
@click.option("--weights", default="hub", show_default=True, metavar="hub|dummy|PATH", help="Where the weights come from.")
@click.option("--revision", metavar="SHA", help="Commit, tag or branch of the hub's repository.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder that becomes the package; its own name, here, by default."
)
@sustained_option
@click.option("--offline", is_flag=True, help="Use what the hub's cache holds; never ask the network.")
@click.option(
    "--package-version", "version", metavar="V", help="The package's own version, like 1.4.0; `verify --min-version` refuses older ones."
)
@workload_options
@json_option
def command(
    target: str,
    model: str | None,
    recipe: str | None,
    weights: str,
    revision: str | None,
    out: Path | None,
    offline: bool,
    sustained: float,
    version: str | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """Choose, fetch, convert, measure and package for a target.

    \b
    qwen-pack build --target laptop-cpu
    qwen-pack build --target laptop-cpu --model Qwen3-1.7B --weights ./my-finetune
    qwen-pack build --target laptop-cpu --weights dummy     random weights of the true shape
    """
    from packager.cli.progress import follow
    from packager.pipeline import run
    from packager.plan import check
    from packager.planner import make_plan
    from packager.shipping.versions import ordered
    from targets import machine, registry

    if version is not None:
        ordered(version)
    found = registry.target(target)
    plan = make_plan(
        found,
        workload_from(flags, found),
        registry.runtimes(),
        model=model,
        recipe=recipe,
        weights=weights,
        revision=revision,
        offline=offline,
        out=out,
        version=version,
        enforced=frozenset(rule for flag, rule in _ENFORCED.items() if flags.get(flag) is not None),
    )
    plan = replace(plan, sustained_s=sustained)
    check(plan, machine.memory().available)
    narrate(f"{plan.name}: {plan.why()}")
    try:
        package = follow(run(plan))
    except KeyboardInterrupt:
        raise PackError(
            "Interrupted: what was finished is in the cache.", "The same command goes on from there.", ExitCode.INTERRUPTED
        ) from None
    if as_json:
        emit_json("build", {"package": str(package.path), "manifest": package.manifest.data})
    else:
        show(package)
    failed = package.failed
    if failed:
        from packager.budgets import sentence

        narrate("Missed: " + "; ".join(sentence(row) for row in failed) + ".")
    return ExitCode.BUDGET if failed else ExitCode.DONE


def show(package: Package) -> None:
    """The result table: predicted beside measured, then the budgets."""
    from packager import figures
    from packager.budgets import sentence
    from packager.cli.bench import narrate_long_run

    data = package.manifest.data
    measured = data["measured"]
    columns = ("", f"predicted for {data['target']}", "measured here", "error")
    emit_table(data["name"], columns, [(row.label, *row.texts()) for row in figures.rows(data)], right=columns[1:])
    for row in data["verdicts"]:
        mark = "passed" if row["passed"] else "missed" if row["enforced"] else "missed on this machine"
        click.echo(f"{mark}: {sentence(row)}")
    machine = measured["machine"]
    click.echo(f"Measured on {measured['measured_at'][:10]}, on {machine['processor']}, {machine['cores']} cores.")
    narrate_long_run(measured)
    for text in measured["left_out"]:
        narrate(f"Left out: {text}.")
    if measured["noisy"]:
        narrate(f"This measurement is {figures.noise(measured)}; the same build, or `qwen-pack bench`, measures again.")
    click.echo(f"Package: {package.path}")
