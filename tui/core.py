"""The core as the screens ask it: one function per question, each free to raise PackError. Imports
stay inside for the first paint."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from packager.errors import PackError, usage
from tui.ask import SOURCES, Ask, named

if TYPE_CHECKING:
    from packager.catalog import Variant
    from packager.device.identity import Here
    from packager.device.target import Target
    from packager.events import Event
    from packager.package.manifest import Manifest
    from packager.package.package import Package
    from packager.pipeline.adapter_package import AdapterPlan
    from packager.plan.adoption import Recognised
    from packager.plan.plan import Plan
    from packager.records import Measurement
    from packager.runtime import Runtime
    from packager.select import Candidate
    from packager.select.misses import Miss
    from packager.shipping.export import Exported
    from packager.sources.hub_file import HubFile
    from tui.leaving import Order
    from tui.outlook import Outlook


class World(Protocol):
    """What a question needs of the machine and the installation; see tui.services.Services, which
    is made of these questions."""

    @property
    def targets(self) -> Callable[[], tuple[Target, ...]]:
        """Every device."""

    @property
    def runtimes(self) -> Callable[[], tuple[Runtime, ...]]:
        """Every runtime."""

    @property
    def memory(self) -> Callable[[], tuple[int, int]]:
        """(total, available) bytes of this machine."""

    @property
    def here(self) -> Callable[[], Here | None]:
        """What tells this machine from the device a package is for."""

    @property
    def folder(self) -> Path:
        """Where packages are written."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to an Ask: every candidate, best first, the nearest misses where nothing fits, and
    seconds it took.

    `nothing` is the sentence for where nothing fits, else empty; `absent` says of each runtime
    whose engine is not installed here what to do; `cache_types` are those that a runtime of the
    target keeps.
    """

    ask: Ask
    candidates: tuple[Candidate, ...]
    misses: tuple[Miss, ...]
    seconds: float
    nothing: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)
    cache_types: tuple[str, ...] = ()

    @property
    def chosen(self) -> Candidate | None:
        """The tool's own choice, None where nothing fits."""
        return next(
            (candidate for candidate in self.candidates if candidate.verdict == "chosen"), None
        )


def find(services: World, ask: Ask) -> Found:
    """Measure the catalogue, or the checkpoint in the folder that was named, against the ask."""
    from packager import catalog
    from packager.plan.additions import applied, for_folder
    from packager.plan.choose import with_adapters
    from packager.select import candidates, choose
    from packager.select.cache_type import cache_types, keeping, with_cache_type
    from packager.select.misses import larger_than, nearest_misses
    from packager.select.none_fits import none_fits
    from packager.sources import adapters as loras

    started = time.perf_counter()
    workload, runtimes, target = ask.workload(), served(services, ask), ask.target
    kinds, missing = cache_types(target, runtimes), absent(services, target)
    recipe, taken = None, _adopted(ask, runtimes)
    if taken is not None:
        runtimes, recipe = (taken.model.runtime,), taken.model.recipe.id
    else:
        added = ask.options.additions()
        if ask.weights not in SOURCES:
            added = for_folder(added, ask.weights)
        runtimes = applied(runtimes, added)
    if ask.kv is not None:
        runtimes = with_cache_type(runtimes, ask.kv)
        target = keeping(target, runtimes)
    own: tuple[Variant, ...]
    if taken is not None:
        own = (taken.variant,)
    else:
        options = ask.options
        own, _ = with_adapters(
            *(None, ask.weights, loras.parse(ask.lora, options.offline)),
            *(options.revision, options.offline),
            pictures=workload.pictures,
            sound=workload.sound,
        )
    considered = candidates(
        target,
        workload,
        own or catalog.load(),
        runtimes,
        recipe=recipe,
        named=bool(own),
        every=True,
    )
    misses: tuple[Miss, ...] = ()
    nothing = ""
    if not choose(considered):
        larger = tuple(
            larger_than(
                target, services.targets(), lambda other: replace(ask, target=other).workload()
            )
        )
        nothing = none_fits(target, workload, considered)
        nearest = nearest_misses(
            target, workload, considered, runtimes, larger=larger, named=bool(own)
        )
        # Another device is the last thing to change: it is the one that the person has.
        misses = tuple(sorted(nearest, key=lambda miss: miss.flag.startswith("--target")))
    return Found(ask, considered, misses, time.perf_counter() - started, nothing, missing, kinds)


