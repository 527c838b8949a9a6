"""Read a plan file (TOML) into a SweepPlan; every problem is reported at once, with its key."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packager.catalog import Variant
from packager.chat.profile import Profile
from packager.digests import key_of
from packager.errors import PackError, usage
from packager.files import expanded
from packager.foreign import load_toml
from packager.names import did_you_mean
from packager.sweep.asked import Compare
from packager.sweep.cell import DEFAULT
from packager.sweep.exclusion import NONE, Exclusion
from packager.sweep.known import Known
from packager.sweep.plan_check import HINT, Problems, check
from packager.sweep.plan_schema import SECTIONS, Size, Word, complaint, size_of

_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a plan file asks for; names are checked, sizes are bytes.

    `variants` are repository ids, `checkpoints` absolute paths. `recipes` is empty where each
    target's own count, `contexts` holds None for the target's own. `need` has fields of a Workload.
    `keep` is how many cells of a target pruning leaves, None without it. `on` names the machine on
    which packages of a target are measured once they are built, an address or a name of the lab.
    """

    name: str
    text: str
    variants: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    adapters: tuple[tuple[str, ...], ...] = ((),)
    recipes: tuple[str, ...] = ()
    kv: tuple[str, ...] = (DEFAULT,)
    contexts: tuple[int | None, ...] = (None,)
    targets: tuple[str, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=lambda: {DEFAULT: Profile()})
    source: str = "hub"
    offline: bool = False
    exclusions: tuple[Exclusion, ...] = ()
    need: Mapping[str, Any] = field(default_factory=dict)
    disk_bytes: int | None = None
    keep_packages: str = "all"
    keep: int | None = None
    by: tuple[str, ...] = ("quality", "memory")
    tasks: tuple[str, ...] = ()
    behaviour_percent: float | None = None
    on: Mapping[str, str] = field(default_factory=dict)
    compare: tuple[Compare, ...] = ()

    @property
    def digest(self) -> str:
        """What tells two plans apart: text, profiles, and how it is pruned."""
        profiles = {name: one.as_dict() for name, one in self.profiles.items()}
        parts = [self.text, profiles, self.keep, self.by if self.keep else None]
        return key_of([*parts, dict(self.on)] if self.on else parts)


def read(path: Path, known: Known) -> SweepPlan:
    """The plan in a file. Raises PackError (usage) that names the file and the key of every
    problem."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise usage(f"{path} is not a plan file.", "Name the TOML file itself.")
        if path.stat().st_size > _MOST_BYTES:
            raise usage(f"{path} is larger than a plan file can be (1 MB).")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise usage(f"{path} is not UTF-8 text.", "Is it the right file?") from None
    except FileNotFoundError:
        raise usage(f"There is no plan file {str(path)!r}.", HINT) from None
    return parse(text, path, known)


def parse(text: str, path: Path, known: Known) -> SweepPlan:
    """The plan in the text of a file; names in it are relative to the file's folder."""
    problems = Problems(path.name)
    try:
        data = load_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise usage(f"{path.name}: this is not TOML: {error}.", HINT) from None
    except ValueError as error:
        raise usage(f"{path.name}: this is not a plan file: {error}.", HINT) from None
    check(data, problems)
    problems.raise_any()
    plan = _Reader(data, text, path, known, problems).plan()
    problems.raise_any()
    return plan


