"""The routing table: for each kind of task the smallest package of a target that passes its floor.

A kind of task is a use case. Its floor is what `fit` asks of a variant by published scores; a
package that was asked the tasks of `behave` must have passed its share too, where the plan names
one. What failed its quality gate or an enforced budget, or has random weights, is never routed to.
"""

from __future__ import annotations

from packager.errors import PackError
from packager.json_values import JsonObject
from packager.need.usecases import use_case, use_case_names
from packager.need.workload import workload_for
from packager.package.manifest import Manifest
from packager.select import rules
from packager.sweep.asked import Asked
from packager.sweep.folder import Folder, Run
from packager.sweep.front import read
from packager.sweep.row import Row

SCHEMA = "qwen-pack/route/1"


def routes(folder: Folder, run: Run, asked: Asked | None = None) -> JsonObject:
    """The table of a run as JSON: `routes[target][task]` has package and evidence, or None with the
    reason in `unserved[target][task]`."""
    asked = asked or Asked()
    tasks, least = asked.tasks or use_case_names(), asked.behaviour_percent
    known = [
        (row, found)
        for row in run.rows.values()
        if row.status == "done" and (found := read(folder, row)) is not None
    ]
    known.sort(key=lambda pair: (pair[1].contents.artifact_bytes or 0, pair[0].id))
    table: dict[str, dict[str, JsonObject | None]] = {}
    unserved: dict[str, dict[str, str]] = {}
    for target in dict.fromkeys(row.of.target for row, _ in known):
        there = [pair for pair in known if pair[0].of.target == target]
        for task in tasks:
            route, why_not = _smallest(task, there, least)
            table.setdefault(target, {})[task] = route
            if route is None:
                unserved.setdefault(target, {})[task] = why_not
    return {
        "schema": SCHEMA,
        "name": run.file.name,
        "run": run.number,
        "routes": table,
        "unserved": unserved,
    }


def _smallest(
    task: str, there: list[tuple[Row, Manifest]], least: float | None
) -> tuple[JsonObject | None, str]:
    """The smallest package that passes, or the reason why the nearest one does not."""
    why_not = "nothing was built"
    for row, found in there:
        reason = obstacle(task, row, found, least)
        if reason is None:
            return _entry(task, row, found), ""
        why_not = f"{row.of.label}: {reason}"
    return None, why_not


def obstacle(task: str, row: Row, found: Manifest, least: float | None) -> str | None:
    """Why a package does not serve a kind of task; None where it does."""
    contents = found.contents
    share = contents.behaviour.share if contents.behaviour else None
    if row.dummy:
        return "its weights are random"
    if row.gate is False:
        return "it lost too much against the unquantized model"
    if row.missed:
        return f"it misses {row.missed[0]}"
    if share is not None and least is not None and 100 * share < least:
        return f"it passed {100 * share:.0f} % of its tasks, of at least {least:g} %"
    if use_case(task).task != contents.task:
        return "it is made for something else"
    return _floor(task, str(contents.variant.repo_id), share, least)


def _floor(task: str, repo_id: str, share: float | None, least: float | None) -> str | None:
    """What the published scores of the variant lack; behaviour stands in for those of a variant
    that is not in the catalogue."""
    from packager import catalog

    try:
        variant = catalog.find(repo_id)
    except PackError:
        if share is not None and least is not None:
            return None
        return "it has no published score, and `behave` was not run on it"
    reasons = list(rules.of_variant(variant, workload_for(task), use_case(task)))
    return "; ".join(map(str, reasons)) or None


def _entry(task: str, row: Row, found: Manifest) -> JsonObject:
    contents = found.contents
    case = use_case(task)
    names = {name for floor in case.floors for name, _ in floor.any_of}
    return {
        "cell": row.id,
        "package": row.package,
        "manifest": row.manifest,
        "variant": contents.variant.repo_id,
        "recipe": contents.recipe.id,
        "artifact_bytes": contents.artifact_bytes,
        "evidence": {
            "content_sha256": contents.content_sha256,
            "published": _published(str(contents.variant.repo_id), names, case.modes),
            "behaviour_percent": row.figures.get("tasks_passed"),
            "kl_mean": row.figures.get("kl_mean"),
            "gate_passed": row.gate,
            "decode_tps": row.figures.get("decode_tps"),
            "on_device": row.on_device,
        },
    }


def _published(repo_id: str, names: set[str], modes: tuple[str, ...]) -> dict[str, float]:
    from packager import catalog
    from packager.select.stand_ins import published

    try:
        variant = catalog.find(repo_id)
    except PackError:
        return {}
    scores = {name: published(variant, name, modes) for name in sorted(names)}
    return {name: value for name, value in scores.items() if value is not None}
