"""`qwen-pack models`: the Qwen variants that are known, one in full, and rows of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from packager.cli.options import Languages
from packager.cli.output import emit_json, emit_table, json_option, say
from packager.cli.targets import NameOrWord

if TYPE_CHECKING:
    from packager.catalog import Variant

UNSTATED = "not stated"
_BETWEEN_SOURCES = re.compile(r"; (?![^()]*\))")
"""Inside brackets a semicolon belongs to one source."""


@click.group(
    "models",
    cls=NameOrWord,
    subcommand_metavar="[NAME] [--family F] [--json] | add REPO|FOLDER | remove NAME",
)
def command() -> None:
    """The Qwen variants that are known, or one in full; `add` and `remove` are for your own rows.

    \b
    qwen-pack models                        list all of them, and how old the catalogue is
    qwen-pack models qwen3-0.6b             one, with scores and sources
    qwen-pack models add me/my-qwen         a row from a repository's config.json and card
    qwen-pack models add ./my-checkpoint    a row from a folder's config.json
    """


@command.command("add")
@click.argument("place", metavar="REPO|FOLDER")
@click.option("--name", metavar="OWNER/NAME", help="What a folder is called in the catalogue.")
@click.option("--revision", metavar="REV", help="A branch, tag or commit of the repository.")
@click.option("--offline", is_flag=True, help="Only what is in the hub's cache already.")
@json_option
def add(place: str, name: str | None, revision: str | None, offline: bool, as_json: bool) -> None:
    """Add your own row: its shape from config.json, its licence from the repository's card.

    No weights are fetched. The row is known to every command from then on.
    """
    from packager.errors import ExitCode, PackError
    from packager.sources import added

    try:
        variant, path, there = added.add(place, name, revision, offline)
    except PackError as error:
        if error.exit_code != ExitCode.SOURCE:
            raise
        # Late: it brings the client of the hub.
        from packager.sources.hub_errors import WAYS_ON

        # Nothing is built here: the flags of `build` that the hub's sentences name are not there.
        hint = error.hint.replace("Build once without --offline.", "Leave --offline out.")
        hint = hint.replace(WAYS_ON, "Or give a folder with a config.json that you have.")
        raise PackError(error.message, hint, error.exit_code) from error
    if as_json:
        emit_json("models-add", {"file": str(path), "variant": variant.as_dict()})
        return
    what = "replaced" if there else "added"
    say(
        f"{variant.repo_id} {what}: {variant.model_type}, {_parameters(variant)} parameters, a "
        f"context of {_tokens(variant.context_native)}, licence {_license(variant)}."
    )
    for note in variant.notes:
        say(f"Note: {note}")
    say(f"{path}\nWhere it runs: qwen-pack fit --model {variant.repo_id}", err=True)


@command.command("remove")
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove one of your own rows; nothing else is deleted."""
    from packager.sources import added

    path = added.remove(name)
    if as_json:
        emit_json("models-remove", {"file": str(path)})
    else:
        say(f"{path} is removed.")


