"""Figures of a model that takes pictures: how long encoding one takes by its size, the first token
behind one, the rate behind it, and the memory of it all.

The pictures are made here, square and of a size that no engine resizes: what is measured does not
depend on a decoder of files, nor on whose photograph it is.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packager.errors import ExitCode, PackError
from packager.measure.trials import words_of
from packager.runtime import Report
from packager.session import VisionSession

VERSION = 3
"""Raised when the same artifact would give other figures."""

SIZES = (256, 1024, 4096)
"""Tokens of the pictures whose encoding is told: half a megapixel or less, one, and four."""

_REPEATS = 3
_PATIENCE_S = 60.0
"""Seconds that a figure may take. What would take longer is left out, and said."""
_LONGER = 6.0
"""How many times longer a picture of four times the tokens may take: the weights meet each patch
once, and each patch meets every other."""
_QUESTION, _ANSWER = 32, 32
_ROOM = 16
"""Tokens around two pictures, and what a text has more when it is read again."""
_ROWS = 32
_SMALLEST = 9
"""Tokens of the smallest square that llama.cpp does not enlarge."""


@dataclass
class Looking:
    """The part of a measurement that is of pictures. `most` bounds the tokens of one, as the
    package was planned; `prompt_tokens` are the workload's, its picture included."""

    report: Report
    model: VisionSession
    context: int
    most: int | None
    prompt_tokens: int
    seed: int
    left_out: list[str] = field(default_factory=list)

    # Any: figures that go to the manifest, whose type checks them.
    def figures(self, peak: Callable[[], int]) -> dict[str, Any]:
        """Fields of packager.records.Measurement; `peak` tells the most memory so far, in bytes.

        Raises PackError (budget) for a model that answers one picture in two ways.
        """
        figures: dict[str, Any] = {"text_peak_memory_bytes": peak()}
        figures["image_load_s"] = self.model.open_encoder()
        times = self._encoding()
        figures |= {f"image_encode_{size}_ms": 1000 * taken for size, taken in times.items()}
        tokens = self._size(times)
        if tokens < _SMALLEST:
            self._leave_out(tokens, f"the context has {self.context}")
            return figures
        return figures | self._answers(tokens)

    def _encoding(self) -> dict[int, float]:
        """Seconds by tokens."""
        times: dict[int, float] = {}
        for size in SIZES:
            if self.most is not None and size > self.most:
                self._leave_out(size, f"the package takes {self.most}")
                continue
            expected = times[size // 4] * _LONGER if size // 4 in times else 0.0
            if expected > _PATIENCE_S:
                self._leave_out(size, f"one takes about {expected:.0f} s here")
                continue
            times[size] = self._encoded(size)
            self.report.note(f"a picture of {size} tokens: {times[size]:.3g} s to encode")
        return times

    def _encoded(self, size: int) -> float:
        """The median of a few times; of one alone where it takes long."""
        side = self.model.image_side(size)
        seconds: list[float] = []
        began = time.monotonic()
        while len(seconds) < _REPEATS and time.monotonic() - began < _PATIENCE_S / _REPEATS:
            seconds.append(self.model.encode_image(made(side, self._next())))
        return statistics.median(seconds)

    def _size(self, times: Mapping[int, float]) -> int:
        """Tokens of the picture that is asked about: the workload's, as far as the context holds it
        with a question and an answer and encoding it is bearable."""
        room = self.context - _QUESTION - _ANSWER - 8
        wanted = min(self.most or SIZES[1], room)
        largest = max(times, default=0)
        if times and wanted > largest and times[largest] * _LONGER * _REPEATS > _PATIENCE_S:
            wanted = largest
        return math.isqrt(max(wanted, 0)) ** 2

    # Any: figures, as above.
    def _answers(self, tokens: int) -> dict[str, Any]:
        """The first token behind a picture and a question, and the rate of those that follow."""
        side = self.model.image_side(tokens)
        question = max(_QUESTION, self.prompt_tokens - tokens)
        question = min(question, self.context - tokens - _ANSWER - 8)
        firsts: list[float] = []
        gaps: list[float] = []
        answers: list[list[int]] = []
        picture = made(side, self._next())
        text = self.model.decode(words_of(self.model.encode, question, self._next()))
        began = time.monotonic()
        while len(firsts) < 2 or (
            len(firsts) < _REPEATS and time.monotonic() - began < _PATIENCE_S
        ):
            stamps: list[float] = []

            def on_token(_: int, stamps: list[float] = stamps) -> None:
                stamps.append(time.perf_counter())

            start = time.perf_counter()
            seen = self.model.look(["", text], [picture], _ANSWER, on_token, stop=False)
            firsts.append(stamps[0] - start)
            gaps += [after - before for before, after in itertools.pairwise(stamps)]
            answers.append(seen.tokens)
            self.report.progress(len(firsts), _REPEATS, "answers")
        if any(tokens != answers[0] for tokens in answers):
            raise PackError(
                "Greedy decoding gave two different answers to one picture.",
                "The engine or the artifact is broken.",
                ExitCode.BUDGET,
            )
        return {
            "image_tokens": tokens,
            "image_prompt_tokens": seen.prompt_tokens,
            "image_ttft_ms": 1000 * statistics.median(firsts),
            "image_decode_tps": 1 / statistics.median(gaps),
        }

    def pair(self, seen: Mapping[str, Any]) -> dict[str, float]:
        """The first token after two pictures like the one of `seen`, which `figures` gave. They
        are looked at once: the first that came has shown what a picture takes.

        Asked for after the memory was read, which is told with one picture.
        """
        tokens, first_ms = seen.get("image_tokens"), seen.get("image_ttft_ms")
        if tokens is None or first_ms is None:
            return {}
        if 2 * tokens + _QUESTION + _ROOM > self.context:
            self.left_out.append(f"two pictures of {tokens} tokens: the context has {self.context}")
            return {}
        if 2 * first_ms > 1000 * _PATIENCE_S:
            expected = 2 * first_ms / 1000
            self.left_out.append(f"two pictures: they take about {expected:.0f} s here")
            return {}
        side = self.model.image_side(tokens)
        pictures = [made(side, self._next()) for _ in range(2)]
        text = self.model.decode(words_of(self.model.encode, _QUESTION, self._next()))
        stamps: list[float] = []
        start = time.perf_counter()
        self.model.look(
            ["", "", text], pictures, 1, lambda _: stamps.append(time.perf_counter()), stop=False
        )
        return {"image_pair_ttft_ms": 1000 * (stamps[0] - start)}

    def _next(self) -> int:
        self.seed += 1
        return self.seed

    def _leave_out(self, size: int, why: str) -> None:
        self.left_out.append(f"pictures of {size} tokens: {why}")


# Any: a picture as it goes to the process of a session.
def made(side: int, seed: int) -> dict[str, Any]:
    """A square picture of slopes and blocks, another for every seed, as sessions take it."""
    import numpy as np

    draw = np.random.default_rng(seed)
    across = np.linspace(0, 255, side, dtype=np.float32)
    right, down = draw.random(3), draw.random(3)
    blocks, size = draw.integers(0, 256, (8, 8, 3)), -(-side // 8)
    pixels = np.empty((side, side, 3), np.uint8)
    # A few rows at once: what is measured is the engine's memory, and not what this takes.
    for top in range(0, side, _ROWS):
        rows = np.arange(top, min(side, top + _ROWS))
        slopes = across[None, :, None] * right + across[rows, None, None] * down
        wide = blocks[rows // size].repeat(size, 1)[:, :side]
        pixels[rows] = (slopes / 2 + wide / 2).clip(0, 255).astype(np.uint8)
    return {"data": pixels.tobytes(), "width": side, "height": side}
