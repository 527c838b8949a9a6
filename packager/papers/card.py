"""MODEL_CARD.md: what a package is, for whom, what was measured, and where its limits are. All of
it from the manifest."""

from __future__ import annotations

import json
from typing import Any

from packager.catalog.licences import agreement, known, spdx
from packager.device.identity import NOT_YET
from packager.papers import words
from packager.quality import paper
from packager.report import figures
from packager.report.budgets import sentence

_MARKS = {True: "passed", False: "MISSED", None: "open"}


def text(data: dict[str, Any]) -> str:
    """Markdown, with the front matter that hubs read."""
    variant, recipe = data["variant"], data["recipe"]
    why = (data.get("why") or {}).get("sentence")
    return f"""---
{_front(data)}---

# {data["name"]}

{words.summary(data)}{f" {why}" if why else ""}

| | |
| --- | --- |
| model | {variant["repo_id"]}{_at(variant.get("revision"))} |
| version of this package | {data.get("version") or "none"} |
| recipe | `{recipe["id"]}`{f": {recipe['summary']}" if recipe.get("summary") else ""} |
| engine | {data["runtime"]["name"]} {data["runtime"].get("version") or ""} |
| context | {(data.get("workload") or {}).get("context")} tokens, cache `{recipe.get("kv")}` |
| sampling | {_sampling(data.get("sampling"))} |
{_profile(data.get("chat"))}| licence of the weights | {spdx(variant.get("license"))} |
| content | sha256 `{data.get("content_sha256") or "not stated"}` |

## For whom

{words.users(data)}

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
    """YAML: every value as JSON, which is YAML too."""
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
    return "".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in rows.items()
    )


def _at(revision: str | None) -> str:
    return f", commit `{revision}`" if revision else ""


def _sampling(sampling: dict[str, float] | None) -> str:
    return (
        ", ".join(f"{key} {value:g}" for key, value in (sampling or {}).items())
        or "not stated by the checkpoint"
    )


def _profile(chat: dict[str, Any] | None) -> str:
    """A row of what the build fixed for every chat; nothing where it fixed nothing."""
    profile = (chat or {}).get("profile") or {}
    fixed = []
    if profile.get("thinking"):
        budget = profile.get("thinking_budget")
        fixed.append(
            f"thinking {profile['thinking']}{f', {budget} tokens at most' if budget else ''}"
        )
    if profile.get("system_prompt") is not None:
        fixed.append("a system prompt")
    if profile.get("tools"):
        names = (tool["function"]["name"] for tool in profile["tools"])
        fixed.append(f"the tools {', '.join(names)}")
    return f"| fixed for every chat | {', '.join(fixed)} |\n" if fixed else ""


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
    where = (
        f"On {measured['measured_at'][:10]}, on {machine['processor']}, {machine['cores']} "
        f"cores{f', {noise}' if noise else ''}."
    )
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
        f"\n| | measured | predicted for {data.get('target')} | error |\n| --- | ---: | ---: | "
        f"---: |\n{''.join(lines)}"
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
    name = f"{row['name'] if row else licence or 'None'} (`{spdx(licence)}`)"
    said = (
        f"{name}, which {reason}."
        if licence and row and reason
        else f"{name}."
        if row
        else f"`{spdx(licence)}`: it {reason}."
    )
    return (
        f"{said} The licence file of this package has the text, or says where it stands; "
        "`NOTICE` says what was changed."
    )
