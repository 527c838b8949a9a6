"""A session whose tokens are bytes and whose answer is known, so that a test can state what follows
from it by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar


class ByteSession:
    """Answers with `artifact` itself, over and over where it is not told to stop."""

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        self._answer = artifact.encode("utf-8", "surrogateescape")
        self.prompts: list[list[int]] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        self.prompts.append(list(prompt))
        tokens = [
            self._answer[at % len(self._answer)]
            for at in range(min(max_new_tokens, len(self._answer)) if stop else max_new_tokens)
        ]
        for token in tokens:
            on_token(token)
        return tokens

    def close(self) -> None:
        pass


class DeafSession(ByteSession):
    """Its tokenizer finds no token in any text, as a damaged one does."""

    def encode(self, text: str) -> list[int]:
        return []


class FickleSession(ByteSession):
    """Never answers the same twice."""

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        self._answer = bytes([self._answer[0] + 1]) + self._answer[1:]
        return super().generate(prompt, max_new_tokens, on_token, stop=stop)


class Recorder(ByteSession):
    """Keeps itself where a test finds it."""

    latest: ClassVar[ByteSession]

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        super().__init__(artifact, settings)
        Recorder.latest = self


class Clock:
    """A clock that a test turns: `time` as packager.measure.trials and packager.measure.benchmark
    see it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


class Sluggish(ByteSession):
    """A machine that takes 10 ms for a token of a prompt and a second for one of an answer, by a
    clock of its own."""

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        CLOCK.sleep(0.01 * len(prompt) - 1)

        def later(token: int) -> None:
            CLOCK.sleep(1)
            on_token(token)

        return super().generate(prompt, max_new_tokens, later, stop=stop)


class Steady(ByteSession):
    """A token every two milliseconds."""

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        def later(token: int) -> None:
            time.sleep(0.002)
            on_token(token)

        return super().generate(prompt, max_new_tokens, later, stop=stop)


class Threaded(ByteSession):
    """Faster with one thread than with more; its artifact may be any file."""

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        super().__init__("abc", settings)
        self.threads = settings["threads"]

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        def later(token: int) -> None:
            time.sleep(0.001 if self.threads == 1 else 0.004)
            on_token(token)

        return super().generate(prompt, max_new_tokens, later, stop=stop)
