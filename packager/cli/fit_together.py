"""`qwen-pack fit --with`: several models together on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.cli.options import Flags, words_of, workload_from
from packager.cli.output import emit_json, emit_table, say
from packager.errors import ExitCode, usage
from packager.escapes import command
from packager.json_values import JsonObject
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.need.workload import Workload
    from packager.runtime import Runtime
    from packager.select import Candidate

TOGETHER = "retrieval"
"""The word that --use-case may have next to --with."""
_SHARED = ("prefer", "license", "language", "max_memory_mb")
"""Flags that hold for every part; the limit on memory for all of them together."""


def uses_of(text: str, flags: Flags, alone: bool) -> list[str]:
    """The use cases of `--with embed,rerank,chat`. Raises PackError (usage) for one that is not
    known or stands twice, and for flags that are those of one model; `alone` says that there is one
    target, and no model and no recipe."""
    from packager.need.usecases import use_case

    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise usage("--with names two use cases or more, each once: --with embed,rerank,chat.")
    for name in names:
        use_case(name)
    if not alone:
        raise usage("--with plans one device: give one --target, and no --model or --recipe.")
    for name, value in flags.items():
        given = value not in (None, (), False)
        if given and name not in _SHARED and (name, value) != ("use_case", TOGETHER):
            raise usage(
                f"--{name.replace('_', '-')} is about one model, and --with plans several.",
                "Plan that one by itself, or leave the flag out.",
            )
    return names


def show(
    named: str,
    names: list[str],
    flags: Flags,
    runtimes: tuple[Runtime, ...],
    as_json: bool,
) -> int:
    """Print the plan for a device, named as the user did; exit code 3 where they do not fit
    together."""
    from packager import catalog
    from packager.predict.offload import splits
    from packager.select import candidates, device_rules
    from packager.select.together import least, together
    from targets import registry

    target = registry.target(named)
    plans: list[tuple[Workload, tuple[Candidate, ...]]] = []
    for name in names:
        workload = workload_from({**flags, "use_case": name}, target)
        ranked = candidates(target, workload, catalog.load(), runtimes, every=True)
        plans.append((workload, ranked))
    device, parts = target.device, [ranked for _, ranked in plans]
    # Of each GPU: a model takes a part of every one.
    room = min(device_rules.room(one, device.available_bytes, device.gpus) for one, _ in plans)
    chosen = together(parts, room, device.host_available_bytes if splits(device) else None)
    words = ["qwen-pack", "fit", "--target", named, *words_of({**flags, "use_case": None})]
    return _told(target, names, plans, chosen, room, least(parts), words, as_json)


def _told(
    target: Target,
    names: list[str],
    plans: list[tuple[Workload, tuple[Candidate, ...]]],
    chosen: tuple[Candidate, ...] | None,
    room: int,
    least: int | None,
    words: list[str],
    as_json: bool,
) -> int:
    """The plan as JSON, or as a sentence and a table; `words` ask for one of them alone."""
    total = sum(candidate.load for candidate in chosen) if chosen else None
    if as_json:
        rows: list[JsonObject] = [
            {
                "use_case": name,
                "workload": workload.as_dict(),
                "chosen": chosen[number].as_dict() if chosen else None,
            }
            for number, (name, (workload, _)) in enumerate(zip(names, plans, strict=True))
        ]
        sizes = {"total_bytes": total, "room_bytes": room, "least_bytes": least}
        emit_json("fit", {"target": target.name, "together": rows, **sizes})
    elif chosen is None or total is None:
        say(_nothing(target, names, plans, room, least, words))
    else:
        say(
            f"{len(chosen)} models together on {target.name}: {human_bytes(total)} of "
            f"{human_bytes(room)}{_on_gpus(target)}, each in its own process."
        )
        cells = [
            (
                name,
                candidate.variant.repo_id.rpartition("/")[2],
                candidate.recipe.id,
                human_bytes(candidate.footprint.peak),
                human_bytes(candidate.artifact_bytes),
            )
            for name, candidate in zip(names, chosen, strict=True)
        ]
        columns = ("use case", "variant", "recipe", "memory", "file")
        emit_table("", columns, cells, right=columns[3:])
    return ExitCode.DONE if chosen else ExitCode.NOTHING_FITS


def _on_gpus(target: Target) -> str:
    """What a figure is about where each of several GPUs holds a part of every model."""
    gpus = target.device.gpus
    return f" on the fullest of {gpus} GPUs" if gpus > 1 else ""


def _nothing(
    target: Target,
    names: list[str],
    plans: list[tuple[Workload, tuple[Candidate, ...]]],
    room: int,
    least: int | None,
    words: list[str],
) -> str:
    if least is not None and least <= room:
        beside = human_bytes(target.device.host_available_bytes)
        return (
            f"They do not fit together on {target.name}: its {beside} of system memory do not hold "
            "what they leave there."
        )
    if least is not None:
        return (
            f"They do not fit together on {target.name}: the smallest take "
            f"{human_bytes(least)} together{_on_gpus(target)}, and {human_bytes(room)} are there."
        )
    alone = next(
        name
        for name, (_, ranked) in zip(names, plans, strict=True)
        if not any(candidate.passes for candidate in ranked)
    )
    return (
        f"Nothing fits {target.name} for {alone}: `{command((*words, '--use-case', alone))}` says "
        "why."
    )
