"""`qwen-pack rerank`: documents in the order of their relevance to a query."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from packager.cli.output import emit_json, emit_table, json_option, narrate, printable
from packager.cli.shared_options import lines_option, package_argument
from packager.errors import ExitCode
from packager.json_values import JsonObject

_SHOWN = 80


@click.command("rerank")
@package_argument
@click.argument("query")
@click.argument("documents", nargs=-1)
@lines_option("Documents")
@click.option("--instruction", help="What makes a document relevant, in place of the model's own.")
@json_option
def command(
    package: Path,
    query: str,
    documents: tuple[str, ...],
    file: Path | None,
    instruction: str | None,
    as_json: bool,
) -> int:
    """DOCUMENTS in the order of their relevance to QUERY, by PACKAGE, with scores from 0 to 1."""
    from packager.cli.retrieval import asked, lines_of, opened
    from packager.errors import usage

    known, arguments = opened(package, "rerank")
    given = [*documents, *lines_of(file)]
    if not given:
        raise usage("There is no document.", "Give documents, or a file with --file.")
    if not query.strip():
        raise usage("The query is empty.", "Say what the documents are to be about.")
    wanted: JsonObject = {"query": query, "documents": given, "instruction": instruction}
    result = asked("packager.behaviour.retrieval:rerank", {**arguments, **wanted})
    scores = msgspec.convert(result["scores"], list[float])
    order = sorted(range(len(given)), key=lambda number: -scores[number])
    if result["cut"]:
        narrate(f"{result['cut']} of the documents are too long for the context and were cut.")
    if as_json:
        rows = [{"index": number, "score": scores[number]} for number in order]
        fields = {"results": rows, "tokens": result["tokens"], "cut": result["cut"]}
        emit_json("rerank", {"package": str(package), "name": known.name, **fields})
    else:
        table = [(f"{scores[number]:.4f}", printable(given[number])[:_SHOWN]) for number in order]
        emit_table(known.name, ("score", "document"), table, right=("score",))
    return ExitCode.DONE
