"""A profile from what a user writes: every wrong word is named, every right one arrives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packager.chat.profile import Profile
from packager.chat.profile_files import parse
from packager.errors import ExitCode, PackError

TOOL = {"type": "function", "function": {"name": "now"}}


def test_the_flags_become_one_object(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_bytes("\ufeffBe brief. 简短\n".encode())
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]))
    found = parse(
        "budget:512", tmp_path / "system.txt", tmp_path / "tools.json", "temperature=0.7, top_k=20"
    )
    assert found == Profile(
        "on", 512, "Be brief. 简短\n", (TOOL,), {"temperature": 0.7, "top_k": 20}
    )
    assert not parse(None, None, None, None) and parse("off", None, None, None)


@pytest.mark.parametrize("word", ["", "no", "budget", "budget:0", "budget:-1", "budget:1e3", "ON"])
def test_a_word_for_thinking_that_is_none_is_a_usage_error(word: str) -> None:
    with pytest.raises(PackError, match="on, off nor budget") as caught:
        parse(word, None, None, None)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("temprature=1", "Did you mean 'temperature'"),
        ("temperature", "a number from 0 to 10"),
        ("temperature=nan", "a number from 0 to 10"),
        ("temperature=11", "a number from 0 to 10"),
        ("top_k=1.5", "a whole number"),
        ("top_p=2", "from 0 to 1"),
        ("", "knows no ''"),
    ],
)
def test_sampling_that_no_engine_takes_is_a_usage_error(sampling: str, words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        parse(None, None, None, sampling)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "no list of tools"),
        (b"[]", "no list of tools"),
        (b'[{"name": "f"}]', r"tools\[0\] is not a function"),
        (b'[{"type": "function", "function": {"name": "a b"}}]', "no usable name"),
        (json.dumps([TOOL, TOOL]).encode(), "of another one"),
        (
            b'[{"type": "function", "function": {"name": "f", "parameters": []}}]',
            "not a JSON schema",
        ),
        (b"\xff", "not UTF-8"),
        (b" " * ((1 << 20) + 1), "more than"),
    ],
    ids=range(10),
)
def test_a_file_that_holds_no_tools_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_bytes(data)
    with pytest.raises(PackError, match=words) as caught:
        parse(None, None, tmp_path / "tools.json", None)
    assert caught.value.exit_code == ExitCode.INPUT and "tools.json" in caught.value.message


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot be read") as caught:
        parse(None, tmp_path / "none", None, None)
    assert caught.value.exit_code == ExitCode.USAGE
