"""benchmark.intoto.json: what was measured when the package was built, bound to the digests of the
files that were measured.

What `bench` adds later is in the manifest, which binds it to the same digests.
"""

from __future__ import annotations

from packager.json_values import JsonObject, at, object_at, object_or_empty, objects_at
from packager.papers.provenance import STATEMENT, subject

PREDICATE = "urn:qwen-pack:benchmark:1"
_LISTS = ("token_ms", "thread_search")
"""Every token of every answer, and what was tried first: the manifest has them."""


def statement(data: JsonObject) -> JsonObject:
    """The statement over the model's files; `measured` is null where they could not be run, and
    `not_measured` says why."""
    measured = object_or_empty(data, "measured")
    figures = {key: value for key, value in measured.items() if key not in _LISTS}
    return {
        "_type": STATEMENT,
        "subject": [subject(row) for row in _model_files(data)],
        "predicateType": PREDICATE,
        "predicate": {
            "package": data["name"],
            "content_sha256": data.get("content_sha256"),
            "engine": data["runtime"],
            "workload": data.get("workload"),
            "target": data.get("target"),
            "random_weights": object_at(data, "source").get("kind") == "dummy",
            "measured": figures or None,
            "not_measured": data.get("not_measured"),
            "quality": data.get("quality"),
            "verdicts": data.get("verdicts") or [],
        },
    }


def _model_files(data: JsonObject) -> list[JsonObject]:
    return [row for row in objects_at(data, "files") if at(row, "path", str).startswith("model/")]
