"""`qwen-pack build`: choose, fetch, convert, measure and package for a target."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click

from packager.cli.additions import addition_options, additions_from
from packager.cli.adoption import adoption_options, file_of_hub
from packager.cli.build_outcome import show_outcome
from packager.cli.options import (
    Flags,
    Number,
    machine_options,
    sustained_option,
    workload_from,
    workload_options,
)
from packager.cli.output import json_option, narrate
from packager.cli.profile import profile_from, profile_options
from packager.cli.shared_options import out_option
from packager.errors import ExitCode, PackError, usage
from packager.escapes import command as command_line

if TYPE_CHECKING:
    from packager.cli.reach import Way
    from packager.device.target import Target
    from packager.events import Event
    from packager.package.package import Package
    from packager.plan.plan import Plan
    from packager.quality.gate import Gate
    from packager.runtime import Runtime

    Events: TypeAlias = Generator[Event, None, Package]


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
def command(**flags: Any) -> int:
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
    from packager.plan.draft import parse, speculating
    from packager.quality.gate import Gate
    from packager.shipping.versions import ordered
    from targets import registry

    asked = _Asked(**{name: flags.pop(name) for name in _Asked._fields})
    drafting = parse(asked.speculate)
    if asked.version is not None:
        ordered(asked.version)
    gate = Gate(asked.quality_text, asked.quality_tokens, asked.allow_quality_loss)
    if asked.adapter is not None or asked.base is not None:
        return _build_adapter(asked, gate)
    if asked.target is None:
        raise click.MissingParameter(param_hint="'--target'", param_type="option")
    elsewhere = _elsewhere(asked.address, asked.agent, asked.cool)
    profile = profile_from(flags)
    device = registry.target(asked.target)
    adapters = _adapters(asked, device)
    plan = _plan(asked, flags, device, adapters, gate)
    plan = replace(plan, sustained_s=asked.sustained, profile=profile, warm=asked.warm)
    plan = speculating(plan, drafting, adapters)
    for row in plan.untried:
        narrate(row.sentence())
    events = (
        _comparing(plan, asked, device, adapters, elsewhere)
        if asked.several
        else _building(plan, asked, elsewhere)
    )
    try:
        package = follow(events)
    except KeyboardInterrupt:
        raise PackError(
            "Interrupted: what was finished is in the cache.",
            "Run the same command again to continue.",
            ExitCode.INTERRUPTED,
        ) from None
    if elsewhere is not None and asked.address is not None:
        package = _measured_on(package, asked.address, elsewhere, asked.sustained)
    return show_outcome(package, asked.as_json)


class _Asked(NamedTuple):
    """The options of this command alone; those that it shares are flags."""

    target: str | None
    model: str | None
    runtimes: tuple[str, ...]
    recipes: tuple[str, ...]
    weights: str
    against: str | None
    tokenizer: str | None
    hub_file: str | None
    loras: tuple[str, ...]
    adapter: str | None
    base: Path | None
    revision: str | None
    out: Path | None
    offline: bool
    sustained: float
    version: str | None
    quality_text: Path | None
    quality_tokens: int | None
    allow_quality_loss: bool
    warm: bool
    speculate: str
    as_json: bool
    address: str | None
    agent: str | None
    cool: float | None

    @property
    def several(self) -> bool:
        """Whether several ways are built, of which the best measured is kept."""
        from packager.pipeline.comparison import ALL

        return len(self.runtimes) > 1 or ALL in self.runtimes or len(self.recipes) > 1


def _build_adapter(asked: _Asked, gate: Gate) -> int:
    from packager.cli.build_adapter import build_adapter

    return build_adapter(
        asked.adapter,
        asked.base,
        asked.weights,
        asked.out,
        gate,
        asked.version,
        asked.offline,
        asked.as_json,
    )


def _adapters(asked: _Asked, device: Target) -> Sequence[Runtime]:
    """The runtimes that are chosen among."""
    from packager.pipeline import comparison
    from targets import registry

    known = registry.runtimes()
    return comparison.served(device, known, asked.runtimes) if asked.runtimes else known


def _plan(
    asked: _Asked,
    flags: Flags,
    device: Target,
    adapters: Sequence[Runtime],
    gate: Gate,
) -> Plan:
    """What is built, and from what; of several ways, the one that would be chosen."""
    from packager.plan.choose import make_plan
    from packager.report.budgets import SET_BY
    from targets.machine.here import here

    model, revision, taken = asked.model, asked.revision, None
    if asked.hub_file is not None:
        taken = file_of_hub(model, asked.hub_file, asked.weights, revision, asked.offline)
        model, revision = None, None
    plan = make_plan(
        device,
        workload_from(flags, device, model),
        adapters,
        model=model,
        recipe=asked.recipes[0] if len(asked.recipes) == 1 and not asked.several else None,
        weights=asked.weights,
        lora=asked.loras,
        against=asked.against,
        tokenizer=asked.tokenizer,
        hub_file=taken,
        revision=revision,
        offline=asked.offline,
        out=asked.out,
        version=asked.version,
        here=here(),
        gate=gate,
        additions=additions_from(flags),
        enforced=frozenset(rule for flag, rule in SET_BY.items() if flags.get(flag) is not None),
    )
    if plan.recognised is not None and asked.several:
        raise usage(
            f"{plan.recognised.model.place.name} is taken as it is, in one runtime.",
            "Name one --runtime at most.",
        )
    return plan


def _comparing(
    plan: Plan, asked: _Asked, device: Target, adapters: Sequence[Runtime], elsewhere: Way | None
) -> Events:
    """Build every way that was asked for, and keep the best."""
    from packager.cli.reach import look, refuse_runtime
    from packager.pipeline import comparison
    from targets.machine import limits as machine

    ways = comparison.check(
        comparison.compare(plan, device, adapters, asked.runtimes, asked.recipes),
        machine.memory().available,
    )
    recipes = ", ".join(way.chosen.recipe.id for way in ways.plans)
    narrate(f"{plan.chosen.variant.name} as {recipes}: {plan.why()}")
    if elsewhere is not None and asked.address is not None:
        for way in ways.plans:
            refuse_runtime(way.runtime.name, elsewhere.agent, way.shape.task)
        look(asked.address, elsewhere.cool_c)
    return comparison.run(ways)


def _building(plan: Plan, asked: _Asked, elsewhere: Way | None) -> Events:
    """Build the one way of the plan."""
    from packager.cli.reach import look, refuse_runtime
    from packager.pipeline import warm_stage
    from packager.pipeline.preflight import check
    from packager.pipeline.run import run
    from packager.units import human_bytes
    from targets.machine import limits as machine

    check(plan, machine.memory().available)
    if elsewhere is not None and asked.address is not None:
        refuse_runtime(plan.runtime.name, elsewhere.agent, plan.shape.task)
        look(asked.address, elsewhere.cool_c)
    narrate(f"{plan.name}: {plan.why()}")
    if plan.warm:
        narrate(
            "The state of the fixed prefix takes at most "
            f"{human_bytes(warm_stage.planned_bytes(plan))} on the device."
        )
    return run(plan)


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
        words = ["qwen-pack", "bench", str(package.path), "--on", machine]
        words += [] if way.agent is None else ["--agent", way.agent]
        raise PackError(
            f"The package is in {package.path}, but it was not measured on {machine}: "
            f"{error.message}",
            f"{error.hint} Then: {command_line(words)}",
            error.exit_code,
        ) from None
    bench.save(package.path, now)
    return Package(package.path, manifest.read(package.path))
