"""benchmark.intoto.json: what was measured when the package was built, bound to the digests of the
files that were measured.

What `bench` adds later stands in the manifest, which binds it to the same digests.
"""

from __future__ import annotations

from typing import Any

from packager.papers.provenance import STATEMENT, subject

PREDICATE = "urn:qwen-pack:benchmark:1"
_LISTS = ("token_ms", "thread_search")
"""Every token of every answer, and what was tried first: the manifest has them."""


def statement(data: dict[str, Any]) -> dict[str, Any]:
    """The statement over the model's files; `measured` is null where they could not be run, and
    `not_measured` says why."""
    measured = data.get("measured")
    figures = (
        None
        if measured is None
        else {key: value for key, value in measured.items() if key not in _LISTS}
    )
    return {
        "_type": STATEMENT,
        "subject": [subject(row) for row in data["files"] if row["path"].startswith("model/")],
        "predicateType": PREDICATE,
        "predicate": {
            "package": data["name"],
            "content_sha256": data.get("content_sha256"),
            "engine": data["runtime"],
            "workload": data.get("workload"),
            "target": data.get("target"),
            "random_weights": data["source"].get("kind") == "dummy",
            "measured": figures,
            "not_measured": data.get("not_measured"),
            "quality": data.get("quality"),
            "verdicts": data.get("verdicts") or [],
        },
    }
