"""`qwen-pack cache`: what the build cache holds."""

from __future__ import annotations

import click

from packager.cli.options import Number, Size
from packager.cli.output import emit_json, emit_table, json_option, narrate, say


@click.command("cache")
@click.option(
    "--clear",
    is_flag=True,
    help="Remove every finished stage. Packages and the hub's own cache are not touched.",
)
@click.option(
    "--shared",
    metavar="FOLDER|URL",
    help="Look at a cache that several machines share instead, see `sweep --cache`.",
)
@click.option("--max-size", type=Size(), help="With --shared: remove the oldest beyond this size.")
@click.option(
    "--max-age",
    type=Number(0, 36500),
    metavar="DAYS",
    help="With --shared: remove what was written more than this many days ago.",
)
@json_option
def command(
    clear: bool, shared: str | None, max_size: int | None, max_age: float | None, as_json: bool
) -> None:
    """What the build cache holds; --clear empties it."""
    from packager.errors import usage
    from packager.pipeline.cache import BuildCache
    from packager.units import human_bytes

    if shared is not None:
        if clear:
            raise usage("--clear is for the local cache.", "Give --max-size or --max-age.")
        _shared(shared, max_size, max_age, as_json)
        return
    if max_size is not None or max_age is not None:
        raise usage("--max-size and --max-age are for a shared cache.", "Name it with --shared.")
    cache = BuildCache()
    if clear:
        freed = cache.clear()
        rows = cache.stages()
        if as_json:
            emit_json(
                "cache", {"folder": str(cache.root), "freed_bytes": freed, "stages": _as_json(rows)}
            )
        else:
            say(f"{human_bytes(freed)} freed in {cache.root}.")
        if rows:
            narrate(
                "Left, because a running build reads them: "
                f"{', '.join(name for name, _, _ in rows)}."
            )
        return
    rows = cache.stages()
    if as_json:
        emit_json("cache", {"folder": str(cache.root), "stages": _as_json(rows)})
        return
    emit_table(
        "",
        ("stage", "size"),
        [(name, human_bytes(size)) for name, size, _ in rows],
        right=("size",),
    )
    narrate(f"{human_bytes(sum(size for _, size, _ in rows))} in {cache.root}.")


def _shared(url: str, max_size: int | None, max_age: float | None, as_json: bool) -> None:
    """What a shared cache holds, after the oldest stages beyond the limits are gone."""
    # Late: fsspec is needed for this alone.
    from packager.pipeline.shared_cache import Store
    from packager.units import human_bytes

    store = Store(url)
    limited = max_size is not None or max_age is not None
    freed = store.evict(max_size, None if max_age is None else max_age * 86400) if limited else None
    kept = store.kept()
    if as_json:
        rows = [
            {"name": entry.name, "bytes": entry.bytes, "written": entry.written} for entry in kept
        ]
        emit_json("cache", {"shared": url, "freed_bytes": freed, "stages": rows})
        return
    emit_table(
        "",
        ("stage", "size"),
        [(entry.name, human_bytes(entry.bytes)) for entry in kept],
        right=("size",),
    )
    narrate(f"{len(kept)} stages in {url}.")
    if freed is not None:
        narrate(f"{human_bytes(freed)} freed.")


def _as_json(rows: list[tuple[str, int, float]]) -> list[dict[str, str | int | float]]:
    return [{"name": name, "bytes": size, "last_used": used} for name, size, used in rows]