def _adopted(ask: Ask, runtimes: Sequence[Runtime]) -> Recognised | None:
    """The model that was converted already, where the ask names one. Raises PackError for what goes
    only with one, and for what never does, as the plan does."""
    from packager.plan import adoption

    options, fetched = ask.options, ask.hub_file.file if ask.hub_file is not None else None
    model = None if ask.place in SOURCES else adoption.adoptable(ask.place, runtimes)
    if model is None:
        adoption.refuse_without_adopted(options.against, options.tokenizer)
        return None
    adoption.refuse_with_adopted(model, ask.workload(), options.additions(), ask.lora, None)
    revision = None if fetched is not None else options.revision
    return adoption.recognise(model, None, options.against, revision, options.offline, fetched)


def hub_file(
    repo_id: str, name: str, revision: str | None, offline: bool
) -> Generator[object, None, HubFile]:
    """Bring a converted model of the hub into its cache."""
    from packager.sources.hub_file import fetching

    return fetching(repo_id, name, revision, offline)


def absent(services: World, target: Target) -> dict[str, str]:
    """What to do about each runtime of the target whose engine is not installed here, by its
    name."""
    from packager.engines import missing_engine

    errors = {
        runtime.name: missing_engine(runtime)
        for runtime in services.runtimes()
        if runtime.name in target.runtimes
    }
    return {
        name: f"{error.message} {error.hint}".strip()
        for name, error in errors.items()
        if error is not None
    }


def unserved() -> frozenset[str]:
    """The use cases that no runtime serves on any device."""
    from packager import catalog
    from packager.select.none_fits import unserved as core

    return core(catalog.load())


def underway(plan: Plan) -> bool:
    """Whether somebody else builds into the folder of the plan now."""
    from packager.pipeline.underway import is_underway

    return is_underway(plan.out)


def replaced(plan: Plan) -> Package | None:
    """The package that stands where the plan writes; None where there is none."""
    from packager.package import manifest
    from packager.package.package import Package

    if not (plan.out / manifest.NAME).is_file():
        return None
    try:
        return Package(plan.out, manifest.read(plan.out))
    except PackError:
        return None


def served(services: World, ask: Ask) -> tuple[Runtime, ...]:
    """The installed adapters that the target names, in its order. Raises PackError where there is
    none."""
    by_name = {runtime.name: runtime for runtime in services.runtimes()}
    runtimes = tuple(by_name[name] for name in ask.target.runtimes if name in by_name)
    if not runtimes:
        raise usage(
            f"{ask.target.name} is served by {', '.join(ask.target.runtimes)}, and no adapter of "
            "these is installed."
        )
    return runtimes


def plan(services: World, ask: Ask, candidate: Candidate, out: Path | None) -> Plan:
    """The same plan that the command line makes of `build_command`."""
    from packager.plan.choose import make_plan
    from packager.plan.draft import parse, speculating

    choice, options = named(ask, candidate), ask.options
    made = make_plan(
        ask.target,
        ask.workload(),
        services.runtimes(),
        model=choice["model"],
        recipe=choice["recipe"],
        weights=ask.weights,
        lora=ask.lora,
        against=options.against,
        tokenizer=options.tokenizer,
        hub_file=ask.hub_file.file if ask.hub_file is not None else None,
        revision=options.revision,
        offline=options.offline,
        out=out,
        version=options.version,
        gate=options.gate(),
        additions=options.additions(),
        enforced=ask.wish.enforced(),
        here=services.here(),
    )
    folder = made.out if out is not None else (services.folder / made.name).absolute()
    made = replace(
        made,
        out=folder,
        profile=ask.profile.read(),
        sustained_s=options.sustained_s,
        warm=ask.profile.warm,
    )
    return speculating(made, parse(ask.profile.speculate or "off"), services.runtimes())


