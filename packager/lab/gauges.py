"""The gauges of a device: what its agent tells of load, memory, clock, heat and energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from packager.cores import Cores
from packager.json_values import JsonDict, JsonObject, at
from packager.lab.answers import is_number, optional_number, optional_text, table
from packager.lab.heat import hottest_zone
from packager.lab.link import Link
from packager.limits import DEVICE_WORD_CHARACTERS
from packager.measure.gauges.load import Mark, busy_ticks
from packager.measure.gauges.memory import Memory
from packager.records.measurement import Through

if TYPE_CHECKING:
    from packager.measure.gauges.energy import Meter

_SYSTEM = "/sys/class"
"""Where Linux and Android tell of counters and batteries."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How a child process reaches an agent: the program that starts it, the model's path there,
    the device's processors, what it calls itself, and how the measurement names the way."""

    argv: tuple[str, ...]
    model: str
    cores: Cores
    machine: dict[str, Any]  # Any: msgspec cannot resolve a type that names itself
    through: Through

    def to_json(self) -> JsonObject:
        """As it travels in the settings of a session."""
        data: JsonDict = msgspec.to_builtins(self)
        return data

    @classmethod
    def of(cls, settings: JsonObject) -> Reach:
        """The inverse, of a session's settings."""
        return msgspec.convert(settings["lab"], cls)


class Device:
    """The gauges of a device, and the link to its agent; see
    packager.measure.gauges.machine.Gauges. One process of ours has one agent at a time."""

    counters = _SYSTEM
    """The folder there below which counters of energy are looked for."""

    _open: Device | None = None

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.link = Link(reach.argv)
        self.pins: tuple[int, ...] | None = None
        self.latest: JsonObject = {}
        self._before = self.celsius()

    @classmethod
    def of(cls, settings: JsonObject) -> Device:
        """The device of these settings: the one that is open, or a new agent."""
        reach = Reach.of(settings)
        if cls._open is None or cls._open.reach != reach:
            cls.leave()
            cls._open = Device(reach)
        return cls._open

    @classmethod
    def leave(cls) -> None:
        """End the agent that is open."""
        if cls._open is not None:
            cls._open.link.close()
            cls._open = None

    def cores(self) -> Cores:
        """See Gauges."""
        return self.reach.cores

    @contextmanager
    def pinned(self, threads: int | None) -> Iterator[tuple[int, ...] | None]:
        """See Gauges."""
        wanted = self.cores().processors(threads) if threads else None
        if wanted is None:
            yield None
            return
        self.pins = self._pin(wanted)
        try:
            yield self.pins
        finally:
            self._pin([cpu for kind in self.cores().kinds for core in kind.cores for cpu in core])
            self.pins = None

    def _pin(self, wanted: Any) -> tuple[int, ...] | None:
        """Move the agent; None where the mask that is read back is another one."""
        mask = sorted(wanted)
        answer = self.link.ask("mask " + " ".join(map(str, mask)))
        return tuple(mask) if answer.get("mask") == mask else None

    def mark(self) -> Mark:
        """See Gauges."""
        return self._mark(self._asked())

    def now(self) -> Mark:
        """The latest mark: what came with the tokens while an answer runs, when nothing can be
        asked."""
        return self._mark(self.latest) if self.latest else self.mark()

    def _mark(self, told: JsonObject) -> Mark:
        try:
            busy = busy_ticks(at(told, "stat", str)) / at(told, "hertz", float)
            others = busy - at(told, "own_s", float)
        except (
            KeyError,
            ValueError,
            IndexError,
            TypeError,
            AttributeError,
            ArithmeticError,
        ):
            others = None
        return Mark((optional_number(told, "at") or 0) / 1e9, others, self.now)

    def _asked(self) -> JsonObject:
        """A fresh mark; the latest one while the agent is telling tokens."""
        if self.latest:
            return self.latest
        return table(self.link.ask("mark"), "mark")

    def forget(self, artifact: Path) -> float | None:
        """See Gauges. The file that is forgotten is the device's."""
        return optional_number(self.link.ask(f"forget {self.reach.model}"), "cached")

    def meter(self, gpu: bool) -> Meter | None:
        """See Gauges. A device that tells no energy, or hangs on a charger, has none."""
        source = optional_text(self.link.ask(f"meter {self.counters}"), "source", 100)
        return None if source is None else _Joules(source, self)

    def megahertz(self) -> float | None:
        """See Gauges."""
        value = optional_number(self._asked(), "mhz")
        return round(value, 1) if value else None

    def celsius(self) -> float | None:
        """See Gauges. The kernel gives thousandths of a degree."""
        rows = self._asked().get("zones")
        zones = []
        for row in rows if isinstance(rows, list) else []:
            kind, value = row if isinstance(row, list) and len(row) == 2 else ("", None)
            if isinstance(value, int | float) and is_number(value):
                zones.append((str(kind), float(value)))
        return hottest_zone(zones)

    def memory(self) -> Memory:
        """See Gauges. Of the agent's own process."""
        answer = self.link.ask("memory")
        proportional = optional_number(answer, "proportional")
        steady = int(optional_number(answer, "resident") or 0)
        return Memory(
            # The kernel counts both in steps, and what is resident now was so at some moment.
            max(int(optional_number(answer, "peak") or 0), steady),
            steady,
            None if proportional is None else int(proportional),
        )

    def machine(self) -> JsonObject:
        """See Gauges."""
        return self.reach.machine

    def through(self) -> Through | None:
        """See Gauges."""
        return self.reach.through.but(
            engine=str(self.link.hello.get("engine", ""))[:DEVICE_WORD_CHARACTERS].strip(" |"),
            temperature_before_c=self._before,
            temperature_after_c=self.celsius(),
        )

    def joules(self) -> float:
        """Joules of all answers since the meter was opened; not a number where nobody counts any
        more."""
        value = optional_number(self._asked(), "joules")
        return float("nan") if value is None else value


class _Joules:
    """See packager.measure.gauges.energy.Meter. The agent counts while it answers, so that neither
    the way nor the desk is part of it."""

    def __init__(self, source: str, device: Device) -> None:
        self.source = source
        self._device = device

    def joules(self) -> float:
        """See Meter."""
        return self._device.joules()

    def close(self) -> None:
        """Nothing is held here."""
