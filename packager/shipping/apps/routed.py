"""The packages of a routing table in one folder, with a server that takes for each kind of task the
package that the table names."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path

from packager.errors import bad_input, no_room, usage
from packager.escapes import plain
from packager.events import Event
from packager.files import folder_that_appears_whole, free_bytes, write_atomically, write_json
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonObject, object_or_empty
from packager.names import did_you_mean
from packager.package import manifest
from packager.package.content import content_sha256
from packager.shipping.apps import serving, snippets
from packager.shipping.export import staged
from packager.shipping.folder import copy_entry
from packager.shipping.shipment import Shipment, free_place, outside, prepare
from packager.units import human_bytes

SCHEMA = "qwen-pack/route/1"
ROUTE = "route.json"
_ROUTER = "packager.shipping.router.main"
_SERVER = "packager.shipping.server.main"
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Routed:
    """What was written: each kind of task with the name of its package, and the bytes of all."""

    path: Path
    target: str
    kinds: dict[str, str]
    bytes: int


def export_routes(
    sweep: Path,
    out: Path,
    target: str | None = None,
    kinds: Collection[str] = (),
    *,
    allow_dummy: bool = False,
    accepted: Collection[str] = (),
) -> Generator[Event, None, Routed]:
    """Write the packages that the route.json of a sweep's folder names for a target into the new
    folder `out`, with events; `kinds` are all that have a package by default.

    Raises PackError: 2 for an unknown target or kind, a package of which only the manifest is left,
    a place that is taken, a licence not accepted; 6 for a package that is not the table's; 7 when
    the disk is too small.
    """
    file = _file(sweep)
    root = file.parent.parent if file.parent.name == "report" else file.parent
    table = _table(file)
    name = _target(table, target, file)
    rows = _rows(table, name, kinds)
    names = {str(row["cell"]): row for row in rows.values()}
    shipments = {
        cell: _shipment(root, row, file, allow_dummy, accepted) for cell, row in names.items()
    }
    destination = out.absolute()
    free_place(destination)
    for shipment in shipments.values():
        outside(destination, shipment.path)
    total = sum(shipment.total for shipment in shipments.values())
    free = free_bytes(destination.parent)
    if free < total:
        raise no_room(
            f"{destination.parent} has {human_bytes(free)} free; the packages take "
            f"{human_bytes(total)}.",
            "Choose another disk with --out, or fewer kinds of task with --kind.",
        )
    title = f"Export the packages for {len(rows)} kinds of task"
    yield from staged(_written(destination, table, name, rows, shipments), "export", title)
    return Routed(destination, name, {kind: str(row["cell"]) for kind, row in rows.items()}, total)


def target_of(sweep: Path, target: str | None) -> str:
    """The target whose routes are meant. Raises PackError as `export_routes` does."""
    file = _file(sweep)
    return _target(_table(file), target, file)


def _file(sweep: Path) -> Path:
    return sweep if sweep.is_file() else sweep / "report" / ROUTE


def _table(file: Path) -> JsonObject:
    try:
        data = parse_json(bounded_bytes(file, _MOST_BYTES), str(file))
    except FileNotFoundError:
        raise usage(
            f"There is no {file}.", "Name the folder of a sweep; `sweep report DIR` writes it."
        ) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise bad_input(f"{file} does not follow {SCHEMA}.", "It may come from a newer qwen-pack.")
    for key in ("routes", "unserved"):
        tables = data.get(key, {})
        whole = isinstance(tables, dict) and all(
            isinstance(table, dict) for table in tables.values()
        )
        if not whole:
            raise bad_input(f"{file}: {key} is not a table of each target's kinds of task.")
    return data


def _target(table: JsonObject, target: str | None, file: Path) -> str:
    known = [str(name) for name in object_or_empty(table, "routes")]
    if target is None and len(known) == 1:
        return known[0]
    if target in known:
        return str(target)
    hint = f"Targets there: {', '.join(known)}." if known else "Run the sweep first."
    if target is None:
        raise usage(f"{file} has routes for {len(known)} targets; which one?", f"--target. {hint}")
    raise usage(f"{file} has no target {target!r}.{did_you_mean(target, known)}", hint)


def _rows(table: JsonObject, target: str, kinds: Collection[str]) -> dict[str, JsonObject]:
    """The row of each kind of task that is asked for."""
    all_rows = object_or_empty(object_or_empty(table, "routes"), target)
    reasons = object_or_empty(object_or_empty(table, "unserved"), target)
    for kind in kinds:
        if kind not in all_rows:
            raise usage(
                f"The table has no kind of task {kind!r}.{did_you_mean(kind, all_rows)}",
                f"Known: {', '.join(all_rows)}.",
            )
        if all_rows[kind] is None:
            raise usage(f"No package serves {kind!r}: {reasons.get(kind, 'none was built')}.")
    rows: dict[str, JsonObject] = {
        kind: row
        for kind, row in all_rows.items()
        if isinstance(row, dict) and (not kinds or kind in kinds)
    }
    if not rows:
        why = next((f" For {kind!r}: {reason}." for kind, reason in reasons.items()), "")
        raise usage(
            f"No package serves any kind of task on {target}.{why}",
            "`unserved` in route.json says why for each.",
        )
    return rows


def _shipment(
    root: Path, row: JsonObject, file: Path, allow_dummy: bool, accepted: Collection[str]
) -> Shipment:
    """The package of a row, checked."""
    cell, place = str(row.get("cell")), row.get("package")
    if "/" in cell or not manifest.safe_path(cell):
        raise bad_input(f"{file}: {cell!r} is not the name of a package.")
    if place is None:
        raise usage(
            f"Of {cell} only the manifest is left.",
            "Run the sweep again with --keep-packages best or all, or leave its kinds out by "
            "naming others with --kind.",
        )
    if not isinstance(place, str) or not manifest.safe_path(place):
        raise bad_input(f"{file}: the path of {cell} leads out of the folder: {place!r}.")
    shipment = prepare(root / place, allow_dummy=allow_dummy, accepted=accepted)
    evidence = row.get("evidence")
    wanted = evidence.get("content_sha256") if isinstance(evidence, dict) else None
    if content_sha256(shipment.manifest.data) != wanted:
        raise bad_input(
            f"{root / place} is not the package that {file.name} names: its content has another "
            "digest.",
            "Write the table again: qwen-pack sweep report DIR.",
        )
    own = snippets.facts(shipment)
    if not serving.has_module(own):
        raise usage(
            f"{cell} is for {own.runtime} and makes no text, which serve.py has no engine for.",
            "Export that package alone with --format docker, which has llama-server; name the "
            "other kinds with --kind.",
        )
    return shipment


def _written(
    out: Path,
    table: JsonObject,
    target: str,
    rows: dict[str, JsonObject],
    shipments: dict[str, Shipment],
) -> Generator[tuple[int, int], None, None]:
    """Yields (bytes done, bytes in all)."""
    total, done = sum(shipment.total for shipment in shipments.values()), 0
    with folder_that_appears_whole(out) as folder:
        (folder / "settings").mkdir()
        facts = {cell: snippets.facts(shipment) for cell, shipment in shipments.items()}
        serving.write_modules(folder, facts.values(), _ROUTER)
        every = "Serve these packages, each for its kinds of task"
        write_atomically(folder / "serve.py", serving.start(_ROUTER, every, "here"))
        one = "Serve one of the packages, whose file --settings names"
        write_atomically(folder / "serve_package.py", serving.start(_SERVER, one, "None"))
        for cell, own in facts.items():
            settings = folder / "settings" / f"{cell}.json"
            serving.write_settings(shipments[cell], own, settings, f"../packages/{cell}")
        write_json(folder / ROUTE, _moved(table, target, rows))
        values = _values(target, rows, facts, total)
        snippets.write(folder, "README.md", "routed.md", values)
        for cell, shipment in shipments.items():
            for entry in shipment.files:
                work = copy_entry(shipment, entry, folder / "packages" / cell / entry.path, None)
                for size in work:
                    done += size
                    yield done, total


def _moved(table: JsonObject, target: str, rows: dict[str, JsonObject]) -> JsonObject:
    """The table of one target, with the packages where they are now."""
    reasons = object_or_empty(object_or_empty(table, "unserved"), target)
    moved = {
        kind: {
            **{key: value for key, value in row.items() if key != "manifest"},
            "package": f"packages/{row['cell']}",
        }
        for kind, row in rows.items()
    }
    return {
        "schema": SCHEMA,
        "name": table.get("name"),
        "run": table.get("run"),
        "routes": {target: moved},
        "unserved": {target: reasons},
    }


def _values(
    target: str, rows: dict[str, JsonObject], facts: dict[str, snippets.Facts], total: int
) -> snippets.Values:
    """What the README says."""
    wanted = {name for own in facts.values() for name in serving.installed(own)}
    return {
        "target": target,
        "installs": plain(" ".join(sorted(wanted))),
        "routes": [
            (kind, str(row["cell"]), own.repo_id, own.licence)
            for kind, row in rows.items()
            for own in (facts[str(row["cell"])],)
        ],
        "total": plain(human_bytes(total)),
        "first": next(iter(rows)),
        "dictation": next(
            (
                kind
                for kind, row in rows.items()
                if (own := facts[str(row["cell"])]).audio_seconds and not own.audio_asked
            ),
            "",
        ),
    }