class _Reader:
    """The checked data as a SweepPlan; names that do not exist become problems."""

    def __init__(
        # Any: TOML, whose keys and kinds have been checked.
        self,
        data: dict[str, Any],
        text: str,
        path: Path,
        known: Known,
        problems: Problems,
    ) -> None:
        self._data, self._text, self._path = data, text, path
        self._known, self._problems = known, problems
        self._axes: dict[str, Any] = data.get("axes", {})

    def plan(self) -> SweepPlan:
        """The plan; where there are problems it is not complete."""
        data = self._data
        weights, limits = data.get("weights", {}), data.get("limits", {})
        prune, route = data.get("prune", {}), data.get("route", {})
        name = data.get("name") or re.sub(r"[^a-z0-9._-]+", "-", self._path.stem.lower())
        if not _NAME.fullmatch(name):
            self._problems.add("name", "must be small letters, digits, dots and hyphens.")
        if "by" in prune and "keep" not in prune:
            self._problems.add("prune.by", "has no effect without keep, the number that stays.")
        plan = SweepPlan(
            name=name,
            text=self._text,
            variants=self._variants(),
            checkpoints=self._checkpoints(),
            adapters=self._adapters(),
            recipes=self._recipes(),
            kv=tuple(dict.fromkeys(self._axes.get("kv", [DEFAULT]))),
            contexts=tuple(dict.fromkeys(self._axes.get("contexts", [None]))),
            targets=self._targets(),
            profiles=self._profiles(),
            source=weights.get("source", "hub"),
            offline=weights.get("offline", False),
            exclusions=tuple(Exclusion(**table) for table in data.get("exclude", [])),
            need=self._need(),
            disk_bytes=size_of(limits["disk"]) if "disk" in limits else None,
            keep_packages=limits.get("keep_packages", "all"),
            keep=prune.get("keep"),
            by=tuple(dict.fromkeys(prune.get("by", ("quality", "memory")))),
            tasks=self._tasks(route),
            behaviour_percent=route.get("behaviour_percent"),
            on=self._on(),
            compare=tuple(Compare(**table) for table in data.get("compare", [])),
        )
        if not (plan.variants or plan.checkpoints):
            self._problems.add(
                "axes", "names nothing to build: give variants or checkpoints, or a [filter]."
            )
        return plan

    def _of(self, key: str, names: list[str], look: Any) -> list[Any]:
        """Each name looked up; a PackError becomes a problem of the key."""
        values = []
        for name in names:
            try:
                values.append(look(name))
            except PackError as error:
                self._problems.add(key, f"names {name!r}: {error.message}")
        return values

    def _variants(self) -> tuple[str, ...]:
        from packager import catalog

        named = self._of("axes.variants", self._axes.get("variants", []), catalog.find)
        repo_ids = [variant.repo_id for variant in (*named, *self._filtered())]
        return tuple(dict.fromkeys(repo_ids))

    def _filtered(self) -> Iterator[Variant]:
        from packager import catalog

        asked = self._data.get("filter")
        if asked is None:
            return
        all_of = catalog.load()
        known = {
            "family": {variant.family for variant in all_of},
            "kind": {str(variant.kind) for variant in all_of},
            "license": {variant.license or catalog.UNSTATED for variant in all_of},
            "modality": {word for one in all_of for word in (*one.modality_in, *one.modality_out)},
        }
        for key, words in known.items():
            for word in asked.get(key, ()):
                if word.casefold() not in {each.casefold() for each in words}:
                    near = did_you_mean(word, words) or f" Known: {', '.join(sorted(words))}."
                    self._problems.add(
                        f"filter.{key}", f"has {word!r}, which no variant has.{near}"
                    )
        matching = [variant for variant in all_of if _passes(variant, asked)]
        if not matching:
            self._problems.add("filter", "matches no variant of the catalogue.")
        yield from matching

    def _checkpoints(self) -> tuple[str, ...]:
        folders = []
        for name in self._axes.get("checkpoints", []):
            folder = self._beside(name)
            if not folder.is_dir():
                self._problems.add("axes.checkpoints", f"names {name!r}, which is not a folder.")
            folders.append(str(folder))
        return tuple(dict.fromkeys(folders))

    def _adapters(self) -> tuple[tuple[str, ...], ...]:
        """Sets of adapters, each in the form of `--lora`; "none" is the one without any."""
        adapters = []
        for given in self._axes.get("adapters", [NONE]):
            names = given if isinstance(given, list) else [given]
            adapters.append(tuple(self._adapter(name) for name in names if name != NONE))
        return tuple(dict.fromkeys(adapters))

    def _adapter(self, name: str) -> str:
        """An adapter whose folder is absolute; one of the hub stays as it is."""
        place, colon, scale = name.rpartition(":")
        for folder, end in ((name, ""), (place, f"{colon}{scale}")):
            if folder and self._beside(folder).is_dir():
                return f"{self._beside(folder)}{end}"
        if name.startswith((".", "/", "~")) or "/" not in name:
            self._problems.add("axes.adapters", f"names {name!r}, which is not a folder.")
        return name

    def _beside(self, name: str) -> Path:
        """A path relative to the plan file's own folder."""
        return Path(os.path.normpath(self._path.absolute().parent / expanded(name)))

    def _recipes(self) -> tuple[str, ...]:
        def look(name: str) -> str:
            return self._known.recipe(name)

        return tuple(dict.fromkeys(self._of("axes.recipes", self._axes.get("recipes", []), look)))

    def _targets(self) -> tuple[str, ...]:
        def look(name: str) -> str:
            device = str(self._beside(name)) if name.endswith(".toml") else name
            self._known.target(device)
            return device

        if "targets" not in self._axes:
            self._problems.add("axes.targets", "is missing: for which device is it?")
        return tuple(dict.fromkeys(self._of("axes.targets", self._axes.get("targets", []), look)))

    def _profiles(self) -> dict[str, Profile]:
        from packager.sweep.profile_file import read as read_profile

        profiles: dict[str, Profile] = {}
        for name in self._axes.get("profiles", [DEFAULT]):
            if name == DEFAULT:
                profiles[DEFAULT] = Profile()
                continue
            path = self._beside(name)
            try:
                profiles[str(path)] = read_profile(path)
            except PackError as error:
                self._problems.add("axes.profiles", f"names {name!r}: {error}")
        return profiles

    def _on(self) -> dict[str, str]:
        from packager.lab.machines import address_of
        from packager.lab.transport import parse as address

        machines = {}
        for name, machine in self._data.get("on", {}).items():
            if name not in self._axes.get("targets", []):
                near = did_you_mean(name, self._axes.get("targets", []))
                self._problems.add(f"on.{name}", f"is not one of the targets in [axes].{near}")
                continue
            if wrong := complaint(Word(), machine):
                self._problems.add(f"on.{name}", wrong)
                continue
            target = str(self._beside(name)) if name.endswith(".toml") else name
            self._of(f"on.{name}", [machine], lambda text: address(address_of(text)))
            machines[target] = machine
        return machines

    # Any: fields of a Workload, which `merge` checks.
    def _need(self) -> dict[str, Any]:
        from packager.need.languages import codes
        from packager.need.usecases import benchmark, use_case

        given = dict(self._data.get("budgets", {}))
        for key, rule in SECTIONS["budgets"].items():
            if isinstance(rule, Size) and key in given:
                given[key] = size_of(given[key])
        if "use_case" in given:
            self._of("budgets.use_case", [given["use_case"]], use_case)
        if "min_scores" in given:
            names = self._of("budgets.min_scores", list(given["min_scores"]), benchmark)
            given["min_scores"] = dict(zip(names, given["min_scores"].values(), strict=False))
        if "languages" in given:
            spoken = self._of("budgets.languages", given["languages"], lambda word: codes([word]))
            given["languages"] = tuple(dict.fromkeys(code for some in spoken for code in some))
        for key in ("modality", "licenses"):
            if key in given:
                given[key] = tuple(given[key])
        return given

    # Any: see __init__.
    def _tasks(self, route: dict[str, Any]) -> tuple[str, ...]:
        from packager.need.usecases import use_case

        tasks = self._of("route.tasks", route.get("tasks", []), lambda name: use_case(name).name)
        return tuple(dict.fromkeys(tasks))


def _passes(variant: Variant, asked: Mapping[str, Any]) -> bool:
    """Whether a variant is chosen by the [filter]; base models are left out unless asked for."""
    from packager.catalog import UNSTATED

    def among(key: str, *values: str) -> bool:
        wanted = {word.casefold() for word in asked.get(key, ())}
        return not wanted or not wanted.isdisjoint(value.casefold() for value in values)

    size = variant.params_total
    # Without a number nothing says that it lies within the limits.
    bounded = "min_params" in asked or "max_params" in asked
    within = not bounded or (
        size is not None
        and asked.get("min_params", 0) <= size <= asked.get("max_params", float("inf"))
    )
    return (
        within
        and (asked.get("base", False) or not variant.base)
        and variant.unbuildable is None
        and among("family", variant.family)
        and among("kind", variant.kind)
        and among("license", variant.license or UNSTATED)
        and among("modality", *variant.modality_in, *variant.modality_out)
    )
