"""MODEL_CARD.md: what a package is, for whom, what was measured, and where its limits are. All of
it from the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from packager.catalog.licences import agreement, known, named
from packager.escapes import code, markdown, yaml
from packager.json_values import at, object_at
from packager.papers import measured, words
from packager.quality import paper
from packager.records import Contents, Quality
from packager.records.contents import Chat, VariantOf
from packager.report.figures import rows_of


def text(contents: Contents) -> str:
    """Markdown, with the front matter that hubs read."""
    variant, recipe = contents.variant, contents.recipe
    why = contents.why.sentence if contents.why else None
    return f"""---
{_front(contents)}---

# {markdown(contents.name)}

{markdown(words.summary(contents))}{f" {markdown(why)}" if why else ""}

| | |
| --- | --- |
| model | {markdown(variant.repo_id)}{_at(variant.revision)} |
{_adapters(contents)}| version of this package | {markdown(contents.version or "none")} |
{_base(contents)}| recipe | {code(recipe.id)}{f": {markdown(recipe.summary)}" if recipe.summary else ""} |
| engine | {markdown(contents.runtime.name)} {markdown(contents.runtime.version or "")} |
{_minimum(contents)}| context | {contents.context} tokens, cache {code(str(recipe.kv))} |
| sampling | {_sampling(contents.sampling)} |
{_profile(contents.chat)}| licence of the weights | {markdown(named(variant.license))} |
| content | sha256 {code(contents.content_sha256 or "not stated")} |

## For whom

{markdown(words.users(contents))}

{_list(words.uses(contents))}
## Measured

{_measured(contents)}
{measured.budgets(contents.verdicts)}
{_quality(contents.quality)}
## Limits

{_list(words.limits(contents))}
## Licence

{_licence(variant)}

## Where it comes from

`provenance.intoto.json` names the source files by digest, the recipe and the versions of the tools; `sbom.cdx.json` lists what is
inside; `benchmark.intoto.json` binds the figures above to the digests of the files that were measured; `manifest.json` has all of it,
and figures that were added later.
"""


_PIPELINES = {
    "generate": "text-generation",
    "embed": "feature-extraction",
    "rerank": "text-ranking",
}
"""What hubs call a task."""
_TAKING = {"vision": "image-text-to-text", "audio": "automatic-speech-recognition"}
"""And that of a package which takes more than text, by its modality."""


def _front(contents: Contents) -> str:
    """YAML, every value between quotes."""
    licence = (contents.variant.license or "unknown").casefold()
    row = known().get(licence)
    # Hubs know licences by ids of their own; what is none of them is `other` with a name.
    declared = (
        {"license": licence}
        if row and not row["spdx"].startswith("LicenseRef")
        else {"license": "other", "license_name": licence}
    )
    rows = {
        **declared,
        "base_model": contents.variant.repo_id,
        "base_model_relation": "adapter" if contents.adapter else "quantized",
        "pipeline_tag": _pipeline(contents),
        "tags": ["qwen-pack", contents.runtime.name, contents.recipe.id],
    }
    return "".join(f"{key}: {_yaml(value)}\n" for key, value in rows.items())


def _pipeline(contents: Contents) -> str:
    if contents.audio is not None and contents.audio.window_seconds is not None:
        return "audio-text-to-text"
    return _TAKING.get(contents.modality) or _PIPELINES[contents.task]


def _yaml(value: str | Sequence[str]) -> str:
    return yaml(value) if isinstance(value, str) else f"[{', '.join(map(yaml, value))}]"


def _at(revision: str | None) -> str:
    return f", commit {code(revision)}" if revision else ""


def _adapters(contents: Contents) -> str:
    """A row of every adapter that was merged."""
    return "".join(
        f"| adapter | {markdown(row.location)}{_at(row.revision)}, scale {row.scale:g} |\n"
        for row in contents.source.adapters
    )


def _base(contents: Contents) -> str:
    """A row of the package that an adapter belongs to."""
    if contents.adapter is None:
        return ""
    base = contents.adapter.base
    version = f", version {markdown(base.version)}" if base.version else ""
    return (
        f"| belongs to | {markdown(base.name)}{version}, content sha256 "
        f"{code(base.content_sha256)} |\n"
        f"| rank | {contents.adapter.rank}, in {contents.adapter.matrices} matrices |\n"
    )


def _sampling(sampling: dict[str, float] | None) -> str:
    return (
        ", ".join(f"{markdown(key)} {value:g}" for key, value in (sampling or {}).items())
        or "not stated by the checkpoint"
    )


def _minimum(contents: Contents) -> str:
    """A row of the oldest engines that read it; nothing where none are known."""
    rows = contents.runtime.minimum
    oldest = ", ".join(f"{markdown(row.engine)} {markdown(row.version)}" for row in rows)
    return f"| oldest engine that reads it | {oldest} |\n" if oldest else ""


def _profile(chat: Chat | None) -> str:
    """A row of what the build fixed for every chat; nothing where it fixed nothing."""
    profile = chat.profile if chat else None
    if profile is None:
        return ""
    fixed = []
    if profile.thinking:
        budget = profile.thinking_budget
        most = f", {budget} tokens at most" if budget else ""
        fixed.append(f"thinking {markdown(profile.thinking)}{most}")
    if profile.system_prompt is not None:
        fixed.append("a system prompt")
    if profile.tools:
        names = (at(object_at(tool, "function"), "name", str) for tool in profile.tools)
        fixed.append(f"the tools {', '.join(map(markdown, names))}")
    return f"| fixed for every chat | {', '.join(fixed)} |\n" if fixed else ""


def _list(rows: list[str]) -> str:
    return "".join(f"* {markdown(row)}\n" for row in rows)


def _measured(contents: Contents) -> str:
    rows = measured.table(rows_of(contents), contents.target or "the device")
    for gain in (contents.warm, contents.speculation):
        rows += f"\n{markdown(gain.sentence())}\n" if gain else ""
    if contents.measured is None:
        return f"{measured.nowhere(contents.not_measured)}\n\n{rows}"
    return f"{measured.where(contents.measured)}\n\n{rows}"


def _quality(quality: Quality | None) -> str:
    if quality is None:
        return "## Quality\n\nNot compared with the unquantized model.\n"
    return paper.markdown(quality)


def _licence(variant: VariantOf) -> str:
    row = known().get((variant.license or "").casefold())
    reason, name = agreement(variant.license), named(variant.license)
    if variant.license is None:
        sentence = "No known source states a licence of the weights: what it allows is unknown."
    elif row is None:
        sentence = f"{code(name)}: it {reason}."
    else:
        sentence = f"{row['name']} ({code(name)}){f', which {reason}' if reason else ''}."
    return (
        f"{sentence} The licence file of this package has the text, or says where to find it; "
        "`NOTICE` says what was changed."
    )
