"""provenance.intoto.json: how the files came to be, as an in-toto statement with SLSA provenance
v1. Source: slsa.dev/spec/v1.0/provenance.

It is not signed by itself: `export --sign` covers it with everything else.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from packager.package.content import TOOLCHAIN, content
from packager.papers.licence import address

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:qwen-pack:build:1"
BUILDER = "urn:qwen-pack:builder"


def statement(data: dict[str, Any]) -> dict[str, Any]:
    """The statement over every file that follows from the inputs."""
    return {
        "_type": STATEMENT,
        "subject": [subject(row) for row in data["files"] if content(row["path"])],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "target": data.get("target"),
                    "workload": data.get("workload"),
                    "model": data["variant"]["repo_id"],
                    "revision": data["variant"].get("revision"),
                    "weights": data["source"].get("kind"),
                    "recipe": data["recipe"]["id"],
                    "version": data.get("version"),
                },
                "internalParameters": {
                    "recipe": data["recipe"],
                    "seeds": _seeds(data),
                    "content_sha256": data.get("content_sha256"),
                },
                "resolvedDependencies": [
                    *_source(data),
                    *_adapters(data),
                    *_own(data["recipe"]),
                    *_tools(data.get("tools") or {}),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": _versions(data.get("tools") or {})}
            },
        },
    }


def subject(row: dict[str, Any]) -> dict[str, Any]:
    """A file of the package by its digest."""
    return {"name": row["path"], "digest": {"sha256": row["sha256"]}}


def _source(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The commit of the checkpoint, and each of its files."""
    revision = data["variant"].get("revision")
    commit = [
        {
            "name": data["variant"]["repo_id"],
            "uri": f"git+{address(data['variant'])}@{revision}",
            "digest": {"gitCommit": revision},
        }
    ]
    files = [
        {
            "name": f"checkpoint/{row['path']}",
            "digest": {"sha256": row["sha256"]},
            "annotations": {"size": row["size"]},
        }
        for row in data["source"].get("files") or []
    ]
    return [*(commit if revision else []), *files]


def _adapters(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The adapters that were merged: the commit of each where it has one, and its files."""
    found: list[dict[str, Any]] = []
    for number, row in enumerate(data["source"].get("adapters") or [], 1):
        if row.get("repo_id") and row.get("revision"):
            place = address({"repo_id": row["repo_id"]})
            found.append(
                {
                    "name": row["repo_id"],
                    "uri": f"git+{place}@{row['revision']}",
                    "digest": {"gitCommit": row["revision"]},
                }
            )
        found += [
            {
                "name": f"adapter-{number}/{file['path']}",
                "digest": {"sha256": file["sha256"]},
                "annotations": {"size": file["size"], "scale": str(row["scale"])},
            }
            for file in row["files"]
        ]
    return found


def _own(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Files of the builder's that went in beside the checkpoint: an importance matrix, or the text
    it was collected from."""
    settings = (recipe.get("settings") or {}).items()
    named = [
        (key, row)
        for key, row in settings
        if isinstance(row, dict) and {"file", "sha256"} <= row.keys()
    ]
    return [
        {"name": f"{key}/{row['file']}", "digest": {"sha256": row["sha256"]}} for key, row in named
    ]


def _tools(versions: dict[str, Any]) -> list[dict[str, Any]]:
    """The distributions that took part, by name and version; python itself is the builder's."""
    return [
        {"name": name, "uri": f"pkg:pypi/{quote(name.casefold())}@{quote(str(version))}"}
        for name, version in sorted(versions.items())
        if version and name not in ("python", "qwen-pack", *TOOLCHAIN)
    ]


def _versions(versions: dict[str, Any]) -> dict[str, str]:
    return {
        name: str(versions[name])
        for name in ("qwen-pack", "python", *TOOLCHAIN)
        if versions.get(name)
    }


def _seeds(data: dict[str, Any]) -> dict[str, int]:
    """What stood in for chance. Converting takes none: the same weights give the same bytes."""
    from packager.sources.dummy import SEED

    return {"random_weights": SEED} if data["source"].get("kind") == "dummy" else {}
