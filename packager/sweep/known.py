"""What only the command line knows, handed down: targets by name, runtimes, this machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packager.device.identity import Here
from packager.device.target import Target
from packager.errors import usage
from packager.events import Event
from packager.names import did_you_mean
from packager.recipe import split_id
from packager.records import Measurement
from packager.runtime import Runtime

MeasureOn = Callable[[Path, str, str], Generator[Event, None, Measurement]]
"""Measures the package at a path, of that runtime, on a machine of the lab."""


@dataclass(frozen=True)
class Known:
    """`look_up` finds a target by its name or the path of its file, and raises PackError (usage)
    where there is none. `memory` says how many bytes a conversion may take here now, None where
    that is not known."""

    look_up: Callable[[str], Target]
    runtimes: Sequence[Runtime]
    here: Here | None = None
    memory: Callable[[], int | None] = lambda: None
    measure_on: MeasureOn | None = None
    _targets: dict[str, Target] = field(default_factory=dict)

    @property
    def available(self) -> int | None:
        """Memory that is available at this moment, in bytes."""
        return self.memory()

    def target(self, name: str) -> Target:
        """The target of that name; its file is read once."""
        if name not in self._targets:
            self._targets[name] = self.look_up(name)
        return self._targets[name]

    def by_prefix(self, recipe: str) -> Runtime:
        """The runtime that a recipe belongs to. Raises PackError (usage) where there is none."""
        prefix = split_id(recipe)[0]
        prefixes = {runtime.prefix: runtime for runtime in self.runtimes}
        if prefix not in prefixes:
            near = did_you_mean(prefix, prefixes)
            raise usage(
                f"There is no runtime with recipes called {prefix!r}.{near}",
                f"Here: {', '.join(prefixes)}.",
            )
        return prefixes[prefix]

    def recipe(self, name: str) -> str:
        """The id of a recipe as its runtime writes it, without a cache type, which is an axis of
        its own. Raises PackError (usage) for an unknown one."""
        weights, kv = split_id(name)[1:]
        if kv is not None:
            raise usage(f"{name!r} has a cache type in it.", "Put it into `kv`.")
        return self.by_prefix(name).recipe(weights).id
