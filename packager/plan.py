"""The plan of a build: frozen, named, and checked as a whole before the first byte is written."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from packager import sources, stages, verify
from packager.additions import Additions
from packager.cache import BuildCache
from packager.device import Target
from packager.errors import PackError, from_foreign, no_room, usage
from packager.files import free_bytes, nearest_existing
from packager.languages import in_words
from packager.paths import cache_dir
from packager.place import UNKNOWN, Identity, Place
from packager.quality.gate import Gate
from packager.runtime import Runtime, Tools
from packager.select import Candidate
from packager.select.preference import undercut
from packager.shape import Shape
from packager.sources import Source
from packager.units import human_bytes
from packager.workload import Workload


@dataclass(frozen=True)
class Plan:
    """What will be built: the chosen candidate, everything that was rejected for it, where the weights come from.

    `enforced` names the budgets that fail the build when the measurement misses them; the others are reported.
    `sustained_s` seconds of decoding without a pause show whether the machine throttles.
    `place` says whether this machine is the device, so that its figures may judge those budgets.
    `gate` says how the quality gate is to be held.
    """

    target: Target
    workload: Workload
    chosen: Candidate
    others: tuple[Candidate, ...]
    runtime: Runtime
    source: Source
    out: Path
    enforced: frozenset[str] = frozenset()
    version: str | None = None
    sustained_s: float = 0
    place: Place = UNKNOWN
    gate: Gate = field(default_factory=Gate)
    additions: Additions = field(default_factory=Additions)

    @cached_property
    def name(self) -> str:
        """The package's name; it says when the weights are random."""
        return package_name(self.chosen, self.source)

    @cached_property
    def versions(self) -> dict[str, str | None]:
        """The installed version of every distribution that takes part; None for one that is missing."""
        return {name: installed(name) for name in self.tools.distributions}

    @property
    def tools(self) -> Tools:
        """What must be installed for this build."""
        return self.runtime.tools(self.shape, self.chosen.recipe)

    @property
    def device(self) -> Identity:
        """What tells the device from other machines."""
        return Identity.of(self.target)

    @property
    def shape(self) -> Shape:
        """The shape of the chosen variant."""
        assert self.chosen.variant.shape is not None
        return self.chosen.variant.shape

    @property
    def gpu_layers(self) -> int:
        """Layers that run on a GPU with memory of its own, as the engine's option counts them; 0 where the target has none."""
        return self.chosen.split.gpu_layers if self.chosen.split else 0

    def why(self) -> str:
        """The choice in one sentence."""
        peers = len({candidate.variant.repo_id for candidate in (self.chosen, *self.others)})
        if peers == 1:
            return f"{self.chosen.variant.name} was named by the user."
        reached = {
            "smallest": "the smallest",
            "quality": "the best by published scores",
            "speed": "the fastest",
            "balanced": "the best balanced",
        }
        within = undercut(self.chosen, self.others, self.workload.prefer)
        return (
            f"Of {peers} variants {self.chosen.variant.name} is {reached[self.workload.prefer]}{within} that passes every rule "
            f"of the use case {self.workload.use_case!r}{in_words(self.workload.languages)} on {self.target.name}."
        )

    def smaller(self) -> list[dict[str, Any]]:
        """Why nothing smaller was taken: per smaller variant the reasons of its best candidate."""
        seen = {self.chosen.variant.repo_id}
        rows = []
        for candidate in self.others:
            variant = candidate.variant
            if variant.repo_id not in seen and variant.params_total and variant.params_total < (self.chosen.variant.params_total or 0):
                seen.add(variant.repo_id)
                rows.append(
                    {"variant": variant.repo_id, "recipe": candidate.recipe.id, "reasons": [asdict(reason) for reason in candidate.reasons]}
                )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """JSON form: what `build` is about to do."""
        return {
            "name": self.name,
            "target": self.target.name,
            "workload": self.workload.as_dict(),
            "chosen": self.chosen.as_dict(),
            "source": self.source.as_dict(),
            "out": str(self.out),
            "place": self.place.as_dict(),
            "gate": self.gate.as_dict(),
        }


def package_name(chosen: Candidate, source: Source) -> str:
    """`qwen3-0.6b-openvino-int4_sym_g128`, with `-dummy` behind it for random weights."""
    recipe = chosen.recipe.id.replace(":", "-").replace("/", "-")
    return f"{chosen.variant.name}-{recipe}{'-dummy' if source.kind == 'dummy' else ''}".lower()


