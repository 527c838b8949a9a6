"""The file route.json beside the packages, and what a request names in it.

It comes with the packages, from outside: its size, its paths and its digests are looked at before
anything is opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from packager.shipping.server.parsed import Parsed

# Any: the JSON of the file and of a request, each field of which is looked at before it is used.

SCHEMA = "qwen-pack/route/1"
_MOST_BYTES = 1 << 22
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Unusable(Exception):
    """A table or a package that cannot be served; the sentence says why."""


class Unknown(Exception):
    """A request names nothing that is here; the sentence says what is."""


@dataclass(frozen=True)
class Entry:
    """One package: its name, its folder, the digest of its content, and the settings of its
    server."""

    name: str
    folder: Path
    content_sha256: str
    settings: Path

    @property
    def takes_files(self) -> bool:
        """Whether its requests bring pictures or sound. Raises Unusable for settings that are
        none."""
        try:
            with self.settings.open("rb") as file:
                known = json.loads(file.read(_MOST_BYTES))
            return bool(known["sees"] or known["hears"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise Unusable(f"{self.settings} is not what qwen-pack wrote there.") from None


@dataclass(frozen=True)
class Table:
    """`kinds` of task with their packages, and those without one with the reason."""

    kinds: dict[str, Entry]
    unserved: dict[str, str]

    @property
    def packages(self) -> dict[str, Entry]:
        """Every package by its name, in the order of the kinds."""
        return {entry.name: entry for entry in self.kinds.values()}

    def chosen(self, kind: Any, model: Any) -> Entry:
        """The package for a kind of task, or else for the `model` of a request: a kind, or the name
        of a package. Raises Unknown."""
        if kind is not None:
            return self._of_kind(kind)
        if isinstance(model, str) and model in self.packages:
            return self.packages[model]
        if model is None and len(self.packages) == 1:
            return next(iter(self.packages.values()))
        return self._of_kind(model)

    def _of_kind(self, kind: Any) -> Entry:
        if not isinstance(kind, str) or not kind:
            raise Unknown(f"the request names no kind of task as its `model`; {self._known()}")
        if kind in self.kinds:
            return self.kinds[kind]
        if kind in self.unserved:
            raise Unknown(f"no package serves {kind!r}: {self.unserved[kind]}")
        near = get_close_matches(kind, [*self.kinds, *self.packages], 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise Unknown(f"there is no kind of task {kind[:80]!r}.{meant} {self._known()}")

    def _known(self) -> str:
        return f"Known: {', '.join(self.kinds)}."


def read(path: Path) -> Table:
    """The table in a file, its packages beside it. Raises Unusable."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        data = json.loads(text) if len(text) <= _MOST_BYTES else None
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise Unusable(f"{path} is not valid JSON.") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise Unusable(f"{path} does not follow {SCHEMA}.")
    targets = data.get("routes")
    if not isinstance(targets, dict) or len(targets) != 1:
        raise Unusable(f"{path} must have the routes of one target.")
    ((target, routes),) = targets.items()
    kinds: dict[str, Entry] = {}
    for kind, row in _object(routes, path, "routes").items():
        if row is not None:
            kinds[kind] = _entry(_object(row, path, f"routes.{target}.{kind}"), path, kind)
    if not kinds:
        raise Unusable(f"{path} names no package.")
    reasons = _object(data.get("unserved") or {}, path, "unserved").get(target) or {}
    unserved = {
        kind: str(reason)[:300] for kind, reason in _object(reasons, path, "unserved").items()
    }
    return Table(kinds, {kind: why for kind, why in unserved.items() if kind not in kinds})


def _object(value: Any, path: Path, where: str) -> Parsed:
    if not isinstance(value, dict):
        raise Unusable(f"{path}: {where} is not an object.")
    return value


def _entry(row: Parsed, path: Path, kind: str) -> Entry:
    name, place = row.get("cell"), row.get("package")
    evidence = row.get("evidence")
    digest = evidence.get("content_sha256") if isinstance(evidence, dict) else None
    if not isinstance(name, str) or not _is_plain(name):
        raise Unusable(f"{path}: the package of {kind!r} has no valid name.")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise Unusable(f"{path}: {name} has no content_sha256.")
    folder = _below(path.parent, place, f"{path}: {name}")
    settings = path.parent / "settings" / f"{name}.json"
    return Entry(name, folder, digest, settings)


def _is_plain(name: str) -> bool:
    """Whether a name can be that of a file everywhere."""
    odd = any(letter in '/\\:*?"<>|' for letter in name)
    return 0 < len(name) <= 200 and name.isprintable() and name[0] != "." and not odd


def _below(root: Path, place: Any, what: str) -> Path:
    """A folder of the table's own, reached without links."""
    if not isinstance(place, str) or not place or "\\" in place or "\0" in place:
        raise Unusable(f"{what} has no path of a package.")
    parts = PurePosixPath(place).parts
    if PurePosixPath(place).is_absolute() or ".." in parts or ":" in place:
        raise Unusable(f"{what} leads out of the folder: {place!r}.")
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise Unusable(f"{what} leads over a link: {path}.")
    if not path.is_dir():
        raise Unusable(f"{what} is not there: {path}.")
    return path
