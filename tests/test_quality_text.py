"""The text that divergence is measured on: six parts, clean UTF-8, enough of it, no part a
repetition."""

from __future__ import annotations

import zlib

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "packager" / "quality" / "text"
PARTS = ("chinese", "code", "dialogue", "english", "json", "maths")


def test_the_text_has_six_parts() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == list(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_plain_text_that_says_something_new_on_every_line(part: str) -> None:
    data = (FOLDER / f"{part}.txt").read_bytes()
    assert 7_000 < len(data) < 20_000
    text = data.decode("utf-8")
    assert text.isprintable() or all(sign.isprintable() or sign in "\n\t" for sign in text)
    # Text that repeats itself shrinks to a tenth; prose and code to about a half.
    assert len(zlib.compress(data, 9)) > 0.4 * len(data)


def test_it_goes_into_the_wheel() -> None:
    assert '"*.txt"' in (REPOSITORY / "pyproject.toml").read_text()