@command.command("show", hidden=True)
@click.argument("name", required=False)
@click.option("--family", metavar="F", help="Only this family, e.g. Qwen3.")
@click.option(
    "--license",
    "license_id",
    metavar="L",
    help="Only this licence, e.g. apache-2.0; 'unstated' where no source says.",
)
@click.option(
    "--modality", metavar="M", help="Only what reads or writes this: text, image, video or audio."
)
@click.option(
    "--language",
    type=Languages(),
    multiple=True,
    help="Only variants whose publisher lists this language: German, de, ...; repeatable.",
)
@json_option
def show(
    name: str | None,
    family: str | None,
    license_id: str | None,
    modality: str | None,
    language: tuple[tuple[str, ...], ...],
    as_json: bool,
) -> None:
    """The Qwen variants that are known, or NAME in full.

    NAME is a repository id or its last part, in any case: Qwen/Qwen3-0.6B or qwen3-0.6b.
    """
    from packager import catalog

    if name is not None:
        if family or license_id or modality or language:
            raise click.UsageError(
                "NAME and filters do not go together: NAME is one variant already."
            )
        variant = catalog.find(name)
        if as_json:
            emit_json("models", {"variants": [_in_full(variant)]})
        else:
            _show(variant)
        return
    variants = catalog.select(family, license_id, modality)
    if wanted := {code for some in language for code in some}:
        variants = tuple(variant for variant in variants if _answers_in(wanted, variant))
    if as_json:
        age = catalog.age()
        about = {"reviewed": age.reviewed, "age_days": age.days, "newest_release": age.newest}
        emit_json(
            "models", {"catalogue": about, "variants": [variant.as_dict() for variant in variants]}
        )
        return
    columns = ("name", "parameters", "context", "licence", "reads", "released")
    emit_table("", columns, map(_line, variants), right=("parameters", "context"))
    say(
        f"{len(variants)} variants; one in full, with scores and sources: qwen-pack models NAME",
        err=True,
    )
    say(str(catalog.age()), err=True)


def _answers_in(languages: set[str], variant: Variant) -> bool:
    """Whether the publisher lists all of them."""
    from packager.need.languages import named

    known = named(variant.family)
    return known is not None and known.languages.issuperset(languages)


def _show(variant: Variant) -> None:
    """The facts with the numbers of their sources, then the sources: most facts share the same
    few."""
    numbers: dict[str, int] = {}
    rows = []
    for field, value, sources in _rows(variant):
        cited = [
            str(numbers.setdefault(source, len(numbers) + 1))
            for source in _BETWEEN_SOURCES.split(sources)
            if source
        ]
        rows.append((field, value, " ".join(cited)))
    emit_table(variant.repo_id, ("field", "value", "sources"), rows)
    say()
    emit_table(
        "",
        ("source", "where"),
        [(str(number), source) for source, number in numbers.items()],
        right=("source",),
    )


def _in_full(variant: Variant) -> dict[str, object]:
    from packager.catalog.benchmarks import scores
    from packager.catalog.counts import parameter_counts
    from packager.need.languages import named

    return {
        **variant.as_dict(),
        "published_parameters": [count.as_dict() for count in parameter_counts(variant.repo_id)],
        "languages": sorted(known.languages) if (known := named(variant.family)) else None,
        "scores": [score.as_dict() for score in scores(variant.repo_id)],
    }


def _line(variant: Variant) -> tuple[str, ...]:
    return (
        variant.name,
        _parameters(variant),
        _tokens(variant.context_native),
        _license(variant),
        " ".join(variant.modality_in),
        variant.release_date or UNSTATED,
    )


def _rows(variant: Variant) -> Iterator[tuple[str, str, str]]:
    from packager.catalog.benchmarks import scores
    from packager.units import human_count

    sources = variant.sources
    yield "name", variant.name, sources["repo_id"]
    yield "family", variant.family, ""
    yield "made for", variant.kind + (", base model" if variant.base else ""), ""
    yield (
        "thinking",
        {"never": "no", "switch": "switched by the chat template", "always": "always"}[
            variant.thinking
        ],
        "",
    )
    yield "released", variant.release_date or UNSTATED, sources.get("released", "")
    yield "licence", _license(variant), sources.get("license", "")
    yield "reads, writes", f"{' '.join(variant.modality_in)}; {' '.join(variant.modality_out)}", ""
    yield (
        "parameters",
        _parameters(variant, exact=True),
        "sum over the shape, recomputed by the tests",
    )
    yield from _parts(variant)
    extended = f", extended {_tokens(variant.context_extended)}" if variant.context_extended else ""
    yield "context", _tokens(variant.context_native) + extended, sources.get("context", "")
    if variant.trained_tokens is not None:
        tokens = f"{human_count(variant.trained_tokens)} tokens, as published"
        yield "trained on", tokens, sources.get("trained", "")
    if variant.system_prompt is not None:
        follows = {"enhanced": "trained to follow one", "plain": "not trained for one"}
        yield "system prompt", follows[variant.system_prompt], sources.get("trained", "")
    yield from _shape(variant)
    yield from _languages(variant)
    yield "published as", " ".join(variant.published_precisions), ""
    if variant.unbuildable:
        nearest = f"; nearest: {variant.nearest}" if variant.nearest else ""
        yield "cannot be built", f"{variant.unbuildable}{nearest}", ""
    for note in variant.notes:
        yield "note", note, ""
    for score in scores(variant.repo_id):
        how = ", ".join(part for part in (score.mode, score.protocol) if part)
        yield score.benchmark, f"{score.value:g}{f' ({how})' if how else ''}", score.source


