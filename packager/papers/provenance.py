"""provenance.intoto.json: how the files came to be, as an in-toto statement with SLSA provenance
v1. Source: slsa.dev/spec/v1.0/provenance.

It is not signed by itself: `export --sign` covers it with everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from packager.json_values import JsonObject, at, object_at, object_or_empty, objects_at
from packager.package.content import TOOLCHAIN, content
from packager.papers.licence import address

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:qwen-pack:build:1"
BUILDER = "urn:qwen-pack:builder"


def statement(data: JsonObject) -> JsonObject:
    """The statement over every file that follows from the inputs."""
    variant, recipe = object_at(data, "variant"), object_at(data, "recipe")
    source, tools = object_at(data, "source"), object_or_empty(data, "tools")
    return {
        "_type": STATEMENT,
        "subject": [
            subject(row) for row in objects_at(data, "files") if content(at(row, "path", str))
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "target": data.get("target"),
                    "workload": data.get("workload"),
                    "model": variant["repo_id"],
                    "revision": variant.get("revision"),
                    "weights": source.get("kind"),
                    "recipe": recipe["id"],
                    "version": data.get("version"),
                },
                "internalParameters": {
                    "recipe": recipe,
                    "seeds": _seeds(source),
                    "content_sha256": data.get("content_sha256"),
                },
                "resolvedDependencies": [
                    *_source(variant, source),
                    *_adapters(source),
                    *_own(recipe),
                    *_tools(tools),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": _versions(tools)}},
        },
    }


def subject(row: JsonObject) -> JsonObject:
    """A file of the package by its digest."""
    return {"name": row["path"], "digest": {"sha256": row["sha256"]}}


def _source(variant: JsonObject, source: JsonObject) -> list[JsonObject]:
    """The commit of the checkpoint, and each of its files."""
    revision = variant.get("revision")
    commit: list[JsonObject] = [
        {
            "name": variant["repo_id"],
            "uri": f"git+{_page(variant, source)}@{revision}",
            "digest": {"gitCommit": revision},
        }
    ]
    folder = "adopted" if source.get("adopted") else "checkpoint"
    files: list[JsonObject] = [
        {
            "name": f"{folder}/{row['path']}",
            "digest": {"sha256": row["sha256"]},
            "annotations": {"size": row["size"]},
        }
        for row in objects_at(source, "files")
    ]
    return [*(commit if revision else []), *files]


def _page(variant: JsonObject, source: JsonObject) -> str | None:
    """Where the repository of the weights is, that they were fetched from."""
    if source.get("kind") != "modelscope":
        return address(variant)
    # Late: it brings an HTTP client.
    from packager.sources.modelscope_api import DEFAULT

    return f"{DEFAULT}/models/{quote(str(variant['repo_id']))}"


def _adapters(source: JsonObject) -> list[JsonObject]:
    """The adapters that were merged: the commit of each where it has one, and its files."""
    rows: list[JsonObject] = []
    for number, row in enumerate(objects_at(source, "adapters"), 1):
        if row.get("repo_id") and row.get("revision"):
            page = address({"repo_id": row["repo_id"]})
            rows.append(
                {
                    "name": row["repo_id"],
                    "uri": f"git+{page}@{row['revision']}",
                    "digest": {"gitCommit": row["revision"]},
                }
            )
        rows += [
            {
                "name": f"adapter-{number}/{file['path']}",
                "digest": {"sha256": file["sha256"]},
                "annotations": {"size": file["size"], "scale": str(row["scale"])},
            }
            for file in objects_at(row, "files")
        ]
    return rows


def _own(recipe: JsonObject) -> list[JsonObject]:
    """Files of the builder's that went in beside the checkpoint: an importance matrix, or the text
    it was collected from."""
    named = [
        (key, row)
        for key, row in object_or_empty(recipe, "settings").items()
        if isinstance(row, Mapping) and {"file", "sha256"} <= row.keys()
    ]
    return [
        {"name": f"{key}/{row['file']}", "digest": {"sha256": row["sha256"]}} for key, row in named
    ]


def _tools(versions: JsonObject) -> list[JsonObject]:
    """The distributions that took part, by name and version; python itself is the builder's."""
    return [
        {"name": name, "uri": f"pkg:pypi/{quote(name.casefold())}@{quote(str(version))}"}
        for name, version in sorted(versions.items())
        if version and name not in ("python", "qwen-pack", *TOOLCHAIN)
    ]


def _versions(versions: JsonObject) -> dict[str, str]:
    return {
        name: str(versions[name])
        for name in ("qwen-pack", "python", *TOOLCHAIN)
        if versions.get(name)
    }


def _seeds(source: JsonObject) -> dict[str, int]:
    """What stood in for chance. Converting takes none: the same weights give the same bytes."""
    from packager.sources.dummy import SEED

    return {"random_weights": SEED} if source.get("kind") == "dummy" else {}
