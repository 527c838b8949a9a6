"""The matrix of a plan: every cell with its forecast, and the reason of each that is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from packager.catalog import Variant
from packager.engines import missing_engine
from packager.errors import ExitCode, PackError, usage
from packager.json_values import JsonObject
from packager.need.workload import Workload, merge
from packager.plan.choose import make_plan, with_adapters
from packager.plan.plan import Plan
from packager.report.budgets import SET_BY
from packager.runtime import BuildNeeds
from packager.select import candidates, choose
from packager.select.candidate import Candidate
from packager.select.preference import loss
from packager.sources import adapters as loras
from packager.sweep.cell import Cell
from packager.sweep.expect import Expected, Pace
from packager.sweep.known import Known
from packager.sweep.plan_file import SweepPlan
from packager.units import human_bytes

MOST_CELLS = 100_000

_NOTHING, _UNKNOWN = BuildNeeds(0, 0), Expected()


@dataclass(frozen=True, slots=True)
class Planned:
    """A cell with what is known of it before anything is built.

    Bytes of the model files, of memory at run time and of memory and disk during the conversion;
    `expected` are seconds by stage. `quality` is on a scale of published scores, None where nothing
    is published; `context` is the one that it is built for, in tokens. `problem` says why it cannot
    be built, None where it can.
    """

    cell: Cell
    artifact_bytes: int = 0
    memory_bytes: int = 0
    build: BuildNeeds = _NOTHING
    parameters: int = 0
    quality: float | None = None
    decode_tps: float | None = None
    context: int | None = None
    expected: Expected = _UNKNOWN
    problem: str | None = None
    exit_code: int = 0

    @property
    def disk_bytes(self) -> int:
        """What its conversion takes of a disk, the files that stay among it."""
        return self.build.disk + self.artifact_bytes

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "id": self.cell.id,
            **self.cell.to_json(),
            "artifact_bytes": self.artifact_bytes or None,
            "memory_bytes": self.memory_bytes or None,
            "build_memory_bytes": self.build.memory or None,
            "build_disk_bytes": self.build.disk or None,
            "expected_s": self.expected.as_dict() if self.problem is None else None,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Matrix:
    """`planned` in the order in which they are built, the impossible ones among them; `excluded`
    cells with the plan's own reason."""

    planned: tuple[Planned, ...]
    excluded: tuple[tuple[Cell, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def possible(self) -> tuple[Planned, ...]:
        """Those that can be built."""
        return tuple(one for one in self.planned if one.problem is None)


def cells(plan: SweepPlan, known: Known) -> Iterator[Cell]:
    """Every cell before exclusions, each once. Cells that share a conversion follow each other."""
    sources = [(name, False) for name in plan.variants] + [
        (name, True) for name in plan.checkpoints
    ]
    seen = set()
    for variant, local in sources:
        for lora, recipe, kv, context, profile, target in product(
            plan.adapters,
            _recipes(plan, known),
            plan.kv,
            plan.contexts,
            plan.profiles,
            plan.targets,
        ):
            # Without recipes in the plan, each target's own count for that target alone.
            if plan.recipes or recipe in _own(target, known):
                cell = Cell(variant, recipe, target, kv, context, profile, local, lora)
                if cell not in seen:
                    seen.add(cell)
                    yield cell


def _recipes(plan: SweepPlan, known: Known) -> Sequence[str]:
    if plan.recipes:
        return plan.recipes
    return tuple(dict.fromkeys(one for target in plan.targets for one in _own(target, known)))


def _own(target: str, known: Known) -> Sequence[str]:
    """A target's own recipes, without their cache types."""
    return tuple(dict.fromkeys(one.split("/")[0] for one in known.target(target).recipes))


def matrix(plan: SweepPlan, known: Known, pace: Pace | None = None) -> Matrix:
    """Every cell of the plan with its forecast. Raises PackError (usage) for too many of them, and
    where nothing is left."""
    pace = pace or Pace()
    found, excluded, used = [], [], set()
    planner = Planner(plan, known)
    for number, cell in enumerate(cells(plan, known)):
        if number >= MOST_CELLS:
            raise usage(
                f"The plan has more than {MOST_CELLS} cells.", "Narrow an axis, or split the plan."
            )
        hits = [one for one in plan.exclusions if one.matches(cell)]
        used |= {plan.exclusions.index(one) for one in hits}
        if hits:
            excluded.append((cell, hits[0].why or "excluded by the plan"))
        else:
            found.append(planner.forecast(cell, pace))
    if not found:
        raise usage("The plan leaves no cell to build.", "Its exclusions remove all of them.")
    notes = [
        f"exclude[{place}] matches no cell."
        for place in range(1, len(plan.exclusions) + 1)
        if place - 1 not in used
    ]
    return Matrix(_shared_once(found), tuple(excluded), tuple(notes))


def _shared_once(found: Sequence[Planned]) -> tuple[Planned, ...]:
    """The same with the time of a stage that cells share told with the first of them alone."""
    seen: set[tuple[Any, ...]] = set()
    rows = []
    for one in found:
        if one.problem is not None:
            rows.append(one)
            continue
        cell, expected = one.cell, one.expected
        form = (cell.weights, cell.recipe_id, cell.profile, one.context)
        for stage, key in (
            ("fetch", ("fetch", cell.weights)),
            ("reference", ("reference", cell.weights, one.context)),
            *((stage, (stage, *form)) for stage in ("convert", "measure", "quality")),
        ):
            expected = expected.without(stage) if key in seen else expected
            seen.add(key)
        rows.append(replace(one, expected=expected))
    return tuple(rows)


class Planner:
    """Makes a Plan of a cell; what many cells share is looked up once."""

    def __init__(self, plan: SweepPlan, known: Known) -> None:
        self._plan, self._known = plan, known
        self._variants: dict[tuple[str, bool], tuple[Variant, ...]] = {}
        self._missing: dict[tuple[str, tuple[str, ...]], PackError | None] = {}

    def plan(self, cell: Cell, out: Path) -> Plan:
        """The plan of a build into `out`. Raises PackError: exit code 3 where the cell does not fit
        its target."""
        target, runtime = self._known.target(cell.target), self._known.by_prefix(cell.recipe)
        plan = make_plan(
            target,
            self._workload(cell),
            [runtime],
            model=None if cell.local else cell.variant,
            recipe=cell.recipe_id,
            weights=cell.variant if cell.local else self._plan.source,
            offline=self._plan.offline,
            out=out,
            enforced=self._enforced(),
            here=self._known.here,
            lora=cell.lora,
        )
        return replace(plan, profile=self._plan.profiles[cell.profile])

    def forecast(self, cell: Cell, pace: Pace) -> Planned:
        """What is known of the cell before it is built, or why it cannot be."""
        try:
            chosen = self._candidate(cell)
            runtime = self._known.by_prefix(cell.recipe)
            shape = chosen.variant.shape
            assert shape is not None
            needs = runtime.build_needs(shape, chosen.recipe)
            self._refuse_impossible(cell, chosen, needs)
        except PackError as error:
            return Planned(cell, problem=str(error), exit_code=int(error.exit_code))
        size = shape.parameters()
        return Planned(
            cell,
            chosen.artifact_bytes,
            chosen.footprint.peak,
            needs,
            size,
            None if chosen.quality is None else chosen.quality - loss(chosen),
            chosen.forecast.decode_tps,
            chosen.context,
            pace.of(runtime.name, size, random=self._plan.source == "dummy" and not cell.local),
        )

    def _candidate(self, cell: Cell) -> Candidate:
        target, runtime = self._known.target(cell.target), self._known.by_prefix(cell.recipe)
        if runtime.name not in target.runtimes:
            raise usage(f"{target.name} is not served by {runtime.name}.")
        considered = candidates(
            target,
            self._workload(cell),
            self._variant(cell),
            [runtime],
            recipe=cell.recipe_id,
            named=True,
        )
        chosen = choose(considered)
        if chosen is None:
            why = "; ".join(map(str, considered[0].reasons)) if considered else "nothing serves it"
            raise PackError(f"{why}.", exit_code=ExitCode.NOTHING_FITS)
        return chosen

    def _refuse_impossible(self, cell: Cell, chosen: Candidate, needs: BuildNeeds) -> None:
        """Raise PackError for what would stop the build on this machine before it starts."""
        assert chosen.variant.shape is not None
        runtime = self._known.by_prefix(cell.recipe)
        tools = runtime.tools(chosen.variant.shape, chosen.recipe)
        key = (runtime.name, tools.distributions)
        if key not in self._missing:
            self._missing[key] = missing_engine(runtime, tools)
        missing = self._missing[key]
        if missing is not None:
            raise missing
        available = self._known.available
        if available is not None and needs.memory > available:
            raise PackError(
                f"The conversion needs {human_bytes(needs.memory)} of memory and "
                f"{human_bytes(available)} are available.",
                exit_code=ExitCode.RESOURCE,
            )

    def _variant(self, cell: Cell) -> tuple[Variant, ...]:
        key = (cell.weights, cell.local)
        if key not in self._variants:
            model, weights = (None, cell.variant) if cell.local else (cell.variant, "dummy")
            adapters = loras.parse(cell.lora, self._plan.offline)
            self._variants[key] = with_adapters(model, weights, adapters)[0]
        return self._variants[key]

    def _workload(self, cell: Cell) -> Workload:
        given = {**self._plan.need, "context": cell.context}
        if given.get("use_case") is None and not cell.local:
            # An embedder or a reranker says its own use case, as `build --model` has it.
            from packager.select.rules import RETRIEVAL_KINDS

            given["use_case"] = RETRIEVAL_KINDS.get(self._variant(cell)[0].kind)
        return merge(given, self._known.target(cell.target).workload)

    def _enforced(self) -> frozenset[str]:
        return frozenset(rule for key, rule in SET_BY.items() if key in self._plan.need)