def problems(services: World, plan: Plan) -> list[PackError]:
    """What would stop the build, all of it."""
    from packager.pipeline.preflight import problems as of_plan

    return of_plan(plan, services.memory()[1])


def adapter_plan(services: World, base: Path, location: str, weights: str | None) -> AdapterPlan:
    """How an adapter becomes a package for a finished one. Raises PackError as
    `packager.pipeline.adapter_package.make_plan`."""
    from packager.package import manifest
    from packager.pipeline.adapter_package import make_plan

    runtime = _runtime_of(services, manifest.read(base))
    folder = None if weights is None else Path(weights)
    made = make_plan(base, location, runtime, weights=folder)
    return replace(made, out=(services.folder / made.name).absolute())


def build(plan: Plan | AdapterPlan) -> Generator[Event, None, Package]:
    """The pipeline itself."""
    from packager.pipeline import adapter_package
    from packager.pipeline.run import run

    if isinstance(plan, adapter_package.AdapterPlan):
        return adapter_package.run(plan)
    return run(plan)


def outlook(services: World, ask: Ask, plan: Plan) -> Outlook:
    """How long the build takes, what it needs, and what a longer context would cost."""
    from packager.select.cache_type import keeping, with_cache_type
    from tui.outlook import outlook as core

    if ask.kv is None:
        return core(ask, plan)
    # A cache type that was tried is no recipe of the device's file.
    runtimes = with_cache_type((plan.runtime,), ask.kv)
    return core(
        replace(ask, target=keeping(ask.target, runtimes)), replace(plan, runtime=runtimes[0])
    )


def expected(plan: Plan | AdapterPlan) -> dict[str, float]:
    """Seconds that the stages of a build are expected to take, as far as they are known."""
    from packager.pipeline import adapter_package
    from tui.outlook import expected as core

    return {} if isinstance(plan, adapter_package.AdapterPlan) else core(plan)


def bench(services: World, package: Path) -> Generator[Event, None, Measurement]:
    """Measure a package again."""
    from packager.package import manifest
    from packager.pipeline import bench as core

    runtime = _runtime_of(services, manifest.read(package))
    return core.run(package, runtime, services.here())


def _runtime_of(services: World, known: Manifest) -> Runtime:
    """The installed adapter of the engine that a package runs on. Raises PackError (usage) where
    there is none."""
    name = known.contents.runtime.name
    for runtime in services.runtimes():
        if runtime.name == name:
            return runtime
    raise usage(
        f"The package runs on {name}, and no adapter of that name is installed.",
        "`qwen-pack doctor` says what is missing.",
    )


def export(order: Order) -> Generator[Event, None, Exported]:
    """Write a package in another form."""
    from packager.shipping.export import export as core
    from packager.shipping.signature import Signer
    from packager.units import parse_bytes

    return core(
        order.package,
        order.format,
        order.out,
        limit=parse_bytes(order.size) if order.size else None,
        allow_dummy=order.allow_dummy,
        accepted=(order.accepted,) if order.accepted else (),
        signer=Signer(order.key) if order.key else None,
        settings=order.settings,
    )


def engine_log(stage: str) -> str:
    """The end of what the engines themselves printed in the last run of a stage; empty where there
    is nothing."""
    from packager.pipeline.cache import BuildCache

    try:
        with BuildCache().log(stage).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16384))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def packages(folder: Path) -> tuple[Package, ...]:
    """The packages in a folder and those built elsewhere, newest first."""
    from packager.package import shelf

    return shelf.find(folder)
