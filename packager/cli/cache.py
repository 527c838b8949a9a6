"""`qwen-pack cache`: what the build cache holds."""

from __future__ import annotations

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate, say


@click.command("cache")
@click.option(
    "--clear",
    is_flag=True,
    help="Remove every finished stage. Packages and the hub's own cache are not touched.",
)
@json_option
def command(clear: bool, as_json: bool) -> None:
    """What the build cache holds; --clear empties it."""
    from packager.pipeline.cache import BuildCache
    from packager.units import human_bytes

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


def _as_json(rows: list[tuple[str, int, float]]) -> list[dict[str, str | int | float]]:
    return [{"name": name, "bytes": size, "last_used": used} for name, size, used in rows]
