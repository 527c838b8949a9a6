"""The oldest engine that reads an artifact: which version first read what the artifact holds, from
TOML with a source per version, and an app's own version against it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject
from packager.names import did_you_mean
from packager.recipe import Recipe
from packager.records.contents import Minimum, MinimumReason
from packager.shape import Shape

_VERSION = re.compile(r"[bv]?[0-9]{1,9}(?:\.[0-9]{1,9}){0,4}")
_ROW = {"version", "source"}
_RELEASES = {"engine", "source", "builds"}


@runtime_checkable
class HasFloor(Protocol):
    """What a Runtime has besides where it knows which versions of its engine read an artifact."""

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """The oldest version of each engine that reads the artifact in that folder. `facts` are
        those that its conversion returned."""


@dataclass(frozen=True, slots=True)
class Releases:
    """Versions of a distribution that holds the engine, oldest first, each with its build."""

    engine: str
    builds: Mapping[str, int]

    def first_with(self, build: int) -> str | None:
        """The oldest version that holds that build or a newer one."""
        return next((version for version, held in self.builds.items() if held >= build), None)


@dataclass(frozen=True, slots=True)
class Floor:
    """Which version of an engine first read each thing, by kind and name; `releases` where another
    distribution holds the engine."""

    path: Path
    engine: str
    rows: Mapping[str, Mapping[str, MinimumReason]]
    releases: Releases | None = None

    def minimum(self, holds: Iterable[tuple[str, str]], engine: str = "") -> tuple[Minimum, ...]:
        """The oldest version that reads all that an artifact holds, kinds and names; empty for an
        artifact that holds nothing. `engine` is another name for the engine.

        Raises PackError (bad input) for what the data does not know: a guess would be no floor.
        """
        reasons = [self._reason(kind, name) for kind, name in dict.fromkeys(holds)]
        if not reasons:
            return ()
        newest = max(reasons, key=lambda reason: numbers(reason.version)).version
        own = Minimum(engine=engine or self.engine, version=newest, reasons=tuple(reasons))
        if self.releases is None:
            return (own,)
        release = self.releases.first_with(numbers(newest)[0])
        if release is None:
            return (own,)
        deciding = next(reason for reason in reasons if reason.version == newest)
        return (own, Minimum(engine=self.releases.engine, version=release, reasons=(deciding,)))

    def _reason(self, kind: str, name: str) -> MinimumReason:
        reason = self.rows.get(kind, {}).get(name)
        if reason is None:
            raise bad_input(f"{self.path}: {kind}.{name} is missing.", "Add it, with its source.")
        return reason


def read(path: Path) -> Floor:
    """The data in a TOML file. Raises PackError (bad input) naming file and key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise bad_input(f"{path} cannot be read: {error}.") from None
    engine = _text(path, "engine", table.pop("engine", None))
    releases = table.pop("releases", None)
    rows = {kind: _rows(path, kind, named) for kind, named in table.items()}
    return Floor(path, engine, rows, None if releases is None else _releases(path, releases))


def _rows(path: Path, kind: str, named: Any) -> dict[str, MinimumReason]:
    if not isinstance(named, dict) or not named:
        raise _wrong(path, kind, "is not a table of names")
    return {name: _row(path, f"{kind}.{name}", kind, name, row) for name, row in named.items()}


def _row(path: Path, key: str, kind: str, name: str, row: Any) -> MinimumReason:
    if not isinstance(row, dict) or row.keys() != _ROW:
        raise _wrong(path, key, "does not have the keys version and source, and no others")
    version = _text(path, f"{key}.version", row["version"])
    if not _VERSION.fullmatch(version):
        raise _wrong(path, f"{key}.version", "is not a version")
    what = f"{kind.replace('_', ' ')} {name}"
    return MinimumReason(
        what=what, version=version, source=_text(path, f"{key}.source", row["source"])
    )


def _releases(path: Path, table: Any) -> Releases:
    if not isinstance(table, dict) or table.keys() != _RELEASES:
        raise _wrong(path, "releases", "does not have the keys engine, source and builds")
    builds = table["builds"]
    for version, build in builds.items() if isinstance(builds, dict) else ():
        if not _VERSION.fullmatch(version) or not isinstance(build, int) or build < 1:
            raise _wrong(path, f"releases.builds.{version}", "is not a version with its build")
    held = list(builds.values()) if isinstance(builds, dict) else []
    if not held or held != sorted(held):
        raise _wrong(path, "releases.builds", "is not a table with the oldest version first")
    _text(path, "releases.source", table["source"])
    return Releases(_text(path, "releases.engine", table["engine"]), builds)


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _wrong(path, key, "is missing" if value is None else "is not a text")
    return value


def _wrong(path: Path, key: str, what: str) -> PackError:
    return bad_input(f"{path}: {key} {what}.")


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare: `b5092`, `v0.9.0`, `2026.4.1`; zeros at the end do not
    count. Raises PackError (usage) for what is not a version."""
    if not _VERSION.fullmatch(version):
        raise usage(
            f"{version[:40]!r} is not a valid engine version.",
            "Write numbers with dots between them, e.g. 2025.2 or 0.3.36; builds of llama.cpp as "
            "b5092.",
        )
    parts = [int(part) for part in version.lstrip("bv").split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class EngineVerdict:
    """An app's engine against what the package needs; `because` are those things that are newer
    than the engine."""

    engine: str
    version: str
    minimum: str
    reads: bool
    because: tuple[str, ...] = ()

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {**asdict(self), "because": list(self.because)}

    def sentence(self) -> str:
        """The verdict for people."""
        if self.reads:
            return f"{self.engine} {self.version} reads it: it takes {self.minimum} or newer."
        return (
            f"{self.engine} {self.version} is too old: {', '.join(self.because)} "
            f"take{'s' if len(self.because) == 1 else ''} {self.minimum} or newer."
        )


def verdicts(minimum: Sequence[Minimum], asked: Iterable[str]) -> list[EngineVerdict]:
    """One for each ENGINE=VERSION in `asked`.

    Raises PackError (usage) for another form, for an engine that the package says nothing of, and
    for a package that says nothing at all.
    """
    by_engine = {row.engine: row for row in minimum}
    judged = []
    for text in asked:
        engine, equals, version = text.partition("=")
        if not equals or not engine:
            raise usage(
                f"{text[:80]!r} is not a valid engine version.", "Write it as ENGINE=VERSION."
            )
        if not by_engine:
            raise usage(
                "The package does not say which versions of its engine read it.",
                "Build it again with this version of qwen-pack.",
            )
        row = by_engine.get(engine)
        if row is None:
            raise usage(
                f"The package does not name the engine {engine[:80]!r}."
                f"{did_you_mean(engine, by_engine)}",
                f"It names: {', '.join(by_engine)}.",
            )
        judged.append(_verdict(row, version))
    return judged


def _verdict(row: Minimum, version: str) -> EngineVerdict:
    has = numbers(version)
    if has >= numbers(row.version):
        return EngineVerdict(row.engine, version, row.version, reads=True)
    # Of a distribution that holds the engine the reason's version is the engine's own.
    newer = [
        reason.what
        for reason in row.reasons
        if len(row.reasons) == 1 or numbers(reason.version) > has
    ]
    return EngineVerdict(row.engine, version, row.version, reads=False, because=tuple(newer))


def sentence(minimum: Sequence[Minimum]) -> str:
    """What an app's engine must be, as one sentence; empty where nothing is known."""
    if not minimum:
        return ""
    engines = ", ".join(f"{row.engine} {row.version} or newer" for row in minimum)
    return f"An app's engine must be {engines}."
