"""Rows of a sweep and the folder they lie in: what is kept, taken up again, refused, and what is
worse than in the run before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.records import Contents
from packager.sweep.cell import Cell
from packager.sweep.folder import Folder
from packager.sweep.history import compared
from packager.sweep.matrix import matrix
from packager.sweep.progress import Clock
from packager.sweep.ranking import counted, goes_on, ranked
from packager.sweep.row import Row, Stages, done, failures, not_done
from tests.support.contents import LEAST
from tests.support.sweep_rows import MACHINE, row, run_of
from tests.support.sweeps import known, plan_of


def test_a_row_keeps_the_figures_of_its_manifest_and_comes_back_the_same() -> None:
    data = {
        **LEAST,
        "runtime": {"name": "plain", "version": "3"},
        "variant": {"repo_id": "Qwen/a", "revision": "abc"},
        "recipe": {"id": "plain:b8"},
        "workload": {"context": 512},
        "artifact_bytes": 10,
        "measured": {"decode_tps": 5.0, "ttft_ms": 7.0, "machine": MACHINE, "noisy": True},
        "quality": {"kl_mean": 0.5, "passed": True},
        "verdicts": [
            {
                "rule": "decode",
                "limit": 9,
                "unit": "tok/s",
                "enforced": True,
                "measured": 5,
                "passed": False,
            }
        ],
    }
    stages = Stages()
    stages.add("fetch", 1.0, True)
    stages.add("convert", 2.5, False)
    cell = Cell("Qwen/a", "plain:b8", "big")
    found = done(cell, data, Contents.from_json(data), stages, ("packages/x", None), 12)
    assert found.figures == {
        "artifact_bytes": 10,
        "decode_tps": 5.0,
        "ttft_ms": 7.0,
        "kl_mean": 0.5,
    }
    assert found.missed == ("decode: 5.0 tok/s of at least 9.0 tok/s",)
    assert (found.noisy, found.cached, found.seconds) == (True, ("fetch",), {"convert": 2.5})
    assert Row.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.of == cell


def test_the_reason_of_a_row_is_one_line_that_does_nothing_to_a_terminal() -> None:
    cell = Cell("Qwen/a", "plain:b8", "big")
    found = not_done(cell, "failed", "two\nlines \x1b[31m" + "x" * 5000, int(ExitCode.SOURCE))
    assert found.reason is not None and found.reason.startswith("two lines \\x1b[31m")
    assert len(found.reason) < 3000
    assert failures([found, found.but(exit_code=99), row()]) == {"source": 1, "99": 1}


def test_a_run_without_an_end_is_taken_up_by_the_same_plan_and_by_no_other(tmp_path: Path) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    other = plan_of('[axes]\nvariants=["Qwen3-1.7B"]\ntargets=["big"]', tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    run, again = folder.begin(plan)
    assert (run.number, again) == (1, False)
    folder.add(run, row("a"))
    folder.add(run, row("b"))
    # A power cut leaves half a line.
    with (run.path / "rows.jsonl").open("ab") as file:
        file.write(b'{"id": "half')
    run, again = folder.begin(plan)
    assert (run.number, again, len(run.rows)) == (1, True, 2)
    folder.add(run, row("c"))
    assert len(folder.runs()[0].rows) == 3
    assert folder.begin(other)[0].number == 2
    folder.finish(folder.begin(other)[0])
    assert folder.begin(other)[0].number == 3


def test_the_last_row_of_a_cell_counts(tmp_path: Path) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    run, _ = folder.begin(plan)
    folder.add(run, row("a", status="failed", reason="no"))
    folder.add(run, row("a"))
    (last,) = folder.runs()[0].rows.values()
    assert last.status == "done"


def test_a_folder_of_something_else_is_left_alone_and_one_sweep_writes_at_a_time(
    tmp_path: Path,
) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    with pytest.raises(PackError, match="holds files that no sweep wrote"):
        Folder.made(tmp_path, plan)
    folder = Folder.made(tmp_path / "out", plan)
    with folder.held(), pytest.raises(PackError, match="Another sweep"), folder.held():
        pass


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"nonsense",
        b'{"id": "a", "cell": {}, "status": "done"}',
        b'"\\ud800"',
        b"[" * 9999,
    ],
)
def test_a_damaged_row_is_named_with_its_line(line: bytes, tmp_path: Path) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    run, _ = folder.begin(plan)
    (run.path / "rows.jsonl").write_bytes(line + b"\n")
    with pytest.raises(PackError, match=r"rows\.jsonl: line 1") as caught:
        folder.runs()
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_row_leads_nowhere_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_text("{}")
    folder = Folder(tmp_path / "out")
    assert not folder.is_there(row(package="../elsewhere"))
    assert not folder.is_there(row(package=str(tmp_path / "elsewhere")))


CHANGES: list[tuple[dict[str, Any], bool | None]] = [
    ({"figures": {"decode_tps": 40.0}}, True),
    ({"figures": {"decode_tps": 45.0}}, None),
    ({"figures": {"decode_tps": 70.0}}, False),
    ({"figures": {"decode_tps": 40.0}, "noisy": True}, None),
    ({"figures": {"decode_tps": 40.0}, "machine": {**MACHINE, "cores": 4}}, False),
    ({"figures": {"decode_tps": 40.0}, "prompt_tokens": 128}, None),
    ({"figures": {"peak_memory_bytes": 2.2e9}}, True),
    ({"figures": {"artifact_bytes": 1.02e9}, "noisy": True}, True),
    ({"figures": {"kl_mean": 0.0105}}, None),
    ({"figures": {"kl_mean": 0.02}}, True),
    ({"status": "failed", "reason": "no", "exit_code": 6}, True),
    ({"gate": False}, True),
    ({"missed": ["decode: 1 of 2"]}, True),
    ({"engine_version": "2"}, False),
    ({}, None),
]


@pytest.mark.parametrize(("now", "regression"), CHANGES, ids=[str(one) for one, _ in CHANGES])
def test_what_is_worse_beyond_the_noise_is_a_regression(
    now: dict[str, Any], regression: bool | None
) -> None:
    before, after = row(engine_version="1"), row(**{"engine_version": "1", **now})
    found = compared([run_of(before), run_of(after, number=2)])
    if regression is None:
        assert found == []
    else:
        assert [change.regression for change in found] == [regression]


def test_memory_with_pictures_of_different_sizes_is_no_regression() -> None:
    more = {"figures": {"peak_memory_bytes": 2.4e9, "decode_tps": 40.0}}
    for before, now, worse in (
        ({"image_tokens": 576}, {"image_tokens": 1024}, ["decode_tps"]),
        ({"audio_seconds": 12}, {"audio_seconds": 30}, ["decode_tps"]),
        ({"image_tokens": 1024}, {"image_tokens": 1024}, ["peak_memory_bytes", "decode_tps"]),
        # Rows of older versions do not say it.
        ({}, {"image_tokens": 1024}, ["peak_memory_bytes", "decode_tps"]),
    ):
        found = compared([run_of(row(**before)), run_of(row(**now, **more), number=2)])
        assert [change.figure for change in found if change.regression] == worse


def test_a_change_names_the_inputs_that_changed_too_and_runs_without_an_end_are_not_compared_with() -> (
    None
):
    before = run_of(row(engine_version="1", revision="a"))
    half = run_of(row(figures={"decode_tps": 1.0}), number=2, finished=None)
    now = run_of(row(engine_version="2", revision="b", figures={"decode_tps": 20.0}), number=3)
    (change,) = compared([before, half, now])
    assert change.because == ("plain 1 → 2", "weights a → b")
    assert change.text == "decode: 50.0 tok/s before, 20.0 tok/s now (-60%), worse"
    assert compared([now]) == []


@given(
    st.lists(
        st.fixed_dictionaries({"quality": st.integers(0, 5), "memory": st.integers(0, 5)}),
        min_size=1,
        max_size=12,
    )
)
def test_what_is_beaten_on_all_counts_never_goes_on_before_its_better(values: list[Any]) -> None:
    ids = [str(number) for number in range(len(values))]
    places = {one.id: one.place for one in ranked(ids, values, ("quality", "memory"))}
    assert sorted(places.values()) == list(range(1, len(values) + 1))
    for left, one in enumerate(values):
        for right, other in enumerate(values):
            better = one["quality"] >= other["quality"] and one["memory"] <= other["memory"]
            if better and one != other:
                assert places[str(left)] < places[str(right)]


def test_the_better_half_goes_on_and_what_is_not_known_of_all_ranks_nobody() -> None:
    assert [goes_on(count, 3) for count in (1, 3, 6, 7, 24)] == [3, 3, 3, 4, 12]
    values: list[dict[str, float | None]] = [
        {"quality": None, "size": 1.0},
        {"quality": 2.0, "size": 2.0},
    ]
    assert counted(("quality", "size"), values) == ["size"]
    first = ranked(["a", "b"], values, ("size",))[0]
    assert (first.id, first.why) == ("a", "size 1 B is number 1")
    assert [one.id for one in ranked(["a", "b"], values, ("size",), {"a"})] == ["b", "a"]


def test_the_end_is_foretold_from_what_the_finished_cells_took(tmp_path: Path) -> None:
    plan = plan_of(
        '[axes]\nvariants=["Qwen3-0.6B"]\nrecipes=["plain:b8"]\ntargets=["big"]\ncontexts=[512, 600]',
        tmp_path,
    )
    cells = matrix(plan, known()).possible
    first, second = cells
    clock = Clock(cells)
    before = clock.left()
    assert before == first.expected.total + second.expected.total
    clock.finished(first, row(seconds={"convert": 2 * first.expected.total}))
    assert clock.left() == pytest.approx(2 * second.expected.total)
    clock.finished(second, row())
    assert clock.left() == 0
