"""What a model is for and where its limits are, from a manifest's inputs alone: the card and the
bill of materials say the same."""

from __future__ import annotations

from typing import Any

from packager.catalog.licences import known
from packager.need.languages import in_words


def summary(data: dict[str, Any]) -> str:
    """What the package is, in a sentence."""
    variant, recipe = data["variant"], data["recipe"]
    what = "Random weights in the shape of" if dummy(data) else "The weights of"
    return (
        f"{what} {variant['repo_id']}, converted to {recipe['id']} for "
        f"{data['runtime']['name']}, planned for {data.get('target')}."
    )


def users(data: dict[str, Any]) -> str:
    """For whom it is."""
    return (
        f"Developers who put a language model on {data.get('target')} or a device like it, "
        "behind an interface of their own."
    )


def uses(data: dict[str, Any]) -> list[str]:
    """What it was planned for."""
    workload = data.get("workload") or {}
    context = workload.get("context")
    spoken = workload.get("languages")
    languages = spoken if isinstance(spoken, list | tuple) else ()
    purpose = f"{workload.get('use_case') or 'general'}{in_words(languages)}"
    return [f"{purpose}: text in, text out, up to {context} tokens of prompt and answer together."]


def limits(data: dict[str, Any]) -> list[str]:
    """Where it must not be relied on, a sentence each."""
    found = []
    if dummy(data):
        found.append(
            "Its weights are random: it answers nothing, and is there to measure size, speed and "
            "memory."
        )
    else:
        found.append(
            "Its answers can be wrong, made up, out of date or unfair: check what matters before "
            "anybody acts on it."
        )
        found.append(
            "Safety was not tested here: what its publisher says of training data, languages and "
            "safety is of the unquantized model."
        )
    made, context = data["recipe"].get("summary"), (data.get("workload") or {}).get("context")
    how = f" ({made})" if made else ""
    found.append(
        f"Quantizing{how} changes answers: the measured divergence says how much on average, your "
        "own texts say more."
    )
    found.append(
        f"Prompt and answer together hold {context} tokens; what goes beyond was not planned for."
    )
    found.append("Text only: images and sound are not part of the package.")
    row = known().get((data["variant"].get("license") or "").casefold()) or {}
    if row.get("agreement"):
        found.append(f"Its licence ({row['name']}) {row['agreement']}.")
    elif not row:
        found.append("Its licence is not known to qwen-pack: find out what it allows.")
    return found


def dummy(data: dict[str, Any]) -> bool:
    """Whether the weights are random."""
    return bool(data["source"].get("kind") == "dummy")
