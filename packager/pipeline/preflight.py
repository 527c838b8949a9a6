"""Everything that would stop a build, found before the first byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from packager import sources
from packager.engines import missing_engine
from packager.errors import PackError, from_foreign, no_room, usage
from packager.files import free_bytes, nearest_existing
from packager.package import verify
from packager.paths import cache_dir
from packager.pipeline import speculation_stage, stages, warm_stage
from packager.pipeline.cache import BuildCache
from packager.plan.plan import Plan
from packager.units import human_bytes


def problems(
    plan: Plan, available_memory: int | None = None, cache: BuildCache | None = None
) -> list[PackError]:
    """Everything that would stop this build, found before it starts; empty when nothing would."""
    done = stages.cached(plan, cache or BuildCache())
    errors = [
        missing_engine(plan.runtime, plan.tools),
        _unreadable(plan),
        _profiled(plan),
        _misplaced(plan),
        _occupied(plan),
        warm_stage.obstacle(plan),
        speculation_stage.obstacle(plan),
        *_not_writable(plan),
        *_disk(plan, done),
        None if "convert" in done else _memory(plan, available_memory),
    ]
    return [problem for problem in errors if problem is not None]


def check(plan: Plan, available_memory: int | None = None) -> None:
    """Raise all problems of a plan as one PackError; its exit code is the first one's."""
    errors = problems(plan, available_memory)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = "".join(f"\n  - {problem.message} {problem.hint}" for problem in errors)
        raise PackError(
            f"This build cannot start, for {len(errors)} reasons:{lines}", "", errors[0].exit_code
        )


def _unreadable(plan: Plan) -> PackError | None:
    """The quality text that the user named must be one."""
    try:
        plan.gate.text  # noqa: B018
    except PackError as error:
        return error
    return None


def _profiled(plan: Plan) -> PackError | None:
    """A model that is taken as it is keeps the template in it."""
    if plan.recognised is None or not plan.profile:
        return None
    return usage(
        f"{plan.recognised.model.place.name} is taken as it is, with its own chats.",
        "Leave --thinking, --system-prompt, --tools and --sampling out, or build from the "
        "checkpoint.",
    )


def _misplaced(plan: Plan) -> PackError | None:
    """A package takes the place of the whole folder: never of one that something else lives in."""
    out, cache = plan.out.resolve(), cache_dir().resolve()
    if Path.cwd().is_relative_to(out):
        return usage(
            f"{plan.out} is the current folder, or contains it.",
            "Name a new folder with --out.",
        )
    if out.is_relative_to(cache) or cache.is_relative_to(out):
        return usage(
            f"{plan.out} and the build cache in {cache} are one inside the other.",
            "Choose another folder with --out.",
        )
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
    return usage(
        f"{out} exists and holds files that qwen-pack did not write.",
        "Choose another folder with --out.",
    )


def _not_writable(plan: Plan) -> list[PackError]:
    errors = []
    for folder, way in ((plan.out.parent, "--out"), (cache_dir(), "QWEN_PACK_CACHE")):
        nearest = nearest_existing(folder)
        if not nearest.is_dir():
            errors.append(
                usage(f"{nearest} is a file, not a folder.", f"Choose another folder with {way}.")
            )
        elif not os.access(nearest, os.W_OK | os.X_OK):
            errors.append(
                usage(f"{nearest} is not writable.", f"Choose another folder with {way}.")
            )
    return errors


def _disk(plan: Plan, done: frozenset[str]) -> list[PackError]:
    """The cache holds the weights that we write and the conversion; the package is a copy of the
    artifact. What is `done` is there."""
    wanted = [
        (cache_dir(), 0 if "fetch" in done else sources.bytes_needed(plan.source, plan.shape)),
        (
            cache_dir(),
            0
            if "convert" in done
            else plan.runtime.build_needs(plan.shape, plan.chosen.recipe).disk,
        ),
        (plan.out.parent, 0 if "package" in done else plan.chosen.artifact_bytes),
    ]
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        existing = nearest_existing(folder)
        device = existing.stat().st_dev
        by_disk[device] = (existing, by_disk.get(device, (existing, 0))[1] + size)
    return [
        no_room(
            f"The build needs {human_bytes(size)} of disk below {folder} and "
            f"{human_bytes(free_bytes(folder))} are free.",
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
        f"The conversion needs {human_bytes(needed)} of memory and {human_bytes(available)} are "
        "available.",
        "Close other programs, build on a larger machine, or choose another recipe with --recipe.",
    )
