"""A session whose tokens are bytes and whose answer is known, so that a test can state what follows from it by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class ByteSession:
    """Answers with `artifact` itself, over and over where it is not told to stop."""

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        self._answer = artifact.encode("utf-8", "surrogateescape")
        self.prompts: list[list[int]] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def generate(self, prompt: Sequence[int], max_new_tokens: int, on_token: Callable[[int], None], *, stop: bool = True) -> list[int]:
        self.prompts.append(list(prompt))
        tokens = [self._answer[at % len(self._answer)] for at in range(min(max_new_tokens, len(self._answer)) if stop else max_new_tokens)]
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

    def generate(self, prompt: Sequence[int], max_new_tokens: int, on_token: Callable[[int], None], *, stop: bool = True) -> list[int]:
        self._answer = self._answer[::-1]
        return super().generate(prompt, max_new_tokens, on_token, stop=stop)