def _languages(variant: Variant) -> Iterator[tuple[str, str, str]]:
    from packager.need.languages import language, named

    known = named(variant.family)
    if known is None:
        yield "languages", UNSTATED, ""
    else:
        names = ", ".join(sorted(language(code).name for code in known.languages))
        yield (
            "languages",
            f"{len(known.languages)} (dialects of one counted once): {names}",
            known.source,
        )


def _parts(variant: Variant) -> Iterator[tuple[str, str, str]]:
    from packager.catalog.counts import parameter_counts

    for label, count in (
        ("vision encoder", variant.params_vision),
        ("audio encoder", variant.params_audio),
        ("draft module", variant.params_mtp),
    ):
        if count is not None:
            yield f"  {label}", f"{count:,}", variant.sources.get(label.partition(" ")[0], "")
    for published in parameter_counts(variant.repo_id):
        what = {"stored": "in the files", "total": "in print"}.get(
            published.counts, f"in print, {published.counts.replace('_', ' ')}"
        )
        yield (
            f"  {what}",
            f"{published.value:,}{f' ({published.reason})' if published.reason else ''}",
            published.source,
        )


def _shape(variant: Variant) -> Iterator[tuple[str, str, str]]:
    shape, source = variant.shape, variant.sources.get("shape", "")
    if shape is None:
        yield "shape", UNSTATED, ""
        return
    yield "model type", f"{variant.model_type} ({variant.architecture})", variant.sources["repo_id"]
    yield (
        "layers",
        f"{shape.layers}, of which {shape.attention_layers} keep a cache"
        if shape.hybrid
        else str(shape.layers),
        source,
    )
    yield (
        "hidden width",
        f"{shape.hidden:,}; feed-forward {shape.intermediate:,}"
        if shape.intermediate
        else f"{shape.hidden:,}",
        source,
    )
    yield (
        "heads",
        f"{shape.heads}, for keys and values {shape.kv_heads}, each {shape.head_dim} wide",
        source,
    )
    yield (
        "vocabulary",
        f"{shape.vocab:,}, output matrix {'tied' if shape.tied else 'separate'}",
        source,
    )
    if shape.experts:
        shared = (
            f", and one shared of {shape.experts.shared_intermediate:,}"
            if shape.experts.shared_intermediate
            else ""
        )
        yield (
            "experts",
            f"{shape.experts.active} of {shape.experts.count}, each {shape.experts.intermediate:,} "
            f"wide{shared}",
            source,
        )
    if variant.assumed:
        yield (
            "assumed",
            f"{', '.join(variant.assumed)}: no source states it, transformers' default is taken",
            "",
        )
    if not variant.shape_verified:
        yield "unverified", "no source shows this checkpoint's own config.json", ""


def _license(variant: Variant) -> str:
    if variant.license is None:
        return UNSTATED
    return f"{variant.license} (research only)" if variant.research_only else variant.license


def _parameters(variant: Variant, exact: bool = False) -> str:
    from packager.units import human_count

    if variant.params_total is None:
        return UNSTATED
    active = f", {human_count(variant.params_active)} active" if variant.params_active else ""
    return (
        f"{variant.params_total:,}{active}"
        if exact
        else f"{human_count(variant.params_total)}{active}"
    )


def _tokens(count: int | None) -> str:
    return UNSTATED if count is None else f"{count:,}"
