"""`qwen-pack attest`: does a converted model follow from a checkpoint with a recipe?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.errors import ExitCode

if TYPE_CHECKING:
    from packager.json_values import JsonObject
    from packager.pipeline.attest import Attested

_SHOWN = 20


@click.command("attest")
@click.argument("model", metavar="FILE.gguf|FOLDER")
@click.option(
    "--against",
    required=True,
    metavar="DIR|REPO",
    help="The checkpoint that it is said to be made from.",
)
@click.option("--revision", metavar="SHA", help="Commit, tag or branch of that repository.")
@click.option(
    "--recipe", metavar="R", help="The recipe, like gguf:Q4_K_M; the model's own by default."
)
@click.option(
    "--imatrix",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The importance matrix that it was quantized with.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Type of the tensors that a pattern matches; repeatable.",
)
@click.option(
    "--offline", is_flag=True, help="Use what the hub's cache holds; never ask the network."
)
@json_option
def command(
    model: str,
    against: str,
    revision: str | None,
    recipe: str | None,
    imatrix: Path | None,
    tensor_types: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> int:
    """Quantize a checkpoint again, and compare a converted model with it tensor by tensor.

    \b
    qwen-pack attest Qwen3-0.6B-Q4_K_M.gguf --against Qwen/Qwen3-0.6B
    qwen-pack attest model.gguf --against ./checkpoint --recipe gguf:Q4_0
    qwen-pack attest ./Qwen3-0.6B-int4-ov --against Qwen/Qwen3-0.6B

    Exit code 0 where every tensor has the same numbers, 4 where one differs. Keys that differ are
    listed apart and change nothing about that.
    """
    from packager.cli.progress import follow
    from packager.pipeline.attest import attest
    from packager.plan.additions import parse
    from targets import registry

    additions = parse(imatrix, None, tensor_types)
    attested = follow(
        attest(
            model,
            against,
            registry.runtimes(),
            recipe,
            additions,
            revision=revision,
            offline=offline,
        )
    )
    if as_json:
        emit_json("attest", attested.as_dict())
    else:
        _show(attested)
    return ExitCode.DONE if attested.follows == "exactly" else ExitCode.BUDGET


def _show(attested: Attested) -> None:
    """The verdict first, then what differs."""
    from packager.json_values import at

    equal, count = at(attested.facts, "equal", int), at(attested.facts, "tensors", int)
    from_there = f"{attested.location} as {attested.recipe}"
    say(
        {
            "exactly": f"{attested.model.name} follows from {from_there}: all {count} tensors are "
            "the same.",
            "nearly": f"{attested.model.name} was made from {from_there}, but with other numbers: "
            f"{equal} of {count} tensors are the same, and the others are as near to the weights "
            "as that type usually is.",
            "another recipe": f"{attested.model.name} was made from {attested.location}, but not "
            f"as {attested.recipe}: {equal} of {count} tensors are the same, others have other "
            "types.",
            "not": f"{attested.model.name} does not follow from {from_there}: {equal} of {count} "
            "tensors are the same.",
        }[attested.follows]
    )
    how = _how(attested)
    if how is not None:
        say(how)
    if attested.different:
        share = "bytes" if attested.model.kind == "gguf" else "numbers"
        emit_table(
            "Tensors that differ, distances relative to the weights",
            ("tensor", "type", "wanted", share, "distance", "error", "usual"),
            [_row(row) for row in attested.different[:_SHOWN]],
            right=(share, "distance", "error", "usual"),
        )
        if len(attested.different) > _SHOWN:
            narrate(f"{len(attested.different) - _SHOWN} more; --json lists all of them.")
    for title, rows in (
        ("Keys of network and vocabulary", attested.network),
        ("Keys that describe the model", attested.description),
    ):
        if rows:
            cells = [[str(row[name]) for name in ("key", "file", "recipe")] for row in rows]
            emit_table(f"{title} that differ", ("key", "file", "recipe"), cells)


_WAYS = {
    "nncf": "NNCF",
    "ggml": "ggml's blocks",
    "default": "ONNX Runtime's default quantizer",
    "rtn": "rounding to nearest",
    "k_quant": "k_quant, which searches scale and minimum",
}


def _how(attested: Attested) -> str | None:
    """How the weights were quantized: by what each tensor was nearest to, or with which importance
    matrix; None where nothing tells, and where other types were made than the model has."""
    from packager.json_values import object_or_empty

    ways, importance = object_or_empty(attested.facts, "ways"), attested.facts.get("importance")
    if ways and attested.follows != "another recipe":
        counts = ", ".join(f"{_WAYS.get(name, name)} ({ways[name]} tensors)" for name in ways)
        return f"Quantizers that give the nearest numbers: {counts}."
    if not isinstance(importance, dict):
        return None
    named = ", ".join(f"{key} {value}" for key, value in importance.items())
    return f"The file says that it was quantized with an importance matrix: {named}."


def _row(row: JsonObject) -> list[str]:
    from packager.json_values import at

    share = row["bytes"]
    shown = f"{share:.1%}" if isinstance(share, float) else "other type"
    numbers = [f"{at(row, name, float):.2%}" for name in ("distance", "error", "usual")]
    return [str(row["name"]), str(row["type"]), str(row["wanted"]), shown, *numbers]
