"""An answer goes out piece by piece, each piece whole characters."""

from __future__ import annotations

from typing import Any

import pytest

from packager.behaviour.one_prompt import answer
from packager.errors import ExitCode, PackError
from tests.support.make_checkpoint import Silent


class Heard(Silent):
    """Keeps the pieces."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def text(self, piece: str) -> None:
        self.pieces.append(piece)


def ask(
    says: str, prompt: str = "?", context: int = 100, most: int = 64, session: str = "ByteSession"
) -> tuple[list[str], dict[str, Any]]:
    heard = Heard()
    settings = {"context": context, "kv": "f16", "threads": None}
    name = f"tests.support.byte_session:{session}"
    value = answer(
        heard, session=name, artifact=says, settings=settings, prompt=prompt, max_new_tokens=most
    )
    return heard.pieces, value


def test_a_character_that_several_tokens_make_goes_out_once_it_is_whole() -> None:
    pieces, value = ask("né 包🙂")
    assert pieces == ["n", "é", " ", "包", "🙂"]
    assert value["text"] == "né 包🙂"
    assert (len(value["tokens"]), value["prompt_tokens"]) == (11, 1)


def test_a_character_that_is_cut_off_at_the_end_still_goes_out() -> None:
    assert ask("a包", most=3)[0] == ["a", "\ufffd"]


def test_bytes_that_are_no_character_hold_nothing_back_for_long() -> None:
    assert "".join(ask("a\udcff\udcfeb")[0]) == "a\ufffd\ufffdb"


def test_the_answer_ends_where_the_context_does() -> None:
    assert "".join(ask("abcdefgh", prompt="12345", context=8)[0]) == "abc"


def test_a_prompt_without_tokens_or_without_room_for_an_answer_is_refused() -> None:
    for prompt, session, words in (
        ("", "ByteSession", "empty"),
        ("hi", "DeafSession", "empty"),
        ("x" * 100, "ByteSession", "100 tokens"),
    ):
        with pytest.raises(PackError, match=words) as caught:
            ask("a", prompt=prompt, session=session)
        assert caught.value.exit_code == ExitCode.USAGE