def installed(distribution: str) -> str | None:
    """The installed version of a distribution; None when it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def problems(plan: Plan, available_memory: int | None = None, cache: BuildCache | None = None) -> list[PackError]:
    """Everything that would stop this build, found before it starts; empty when nothing would."""
    done = stages.cached(plan, cache or BuildCache())
    found = [
        missing_engine(plan.runtime, plan.tools),
        _unreadable(plan),
        _misplaced(plan),
        _occupied(plan),
        *_not_writable(plan),
        *_disk(plan, done),
        None if "convert" in done else _memory(plan, available_memory),
    ]
    return [problem for problem in found if problem is not None]


def check(plan: Plan, available_memory: int | None = None) -> None:
    """Raise all problems of a plan as one PackError; its exit code is the first one's."""
    found = problems(plan, available_memory)
    if len(found) == 1:
        raise found[0]
    if found:
        lines = "".join(f"\n  - {problem.message} {problem.hint}" for problem in found)
        raise PackError(f"This build cannot start, for {len(found)} reasons:{lines}", "", found[0].exit_code)


def missing_engine(runtime: Runtime, tools: Tools | None = None) -> PackError | None:
    """The sentence for a runtime whose engine, or whose tools for one build, are not installed here; None when they are."""
    tools = tools or Tools(runtime.extra, runtime.distributions)
    missing = [name for name in tools.distributions if installed(name) is None]
    if not missing:
        return None
    return usage(
        f"{runtime.name} is not installed here ({', '.join(missing)} missing).",
        f"Install it with: pip install 'qwen-pack[{tools.extra}]'",
    )


def _unreadable(plan: Plan) -> PackError | None:
    """The quality text that the user named must be one."""
    try:
        plan.gate.text  # noqa: B018
    except PackError as error:
        return error
    return None


def _misplaced(plan: Plan) -> PackError | None:
    """A package takes the place of the whole folder: never of one that something else lives in."""
    out, cache = plan.out.resolve(), cache_dir().resolve()
    if Path.cwd().is_relative_to(out):
        return usage(f"{plan.out} is the folder you stand in, or lies above it.", "Name a new folder with --out.")
    if out.is_relative_to(cache) or cache.is_relative_to(out):
        return usage(f"{plan.out} and the build cache in {cache} lie within each other.", "Choose another folder with --out.")
    return None


def _occupied(plan: Plan) -> PackError | None:
    """Nothing is replaced that this tool did not make."""
    out = plan.out
    try:
        mode = out.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return from_foreign(error)
    if stat.S_ISLNK(mode):
        return usage(f"{out} is a link.", "Name the folder itself, or another one, with --out.")
    if stat.S_ISDIR(mode) and not verify.strangers(out):
        return None
    return usage(f"{out} exists and holds what qwen-pack did not make.", "Choose another folder with --out.")


def _not_writable(plan: Plan) -> list[PackError]:
    found = []
    for folder, way in ((plan.out.parent, "--out"), (cache_dir(), "QWEN_PACK_CACHE")):
        nearest = nearest_existing(folder)
        if not nearest.is_dir():
            found.append(usage(f"{nearest} is a file, not a folder.", f"Choose another folder with {way}."))
        elif not os.access(nearest, os.W_OK | os.X_OK):
            found.append(usage(f"{nearest} is not writable.", f"Choose another folder with {way}."))
    return found


def _disk(plan: Plan, done: frozenset[str]) -> list[PackError]:
    """The cache holds the weights that we write and the conversion; the package is a copy of the artifact. What is `done` is there."""
    wanted = [
        (cache_dir(), 0 if "fetch" in done else sources.bytes_needed(plan.source, plan.shape)),
        (cache_dir(), 0 if "convert" in done else plan.runtime.build_needs(plan.shape, plan.chosen.recipe).disk),
        (plan.out.parent, 0 if "package" in done else plan.chosen.artifact_bytes),
    ]
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        existing = nearest_existing(folder)
        device = existing.stat().st_dev
        by_disk[device] = (existing, by_disk.get(device, (existing, 0))[1] + size)
    return [
        no_room(
            f"The build needs {human_bytes(size)} of disk below {folder} and {human_bytes(free_bytes(folder))} are free.",
            "Free some space, or choose other places with --out and QWEN_PACK_CACHE.",
        )
        for folder, size in by_disk.values()
        if size > free_bytes(folder)
    ]


def _memory(plan: Plan, available: int | None) -> PackError | None:
    needed = plan.runtime.build_needs(plan.shape, plan.chosen.recipe).memory
    if available is None or needed <= available:
        return None
    return no_room(
        f"The conversion needs {human_bytes(needed)} of memory and {human_bytes(available)} are available.",
        "Close other programs, build on a larger machine, or choose another recipe with --recipe.",
    )
