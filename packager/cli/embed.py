"""`qwen-pack embed`: vectors of texts."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from packager.cli.options import MOST_TOKENS, Number
from packager.cli.output import emit_json, json_option, narrate, say
from packager.cli.shared_options import lines_option, package_argument
from packager.errors import ExitCode
from packager.json_values import JsonObject


@click.command("embed")
@package_argument
@click.argument("texts", nargs=-1)
@lines_option("Texts")
@click.option(
    "--query",
    "is_query",
    is_flag=True,
    help="The texts are queries: put the instruction in front.",
)
@click.option(
    "--instruction", help="What a query is for, in place of the model's own; implies --query."
)
@click.option(
    "--dimension",
    type=Number(1, MOST_TOKENS, whole=True),
    help="How many numbers of a vector are kept; as the package says by default.",
)
@json_option
def command(
    package: Path,
    texts: tuple[str, ...],
    file: Path | None,
    is_query: bool,
    instruction: str | None,
    dimension: int | None,
    as_json: bool,
) -> int:
    """Vectors of TEXTS, by PACKAGE: one line of numbers each, of length 1.

    Compare vectors of one package by their dot product: larger means closer.
    """
    from packager.checkpoint import retrieval as rules
    from packager.cli.retrieval import asked, lines_of, opened
    from packager.errors import usage

    known, arguments = opened(package, "embed")
    own = known.contents.retrieval
    assert own is not None
    hidden = own.hidden or 0
    if dimension is not None and dimension > hidden:
        raise usage(
            f"A vector of {package} has {hidden} numbers, fewer than {dimension}.",
            f"Ask for --dimension {hidden} or less.",
        )
    given = [*texts, *lines_of(file)]
    if not given:
        raise usage("There is no text.", "Give texts, or a file with --file.")
    if not all(text.strip() for text in given):
        raise usage("A text is empty.", "Leave it out: its vector says nothing.")
    if is_query or instruction is not None:
        conventions = rules.Conventions(own.end, own.query or "")
        given = [rules.query_text(conventions, text, instruction) for text in given]
    wanted: JsonObject = {"texts": given, "dimension": dimension or own.dimension}
    result = asked("packager.behaviour.retrieval:embed", {**arguments, **wanted})
    if result["cut"]:
        context = known.contents.context
        narrate(f"{result['cut']} of the texts are longer than {context} tokens and were cut.")
    if as_json:
        emit_json("embed", {"package": str(package), "name": known.name, **result})
    else:
        for row in msgspec.convert(result["vectors"], list[list[float]]):
            say(" ".join(f"{number:.6f}" for number in row))
    return ExitCode.DONE
