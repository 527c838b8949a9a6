"""A model on a device as a session here: the benchmark, the quality gate and the tasks drive it as
any other. `settings["lab"]` says how the device is reached, see `Reach`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from packager.cores import Cores
from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, at, at_or_none
from packager.lab.answers import (
    is_number,
    not_ours,
    number,
    optional_number,
    optional_text,
    table,
    whole,
    wholes,
)
from packager.lab.heat import hottest_zone
from packager.lab.link import Link
from packager.limits import DEVICE_WORD_CHARACTERS, TEMPLATE_BYTES, TOKEN_BYTES
from packager.measure.gauges.load import Mark, busy_ticks
from packager.measure.gauges.memory import Memory
from packager.records.measurement import Through
from packager.session import LOGITS_BLOCK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.measure.gauges.energy import Meter

SESSION = "packager.lab.session:Session"
"""The dotted name by which jobs find it."""

_WIDEST = 1 << 22
_AROUND = 16
"""Tokens that a model puts around a text, at most."""


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
        """See Gauges: nothing on a device is read finely enough to be a figure."""
        return None

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
        told = self.link.ask("memory")
        proportional = optional_number(told, "proportional")
        steady = int(optional_number(told, "resident") or 0)
        return Memory(
            # The kernel counts both in steps, and what is resident now was so at some moment.
            max(int(optional_number(told, "peak") or 0), steady),
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


class Session:
    """See packager.session.Session, and Stamped: all times are the device's own."""

    runs_on = "cpu"

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        self._device = Device.of(settings)
        self._link = self._device.link
        self._context = at(settings, "context", int)
        self.threads = (at_or_none(settings, "threads", int) or 0) or self._device.cores().big
        kv = settings.get("kv") or "f16"
        told = self._link.ask(
            f"open {self._context} {kv} {self.threads} {self._prompt_threads()} "
            f"{self._device.reach.model}"
        )
        self.load_s = number(told, "load_s")
        self._ends = frozenset(wholes(told, "ends"))
        self._template = optional_text(told, "template", TEMPLATE_BYTES)
        self._began = self._stamp = 0.0

    @classmethod
    def gauges(cls, settings: JsonObject) -> Device:
        """See packager.measure.gauges.machine.gauges_of."""
        return Device.of(settings)

    def _prompt_threads(self) -> int:
        """A prompt takes all big cores that the agent may use, as in the session of this
        machine."""
        pins = self._device.pins
        return max(self.threads, min(self._device.cores().big, len(pins) if pins else 1 << 20))

    def use_threads(self, threads: int) -> None:
        """Decode with so many threads from now on."""
        self.threads = threads
        self._link.ask(f"threads {threads} {self._prompt_threads()}")

    def encode(self, text: str) -> list[int]:
        """See packager.session.Session."""
        data = text.encode("utf-8", "surrogatepass")
        # No more tokens than bytes, and what the model puts around a text.
        return wholes(self._link.ask(f"encode {len(data)}", data), "ids", len(data) + _AROUND)

    def decode(self, ids: Sequence[int]) -> str:
        """See packager.session.Session."""
        told = self._link.ask("decode " + " ".join(map(str, ids)))
        size = whole(told, "bytes", TOKEN_BYTES * (len(ids) + 1))
        return self._link.raw(size).decode("utf-8", "replace")

    def ends(self) -> frozenset[int]:
        """See packager.session.Session."""
        return self._ends

    def chat_template(self) -> str | None:
        """See packager.session.Session."""
        return self._template

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        """See packager.session.Session. Tokens come in groups, each with the time at which it was
        there."""
        ids = " ".join(map(str, prompt))
        answer: list[int] = []
        stamps: list[float] = []
        groups = self._groups(
            f"generate {max_new_tokens} {int(stop)} {ids}", "began", max_new_tokens
        )
        try:
            for told, _ in groups:
                self._device.latest = table(told, "mark")
                self._began = (optional_number(told, "began") or 0) / 1e9
                tokens, at = wholes(told, "tokens"), wholes(told, "at")
                if len(at) != len(tokens) or len(answer) + len(tokens) > max_new_tokens:
                    raise not_ours(
                        "it reports more tokens than were asked for, or inconsistent times"
                    )
                for token, stamp in zip(tokens, at, strict=True):
                    answer.append(token)
                    stamps.append(stamp / 1e9)
                    self._stamp = stamps[-1]
                    on_token(token)
        finally:
            groups.close()
            self._device.latest = {}
        if any(later < earlier for earlier, later in itertools.pairwise([self._began, *stamps])):
            raise bad_input("The clock of the device ran backwards.", "Measure again.")
        return answer

    def _groups(
        self, command: str, last: str, most: int
    ) -> Generator[tuple[JsonObject, bytes], None, None]:
        """The lines of one answer with the bytes behind each, up to the one that has the field
        `last`; `most` of them at most before it. Whoever stops listening in the middle leaves none
        of them to the next answer."""
        self._link.tell(command)
        heard, listening = 0, True
        while listening:
            told, data, listening = self._line(last)
            heard += 1
            if listening and heard > most:
                raise not_ours("its answer does not end")
            try:
                yield told, data
            except GeneratorExit:
                while listening and heard <= most:
                    listening = self._line(last)[2]
                    heard += 1
                raise

    def _line(self, last: str) -> tuple[JsonObject, bytes, bool]:
        """A line of an answer with the numbers behind it, and whether more come."""
        told = self._link.hear()
        size = 0
        if "rows" in told or "width" in told:
            size = whole(told, "rows", LOGITS_BLOCK) * whole(told, "width", _WIDEST) * 4
        return told, self._link.raw(size), last not in told

    def began(self) -> float:
        """See packager.session.Stamped."""
        return self._began

    def stamp(self) -> float:
        """See packager.session.Stamped."""
        return self._stamp

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See packager.session.Session."""
        # Late: numpy takes a while, and a benchmark needs none of it.
        import numpy as np

        blocks = self._groups("logits " + " ".join(map(str, ids)), "end", len(ids))
        try:
            for told, data in blocks:
                if data:
                    width = whole(told, "width", _WIDEST)
                    yield np.frombuffer(data, dtype="<f4").reshape(-1, width)
        finally:
            blocks.close()

    def close(self) -> None:
        """See packager.session.Session. The agent stays until its process's work is done: its
        peak of memory is still to be asked."""
        self._link.ask("close")
