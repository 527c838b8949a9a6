"""What a person sees of a running build: rows in a terminal, lines in a pipe."""

from __future__ import annotations

import pytest

from packager.cli.progress import LiveRows, PlainLines, amount
from packager.events import (
    AlternativeFinished,
    AlternativeStarted,
    Compared,
    Event,
    StageFailed,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)

BUILD: tuple[Event, ...] = (
    StageStarted("fetch", "Get the weights", 1, 4),
    StageProgress("fetch", 310_000_000, 1_190_000_000),
    StageFinished("fetch", 12.0, False, "1.19 GB"),
    StageStarted("convert", "Convert and quantize", 2, 4),
    StageMemory("convert", 10**9),
    StageNote(
        "convert",
        "a note that is much longer than what eighty columns leave of a row [with brackets] behind "
        "its bar",
    ),
    StageFinished("convert", 75.0, True, "397 MB"),
    StageStarted("measure", "Smoke benchmark", 3, 4),
    StageFinished(
        "measure", 1.0, True, "on 2026-11-21: 28.1 tok/s, first token after 1946 ms, noisy"
    ),
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
    assert (
        capsys.readouterr().err.rstrip()
        == "• 1/4 Get the weights 0:00:00 ━━━━             310 MB of 1.19 GB (26 %)"
    )
    with LiveRows() as rows:
        for event in BUILD[3:6]:
            rows.show(event)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Convert" in line]
    assert "━ a note that is" in line
    assert line.rstrip().endswith("…")
    assert len(line) <= 80


def test_a_pipe_gets_one_line_per_fact_and_no_word_about_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainLines() as lines:
        for event in BUILD[:7]:
            lines.show(event)
    assert capsys.readouterr().err.splitlines() == [
        "[1/4] Get the weights",
        "      done in 12.0 s: 1.19 GB",
        "[2/4] Convert and quantize",
        "      a note that is much longer than what eighty columns leave of a row [with brackets] "
        "behind its bar",
        "      cached: 397 MB",
    ]


COMPARISON: tuple[Event, ...] = (
    AlternativeStarted("llama.cpp", "gguf:Q8_0", 1, 2),
    *BUILD[:3],
    AlternativeFinished("llama.cpp", "gguf:Q8_0", "397 MB, 28.1 tok/s"),
    AlternativeStarted("openvino", "openvino:int8_asym", 2, 2),
    StageStarted("fetch", "Get the weights", 1, 4),
    StageFailed("fetch", "The disk is full.", "Free some space.", 7, fatal=False),
    AlternativeFinished("openvino", "openvino:int8_asym", "not built: The disk is full."),
    Compared("gguf:Q8_0", "the only one that was built"),
    *BUILD[9:10],
    StageFinished("package", 1.0, False, "6 files"),
)


def test_of_several_recipes_each_has_its_heading_and_a_line_when_it_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    headings = [
        "gguf:Q8_0 with llama.cpp (1 of 2)",
        "gguf:Q8_0: 397 MB, 28.1 tok/s",
        "openvino:int8_asym with openvino (2 of 2)",
        "openvino:int8_asym: not built: The disk is full.",
        "Kept: gguf:Q8_0, the only one that was built.",
    ]
    with PlainLines() as lines:
        for event in COMPARISON:
            lines.show(event)
    piped = capsys.readouterr().err.splitlines()
    assert [line for line in piped if line in headings] == headings
    assert "      failed: The disk is full." in piped
    monkeypatch.setenv("COLUMNS", "80")
    with LiveRows() as rows:
        for event in COMPARISON:
            rows.show(event)
    live = [line.rstrip() for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line for line in live if line in headings] == headings
    assert live[-1] == "✓ 4/4 Hash and package 0:00:00 6 files"


def test_an_amount_is_bytes_with_a_share_or_a_count() -> None:
    assert amount(StageProgress("x", 310_000_000, 1_190_000_000)) == "310 MB of 1.19 GB (26 %)"
    assert amount(StageProgress("x", 310_000_000, None)) == "310 MB"
    assert amount(StageProgress("x", 0, 0)) == "0 B"
    assert amount(StageProgress("x", 3, 5, "answers")) == "3 of 5 answers"
