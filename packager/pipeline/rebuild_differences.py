"""What differs between a package and what its inputs give here: tools, files of the checkpoint,
files of the model."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

from packager import __version__
from packager.engines import installed
from packager.json_values import JsonObject, at, object_or_empty
from packager.package.content import MODEL_FOLDER, TOOLCHAIN, content
from packager.package.manifest import FileEntry, Manifest
from packager.package.verify import Finding


def of_tools(known: Manifest) -> dict[str, tuple[str | None, str | None]]:
    """Distributions of the manifest that are not the same version here."""
    here = {"qwen-pack": __version__, "python": platform.python_version()}
    recorded = {
        name: None if version is None else str(version)
        for name, version in known.contents.tools.items()
        if name and name not in TOOLCHAIN
    }
    rows = {
        name: (version, here[name] if name in here else installed(name))
        for name, version in recorded.items()
    }
    return {name: pair for name, pair in rows.items() if pair[0] != pair[1]}


def of_toolchain(known: Manifest, facts: JsonObject) -> dict[str, tuple[str, str]]:
    """What the manifest says of the toolchain and is another one here; what it does not say is
    taken for the same."""
    here = object_or_empty(facts, "toolchain") or {"architecture": platform.machine()}
    recorded = known.contents.tools
    return {
        name: (str(recorded[name]), str(here[name]))
        for name in here
        if name in recorded and recorded[name] != here[name]
    }


def of_sources(recorded: Sequence[JsonObject], fetched: Sequence[JsonObject]) -> list[Finding]:
    """Files of the checkpoint that are not those that the package was built from."""
    before = {at(row, "path", str): (row["size"], row["sha256"]) for row in recorded}
    now = {at(row, "path", str): (row["size"], row["sha256"]) for row in fetched}
    rows = []
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            rows.append(Finding(path, "source", "is missing among the weights"))
        elif path not in before:
            rows.append(
                Finding(
                    path,
                    "source",
                    "is among the weights and was not when the package was built",
                )
            )
        elif before[path] != now[path]:
            rows.append(
                Finding(
                    path,
                    "source",
                    "differs among the weights from when the package was built",
                )
            )
    return rows


def of_files(known: Manifest, made: dict[str, FileEntry], another: bool) -> Iterator[Finding]:
    """The package's files that follow from its inputs, against what these gave now; `another` says
    that the toolchain is."""
    recorded = {entry.path: entry for entry in known.files if content(entry.path)}
    for name in sorted(recorded.keys() | made.keys()):
        if name not in made:
            yield Finding(name, "rebuilt", "is not produced by a rebuild")
        elif name not in recorded:
            yield Finding(name, "rebuilt", "is produced by a rebuild and is not in the package")
        elif made[name].size != recorded[name].size:
            yield Finding(
                name,
                "rebuilt",
                f"is rebuilt with {made[name].size} bytes instead of {recorded[name].size}",
            )
        elif made[name] != recorded[name] and another and name.startswith(MODEL_FOLDER):
            yield Finding(
                name,
                "toolchain",
                "is rebuilt by another toolchain with other bytes, as many as before",
            )
        elif made[name] != recorded[name]:
            yield Finding(name, "rebuilt", "is rebuilt with another sha256")
