"""`qwen-pack bench`: measure a package again."""

from __future__ import annotations

import os
from pathlib import Path

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate

_LABELS = {
    "load_s": ("load", "s"),
    "ttft_ms": ("time to the first token", "ms"),
    "prefill_tps": ("prefill", "tok/s"),
    "decode_tps": ("decode", "tok/s"),
    "token_ms_median": ("token latency, median", "ms"),
    "token_ms_p95": ("token latency, P95", "ms"),
    "peak_memory_bytes": ("peak memory", "B"),
}


@click.command("bench")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--save", is_flag=True, help="Add the figures to the package's manifest, beside those that are there.")
@json_option
def command(package: Path, save: bool, as_json: bool) -> None:
    """Measure PACKAGE on this machine and put the figures beside its manifest's."""
    from packager import bench, manifest
    from packager.budgets import quantity
    from packager.cli.progress import follow
    from packager.errors import usage
    from targets import registry

    found = manifest.read(package)
    if save and not os.access(package, os.W_OK):
        raise usage(f"{package} is not writable, so the figures could not be saved.", "Measure without --save, or copy the package.")
    figures = follow(bench.run(package, registry.runtime(found.data["runtime"]["name"])))
    if save:
        bench.save(package, figures)
    before = found.data.get("measured") or {}
    rows = bench.beside(before, figures)
    if as_json:
        emit_json(
            "bench", {"package": str(package), "name": found.name, "measured": figures, "manifest": before, "rows": rows, "saved": save}
        )
        return
    table = []
    for row in rows:
        label, unit = _LABELS[row["figure"]]
        old, new = (quantity(row[key], unit) if row[key] is not None else "not measured" for key in ("manifest", "now"))
        table.append((label, old, new, f"{row['ratio']:.2f}" if row["ratio"] else ""))
    emit_table(found.name, ("", "manifest", "now", "ratio"), table, right=("manifest", "now", "ratio"))
    if before and before.get("machine") != figures["machine"]:
        narrate("The manifest's figures come from another machine.")
    if figures["noisy"]:
        narrate("Noisy: other programs used the processor, or the trials differ widely. Close them and measure again.")
