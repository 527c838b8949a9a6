"""What a person sees of a running build: rows in a terminal, lines in a pipe."""

from __future__ import annotations

import pytest

from packager.cli.progress import LiveRows, PlainLines, amount
from packager.events import Event, StageFailed, StageFinished, StageMemory, StageNote, StageProgress, StageStarted

BUILD: tuple[Event, ...] = (
    StageStarted("fetch", "Get the weights", 1, 4),
    StageProgress("fetch", 310_000_000, 1_190_000_000),
    StageFinished("fetch", 12.0, False, "1.19 GB"),
    StageStarted("convert", "Convert and quantize", 2, 4),
    StageMemory("convert", 10**9),
    StageNote("convert", "a note that is much longer than what eighty columns leave of a row [with brackets] behind its bar"),
    StageFinished("convert", 75.0, True, "397 MB"),
    StageStarted("measure", "Smoke benchmark", 3, 4),
    StageFinished("measure", 1.0, True, "on 2026-11-21: 28.1 tok/s, first token after 1946 ms, noisy"),
    StageStarted("package", "Hash and package", 4, 4),
    StageFailed("package", "The disk is full.", "Free some space.", 7),
)


def test_eighty_columns_hold_every_row_with_its_mark_title_and_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with LiveRows() as rows:
        for event in BUILD:
            rows.show(event)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rstrip() for line in lines if line.strip()] == [
        "✓ 1/4 Get the weights      0:00:00 1.19 GB",
        "✓ 2/4 Convert and quantize 0:00:00 cached  397 MB",
        "✓ 3/4 Smoke benchmark      0:00:00 cached  on 2026-11-21: 28.1 tok/s, first tok…",
        "✗ 4/4 Hash and package     0:00:00 failed",
    ]
    assert max(len(line) for line in lines) <= 80


def test_a_row_that_works_shows_a_bar_and_as_much_of_its_text_as_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with LiveRows() as rows:
        for event in BUILD[:2]:
            rows.show(event)
    assert capsys.readouterr().err.rstrip() == "• 1/4 Get the weights 0:00:00 ━━━━             310 MB of 1.19 GB (26 %)"
    with LiveRows() as rows:
        for event in BUILD[3:6]:
            rows.show(event)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Convert" in line]
    assert "━ a note that is" in line
    assert line.rstrip().endswith("…")
    assert len(line) <= 80


def test_a_pipe_gets_one_line_per_fact_and_no_word_about_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines() as lines:
        for event in BUILD[:7]:
            lines.show(event)
    assert capsys.readouterr().err.splitlines() == [
        "[1/4] Get the weights",
        "      done in 12.0 s: 1.19 GB",
        "[2/4] Convert and quantize",
        "      a note that is much longer than what eighty columns leave of a row [with brackets] behind its bar",
        "      cached: 397 MB",
    ]


def test_an_amount_is_bytes_with_a_share_or_a_count() -> None:
    assert amount(StageProgress("x", 310_000_000, 1_190_000_000)) == "310 MB of 1.19 GB (26 %)"
    assert amount(StageProgress("x", 310_000_000, None)) == "310 MB"
    assert amount(StageProgress("x", 0, 0)) == "0 B"
    assert amount(StageProgress("x", 3, 5, "answers")) == "3 of 5 answers"
