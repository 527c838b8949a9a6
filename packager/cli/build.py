"""`qwen-pack build`: choose, fetch, convert, measure and package for a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.additions import addition_options, additions_from
from packager.cli.adoption import adoption_options, file_of_hub
from packager.cli.options import (
    Number,
    machine_options,
    sustained_option,
    workload_from,
    workload_options,
)
from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.cli.profile import profile_from, profile_options
from packager.cli.quality import show_quality
from packager.cli.shared_options import out_option
from packager.errors import ExitCode, PackError, usage
from packager.escapes import sh

if TYPE_CHECKING:
    from packager.cli.reach import Way
    from packager.package.package import Package
    from packager.records import Contents, Verdict


@click.command("build")
@click.option(
    "--target",
    metavar="NAME|FILE.toml",
    help="The device it is for; `qwen-pack targets` lists them.",
)
@click.option("--model", metavar="ID", help="Take this variant instead of choosing one.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME|all",
    help="Take this runtime; with several, or all, the best measured is kept.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="R",
    help="Take this recipe, for example openvino:int8_asym.",
)
@click.option(
    "--weights",
    default="hub",
    show_default=True,
    metavar="hub|modelscope|dummy|PATH",
    help="Where the weights come from; a .gguf file is packaged as it is.",
)
@adoption_options
@click.option(
    "--lora",
    "loras",
    multiple=True,
    metavar="DIR|REPO[@REV][:SCALE]",
    help="Merge this LoRA adapter into the weights; repeatable.",
)
@click.option(
    "--adapter",
    metavar="DIR|REPO[@REV][:SCALE]",
    help="Package this LoRA adapter alone, for the package that --base names.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="PACKAGE",
    help="With --adapter: the finished package that it is for.",
)
@click.option("--revision", metavar="SHA", help="Commit, tag or branch of the hub's repository.")
@out_option("DIR", "The folder that becomes the package; its own name, here, by default.")
@sustained_option
@machine_options(several=False)
@click.option(
    "--quality-text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The quality gate reads this text instead of ours.",
)
@click.option(
    "--quality-tokens",
    type=Number(2, 10**6, whole=True),
    help="Tokens that it reads; by the model's size unless given.",
)
@click.option(
    "--allow-quality-loss",
    is_flag=True,
    help="Write the package even where it lost too much; its manifest says so.",
)
@click.option(
    "--offline", is_flag=True, help="Use what the hub's cache holds; never ask the network."
)
@click.option(
    "--package-version",
    "version",
    metavar="V",
    help="The package's own version, like 1.4.0; `verify --min-version` refuses older ones.",
)
@click.option(
    "--warm",
    is_flag=True,
    help="Keep the state of the system prompt and the tools: no chat computes them twice.",
)
@click.option(
    "--speculate",
    default="off",
    show_default=True,
    metavar="auto|lookup|mtp|draft:X|off",
    help="Measure whether drafted tokens pay on this machine; packaged only where they do. "
    "X is a variant, a package or a folder.",
)
@addition_options
@profile_options
@workload_options
@json_option
def command(
    target: str | None,
    model: str | None,
    runtimes: tuple[str, ...],
    recipes: tuple[str, ...],
    weights: str,
    against: str | None,
    tokenizer: str | None,
    hub_file: str | None,
    loras: tuple[str, ...],
    adapter: str | None,
    base: Path | None,
    revision: str | None,
    out: Path | None,
    offline: bool,
    sustained: float,
    version: str | None,
    quality_text: Path | None,
    quality_tokens: int | None,
    allow_quality_loss: bool,
    warm: bool,
    speculate: str,
    as_json: bool,
    address: str | None,
    agent: str | None,
    cool: float | None,
    **flags: Any,
) -> int:
    """Choose, fetch, convert, measure and package for a target.

    \b
    qwen-pack build --target laptop-cpu
    qwen-pack build --target laptop-cpu --model Qwen3-1.7B --weights ./my-finetune
    qwen-pack build --target laptop-cpu --model Qwen3-1.7B --lora ./my-adapter
    qwen-pack build --adapter ./my-adapter --base PACKAGE    the adapter alone, for PACKAGE
    qwen-pack build --target laptop-cpu --weights dummy    random weights of the true shape
    qwen-pack build --target laptop-cpu --runtime all      every runtime that fits; the best is kept
    qwen-pack build --target raspberry-pi-5-8gb --on ssh://pi@pi5    built here, measured there
    """
    from packager.cli.progress import follow
    from packager.cli.reach import look, refuse_runtime
    from packager.pipeline import comparison, warm_stage
    from packager.pipeline.preflight import check
    from packager.pipeline.run import run
    from packager.plan.choose import make_plan
    from packager.plan.draft import parse, speculating
    from packager.quality.gate import Gate
    from packager.report.budgets import SET_BY
    from packager.shipping.versions import ordered
    from packager.units import human_bytes
    from targets import registry
    from targets.machine import limits as machine
    from targets.machine.here import here

    asked = parse(speculate)
    if version is not None:
        ordered(version)
    gate = Gate(quality_text, quality_tokens, allow_quality_loss)
    if adapter is not None or base is not None:
        from packager.cli.build_adapter import build_adapter

        return build_adapter(adapter, base, weights, out, gate, version, offline, as_json)
    if target is None:
        raise click.MissingParameter(param_hint="'--target'", param_type="option")
    elsewhere = _elsewhere(address, agent, cool)
    profile = profile_from(flags)
    device = registry.target(target)
    taken = None
    if hub_file is not None:
        taken = file_of_hub(model, hub_file, weights, revision, offline)
        model, revision = None, None
    adapters = (
        comparison.served(device, registry.runtimes(), runtimes)
        if runtimes
        else registry.runtimes()
    )
    several = len(runtimes) > 1 or comparison.ALL in runtimes or len(recipes) > 1
    plan = make_plan(
        device,
        workload_from(flags, device, model),
        adapters,
        model=model,
        recipe=recipes[0] if len(recipes) == 1 and not several else None,
        weights=weights,
        lora=loras,
        against=against,
        tokenizer=tokenizer,
        hub_file=taken,
        revision=revision,
        offline=offline,
        out=out,
        version=version,
        here=here(),
        gate=gate,
        additions=additions_from(flags),
        enforced=frozenset(rule for flag, rule in SET_BY.items() if flags.get(flag) is not None),
    )
    if plan.recognised is not None and several:
        raise usage(
            f"{plan.recognised.model.place.name} is taken as it is, in one runtime.",
            "Name one --runtime at most.",
        )
    plan = replace(plan, sustained_s=sustained, profile=profile, warm=warm)
    plan = speculating(plan, asked, adapters)
    for row in plan.untried:
        narrate(row.sentence())
    available = machine.memory().available
    if several:
        ways = comparison.check(
            comparison.compare(plan, device, adapters, runtimes, recipes), available
        )
        narrate(
            f"{plan.chosen.variant.name} as "
            f"{', '.join(way.chosen.recipe.id for way in ways.plans)}: {plan.why()}"
        )
        if elsewhere is not None and address is not None:
            for way in ways.plans:
                refuse_runtime(way.runtime.name, elsewhere.agent, way.shape.task)
            look(address, elsewhere.cool_c)
        events = comparison.run(ways)
    else:
        check(plan, available)
        if elsewhere is not None and address is not None:
            refuse_runtime(plan.runtime.name, elsewhere.agent, plan.shape.task)
            look(address, elsewhere.cool_c)
        narrate(f"{plan.name}: {plan.why()}")
        if plan.warm:
            narrate(
                "The state of the fixed prefix takes at most "
                f"{human_bytes(warm_stage.planned_bytes(plan))} on the device."
            )
        events = run(plan)
    try:
        package = follow(events)
    except KeyboardInterrupt:
        raise PackError(
            "Interrupted: what was finished is in the cache.",
            "Run the same command again to continue.",
            ExitCode.INTERRUPTED,
        ) from None
    if elsewhere is not None and address is not None:
        package = _measured_on(package, address, elsewhere, sustained)
    if as_json:
        emit_json("build", {"package": str(package.path), "manifest": package.manifest.data})
    else:
        if package.contents.alternatives:
            from packager.cli.comparison_table import show_comparison

            show_comparison(package.contents)
        show(package)
    failed = package.failed
    if failed:
        from packager.report.budgets import sentence

        narrate("Missed: " + "; ".join(sentence(row) for row in failed) + ".")
    return ExitCode.BUDGET if failed else ExitCode.DONE


def _elsewhere(machine: str | None, agent: str | None, cool: float | None) -> Way | None:
    """How another machine is measured once the package stands; an address that is none, and an
    agent that there is not, are refused before anything is built."""
    from packager.cli.reach import Way, refuse_way
    from packager.errors import usage

    if machine is None:
        if agent is not None or cool is not None:
            flag = "--agent" if agent is not None else "--cool"
            raise usage(f"{flag} works only with --on here.", "Name the machine with --on.")
        return None
    refuse_way(machine, agent)
    return Way(agent, cool_c=cool)


def _measured_on(package: Package, machine: str, way: Way, sustained_s: float) -> Package:
    """The package with the figures of another machine, which judge its budgets where that is the
    device."""
    from packager.cli.progress import follow
    from packager.cli.reach import measure_on
    from packager.package import manifest
    from packager.package.package import Package
    from packager.pipeline import bench

    runtime = package.contents.runtime.name
    try:
        now = follow(
            measure_on(package.path, runtime, machine, replace(way, sustained_s=sustained_s))
        )
    except PackError as error:
        raise PackError(
            f"The package is in {package.path}, but it was not measured on {machine}: "
            f"{error.message}",
            f"{error.hint} Then: qwen-pack bench {sh(str(package.path))} --on {machine}",
            error.exit_code,
        ) from None
    bench.save(package.path, now)
    return Package(package.path, manifest.read(package.path))


def show(package: Package) -> None:
    """The result table: predicted beside measured, then the budgets, and where the figures come
    from."""
    from packager.report import figures
    from packager.report.budgets import sentence

    contents = package.contents
    here = (
        "measured here"
        if contents.measured is None or contents.measured.on_device
        else "measured here, not on the device"
    )
    columns = ("", f"predicted for {contents.target}", here, "error")
    emit_table(
        contents.name,
        columns,
        [(row.label, *row.texts()) for row in figures.rows_of(contents)],
        right=columns[1:],
    )
    show_quality(contents.quality)
    if contents.warm is not None:
        say(contents.warm.sentence())
    if contents.speculation is not None:
        say(contents.speculation.sentence())
    for verdict in contents.verdicts:
        say(f"{_mark(verdict)}: {sentence(verdict)}")
    _where(contents)
    say(f"Package: {package.path}")


def _mark(verdict: Verdict) -> str:
    """The outcome of a budget in a word or two."""
    if verdict.passed is None:
        return "open"
    if verdict.passed:
        return "passed"
    return "missed" if verdict.enforced else "missed on this machine"


def _where(contents: Contents) -> None:
    """On which machine the figures were taken, and whether that is the device."""
    from packager.cli.bench import narrate_long_run
    from packager.device.identity import NOT_YET

    measured = contents.measured
    if measured is None:
        say(f"{NOT_YET.capitalize()}: {contents.not_measured}")
    else:
        machine = measured.machine
        on = f", on {machine.processor}, {machine.cores} cores" if machine else ""
        say(f"Measured on {(measured.measured_at or '')[:10]}{on}.")
        narrate_long_run(measured.sustained)
        for text in measured.left_out:
            narrate(f"Left out: {text}.")
        if measured.noisy:
            narrate(
                f"This measurement is {measured.noise}; the same build, or `qwen-pack bench`, "
                "measures again."
            )
        if measured.place is None or measured.place.on_device:
            return
        say(f"{NOT_YET.capitalize()}: {measured.place.why}. What was measured here is a check.")
    narrate(
        f"`qwen-pack bench` on {contents.target} adds its figures and judges the budgets there."
    )
