"""A model on a device as a session here: the benchmark, the quality gate and the tasks drive it as
any other. `settings["lab"]` says how the device is reached, see packager.lab.gauges.Reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from packager.errors import bad_input
from packager.json_values import JsonObject, at, at_or_none
from packager.lab.answers import (
    not_ours,
    number,
    optional_number,
    optional_text,
    table,
    whole,
    wholes,
)
from packager.lab.gauges import Device
from packager.limits import TEMPLATE_BYTES, TOKEN_BYTES
from packager.session import LOGITS_BLOCK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SESSION = "packager.lab.session:Session"
"""The dotted name by which jobs find it."""

_WIDEST = 1 << 22
_AROUND = 16
"""Tokens that a model puts around a text, at most."""


class Session:
    """See packager.session.Session, and Stamped: all times are the device's own."""

    runs_on = "cpu"

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        self._device = Device.of(settings)
        self._link = self._device.link
        self._context = at(settings, "context", int)
        self.threads = (at_or_none(settings, "threads", int) or 0) or self._device.cores().big
        kv = settings.get("kv") or "f16"
        answer = self._link.ask(
            f"open {self._context} {kv} {self.threads} {self._prompt_threads()} "
            f"{self._device.reach.model}"
        )
        self.load_s = number(answer, "load_s")
        self._ends = frozenset(wholes(answer, "ends"))
        self._template = optional_text(answer, "template", TEMPLATE_BYTES)
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
        answer = self._link.ask("decode " + " ".join(map(str, ids)))
        size = whole(answer, "bytes", TOKEN_BYTES * (len(ids) + 1))
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
        answer = self._link.hear()
        size = 0
        if "rows" in answer or "width" in answer:
            size = whole(answer, "rows", LOGITS_BLOCK) * whole(answer, "width", _WIDEST) * 4
        return answer, self._link.raw(size), last not in answer

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
