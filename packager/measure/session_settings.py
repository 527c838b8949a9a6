"""What the session of a finished package is opened with."""

from __future__ import annotations

from pathlib import Path

from packager.errors import bad_input
from packager.json_values import JsonObject
from packager.measure.speculation import way
from packager.package import adapters
from packager.package.manifest import Manifest
from packager.package.package import DRAFT
from packager.runtime import Runtime, Sees


def settings_of(found: Manifest) -> JsonObject:
    """What the package's session is opened with: context (tokens), cache type, threads left to the
    engine. Raises PackError (usage) for an adapter package, which has none of its own."""
    adapters.refuse_alone(found)
    context, kv = found.contents.context, found.contents.recipe.kv
    if context is None or kv is None:
        raise bad_input(
            "The manifest has no usable workload context or cache type.", "Build the package again."
        )
    offload = found.contents.offload
    layers = offload.gpu_layers if offload else None
    most = image_limit(most_of(found))
    return {"context": context, "kv": kv, "threads": None, "gpu_layers": layers or 0, **most}


def most_of(package: Manifest) -> int | None:
    """Tokens that one picture may take, as the package was planned; None where nothing bounds
    them."""
    need = package.contents.workload
    return need.max_image_tokens if need else None


def image_limit(most: int | None) -> JsonObject:
    """The setting of a session that bounds its pictures."""
    return {} if most is None else {"image_max_tokens": most}


def limit_of_artifact(runtime: Runtime, most: int | None) -> JsonObject:
    """The same as an input of a conversion; empty where the artifact does not hold it."""
    holds = isinstance(runtime, Sees) and runtime.image_limit_in_artifact
    return image_limit(most) if holds else {}


def speculation_of(found: Manifest, package: Path) -> JsonObject | None:
    """How a session of the package drafts tokens, see packager.measure.speculation.answer; None
    where that does not pay."""
    known = found.contents.speculation
    if known is None or not known.pays or known.drafted is None:
        return None
    folder = str(package / DRAFT) if known.draft else None
    return {**way(known.how, folder, known.drafted), "drafted": known.drafted}
