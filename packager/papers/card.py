"""MODEL_CARD.md: what a package is, for whom, what was measured, and where its limits are. All of
it from the manifest."""

from __future__ import annotations

from typing import Any

from packager.catalog.licences import agreement, known, spdx
from packager.device.identity import NOT_YET
from packager.papers import words
from packager.quality import paper
from packager.report import figures
from packager.report.budgets import sentence
from packager.shipping.apps.escapes import code, markdown, yaml

_MARKS = {True: "passed", False: "MISSED", None: "open"}


def text(data: dict[str, Any]) -> str:
    """Markdown, with the front matter that hubs read."""
    variant, recipe = data["variant"], data["recipe"]
    why = (data.get("why") or {}).get("sentence")
    return f"""---
{_front(data)}---

# {markdown(data["name"])}

{markdown(words.summary(data))}{f" {why}" if why else ""}

| | |
| --- | --- |
| model | {markdown(variant["repo_id"])}{_at(variant.get("revision"))} |
| version of this package | {markdown(data.get("version") or "none")} |
| recipe | {code(recipe["id"])}{f": {recipe['summary']}" if recipe.get("summary") else ""} |
| engine | {markdown(data["runtime"]["name"])} {markdown(data["runtime"].get("version") or "")} |
| context | {(data.get("workload") or {}).get("context")} tokens, cache {code(str(recipe.get("kv")))} |
| sampling | {_sampling(data.get("sampling"))} |
| licence of the weights | {markdown(spdx(variant.get("license")))} |
| content | sha256 `{data.get("content_sha256") or "not stated"}` |

## For whom

{markdown(words.users(data))}

{_list(words.uses(data))}
## Measured

{_measured(data)}
{_budgets(data)}
{_quality(data.get("quality"))}
## Limits

{_list(words.limits(data))}
## Licence

{_licence(variant)}

## Where it comes from

`provenance.intoto.json` names the source files by digest, the recipe and the versions of the tools; `sbom.cdx.json` lists what is
inside; `benchmark.intoto.json` binds the figures above to the digests of the files that were measured; `manifest.json` has all of it,
and figures that were added later.
"""


def _front(data: dict[str, Any]) -> str:
    """YAML, every value between quotes."""
    variant = data["variant"]
    licence = (variant.get("license") or "unknown").casefold()
    row = known().get(licence)
    # Hubs know licences by ids of their own; what is none of them is `other` with a name.
    declared = (
        {"license": licence}
        if row and not row["spdx"].startswith("LicenseRef")
        else {"license": "other", "license_name": licence}
    )
    rows = {
        **declared,
        "base_model": variant["repo_id"],
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
        "tags": ["qwen-pack", data["runtime"]["name"], data["recipe"]["id"]],
    }
    return "".join(f"{key}: {_yaml(value)}\n" for key, value in rows.items())


def _yaml(value: str | list[str]) -> str:
    return f"[{', '.join(map(yaml, value))}]" if isinstance(value, list) else yaml(value)


def _at(revision: str | None) -> str:
    return f", commit {code(revision)}" if revision else ""


def _sampling(sampling: dict[str, float] | None) -> str:
    return (
        ", ".join(f"{key} {value:g}" for key, value in (sampling or {}).items())
        or "not stated by the checkpoint"
    )


def _list(rows: list[str]) -> str:
    return "".join(f"* {row}\n" for row in rows)


def _measured(data: dict[str, Any]) -> str:
    measured = data.get("measured")
    if measured is None:
        return (
            f"**{NOT_YET.capitalize()}.** "
            f"{data.get('not_measured') or 'It was not run where it was built.'}\n{_table(data)}"
        )
    machine, place = measured["machine"], measured["place"]
    noise = figures.noise(measured)
    processor, noisy = markdown(machine["processor"]), f", {noise}" if noise else ""
    where = f"On {measured['measured_at'][:10]}, on {processor}, {machine['cores']} cores{noisy}."
    if not place["on_device"]:
        where = (
            f"**{NOT_YET.capitalize()}**: {place['why']}. What follows is a check on the "
            f"machine that built it. {where}"
        )
    return f"{where}\n{_table(data)}"


def _table(data: dict[str, Any]) -> str:
    lines = []
    for row in figures.rows(data):
        predicted, measured, error = row.texts()
        lines.append(f"| {row.label} | {measured} | {predicted} | {error} |\n")
    return (
        f"\n| | measured | predicted for {markdown(str(data.get('target')))} | error |\n| --- | "
        f"---: | ---: | ---: |\n{''.join(lines)}"
    )


def _budgets(data: dict[str, Any]) -> str:
    rows = data.get("verdicts") or []
    return "".join(
        f"* {_MARKS[row['passed']]}: "
        f"{sentence(row)}{'' if row['enforced'] else ' (reported, not enforced)'}\n"
        for row in rows
    )


def _quality(quality: dict[str, Any] | None) -> str:
    if quality is None:
        return "## Quality\n\nNot compared with the unquantized model.\n"
    return paper.markdown(quality)


def _licence(variant: dict[str, Any]) -> str:
    licence = variant.get("license")
    row = known().get((licence or "").casefold())
    reason = agreement(licence)
    name = f"{row['name'] if row else markdown(licence or 'None')} ({code(spdx(licence))})"
    said = (
        f"{name}, which {reason}."
        if licence and row and reason
        else f"{name}."
        if row
        else f"{code(spdx(licence))}: it {reason}."
    )
    return (
        f"{said} The licence file of this package has the text, or says where it stands; "
        "`NOTICE` says what was changed."
    )
