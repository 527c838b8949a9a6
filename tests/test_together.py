"""`fit --with`: several models side by side in the memory of one device."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode
from packager.select.together import least, together


@dataclass
class One:
    """What the choice looks at of a candidate."""

    peak: int
    passes: bool = True

    beside: int = 0

    @property
    def load(self) -> int:
        return self.peak


PARTS = st.lists(
    st.lists(st.builds(One, st.integers(1, 40), st.booleans()), max_size=5), min_size=2, max_size=3
)


@given(PARTS, st.integers(1, 120))
def test_a_choice_fits_and_no_part_could_be_bettered_alone(parts: Any, room: int) -> None:
    chosen = together(parts, room)
    passing = [[one for one in part if one.passes] for part in parts]
    sums = [sum(one.peak for one in choice) for choice in product(*passing)]
    assert (chosen is None) == (not sums or min(sums) > room)
    assert least(parts) == (min(sums) if sums else None)
    if chosen is None:
        return
    total = sum(one.load for one in chosen)
    assert total <= room
    for part, one in zip(passing, chosen, strict=True):
        better = part[: next(place for place, other in enumerate(part) if other is one)]
        assert all(total - one.load + other.peak > room for other in better)


TWO_MEMORIES = st.lists(
    st.lists(
        st.builds(One, st.integers(1, 9), st.just(value=True), st.integers(0, 9)),
        min_size=1,
        max_size=4,
    ),
    min_size=2,
    max_size=4,
)


@given(TWO_MEMORIES, st.integers(1, 40), st.none() | st.integers(0, 40))
def test_the_choice_is_the_one_that_looking_at_all_of_them_finds(
    parts: Any, room: int, beside: int | None
) -> None:
    fronts = [
        [one for at, one in enumerate(part) if all(one.load < before.load for before in part[:at])]
        for part in parts
    ]

    def weight(choice: Any) -> tuple[int, int]:
        return sum(place for place, _ in choice), sum(one.load for _, one in choice)

    fitting = [
        choice
        for choice in product(*map(enumerate, fronts))
        if weight(choice)[1] <= room
        and (beside is None or sum(one.beside for _, one in choice) <= beside)
    ]
    chosen = together(parts, room, beside)
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        assert sum(one.beside for one in chosen) <= (999 if beside is None else beside)
        found = [(front.index(one), one) for front, one in zip(fronts, chosen, strict=True)]
        assert weight(found) == min(map(weight, fitting))


def test_a_dozen_models_are_planned_without_looking_at_every_choice() -> None:
    """Of 20 candidates each there are more choices than a computer counts in its life."""
    part = [One(peak=100 - place, beside=place % 7) for place in range(20)]
    for beside in (None, 20):
        chosen = together([part] * 12, 12 * 90, beside)
        assert chosen is not None and sum(one.load for one in chosen) <= 12 * 90


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["fit", "--target", "laptop-cpu", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_an_embedder_a_reranker_and_a_chat_model_share_the_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--use-case", "retrieval", "--with", "embed,rerank,chat")
    code, wide = planned(capsys, *words)
    assert code == ExitCode.DONE
    rows = wide["together"]
    assert [row["use_case"] for row in rows] == ["embed", "rerank", "chat"]
    peaks = [row["chosen"]["footprint"]["peak"] for row in rows]
    assert wide["total_bytes"] == sum(peaks) <= wide["room_bytes"]
    assert "Embedding" in rows[0]["chosen"]["variant"]
    assert "Reranker" in rows[1]["chosen"]["variant"]
    narrow_limit = wide["least_bytes"] / 1e6 + 1
    code, narrow = planned(capsys, *words, "--max-memory-mb", str(narrow_limit))
    assert code == ExitCode.DONE and narrow["total_bytes"] <= narrow_limit * 1e6
    code, none = planned(capsys, *words, "--max-memory-mb", "900")
    assert code == ExitCode.NOTHING_FITS and none["total_bytes"] is None
    code, best = planned(capsys, *words, "--prefer", "quality")
    assert code == ExitCode.DONE and best["total_bytes"] > wide["total_bytes"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--with", "embed"], "two use cases or more"),
        (["--with", "embed,embed"], "two use cases or more"),
        (["--with", "embed,nothing"], "nothing"),
        (["--with", "embed,chat", "--context", "300"], "--context is about one model"),
        (["--with", "embed,chat", "--use-case", "chat"], "--use-case is about one model"),
        (["--with", "embed,chat", "--tokens-per-day", "1e6"], "--tokens-per-day is about one"),
        (["--with", "embed,chat", "--steps"], "--steps is about one model"),
        (["--with", "embed,chat", "--all"], "--all is about one model"),
        (["--with", "embed,chat", "--finetune", "lora"], "--finetune goes with"),
        (["--with", "embed,chat", "--model", "Qwen3-4B"], "one --target"),
        (["--with", "embed,chat", "--target", "cpu-gguf"], "one --target"),
    ],
)
def test_what_makes_no_sense_beside_it_is_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--target", "laptop-cpu", *words]) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err


def test_without_a_device_the_device_is_asked_for_and_no_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--with", "embed,chat"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "no device is given" in said and "--target NAME" in said and "--model" not in said


def test_a_part_for_which_nothing_fits_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--target", "android-6gb", "--with", "embed,rerank,chat"]
    assert main([*words, "--max-memory-mb", "700"]) == ExitCode.NOTHING_FITS
    assert "--use-case" in capsys.readouterr().out


def test_the_command_that_says_why_asks_for_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits that were given, and the device's own file."""
    monkeypatch.chdir(tmp_path)
    assert main(["targets", "new", "mine", "--from", "laptop-cpu"]) == ExitCode.DONE
    words = ["fit", "--target", "mine.toml", "--with", "embed,chat", "--max-memory-mb", "300"]
    capsys.readouterr()
    assert main([*words, "--prefer", "quality"]) == ExitCode.NOTHING_FITS
    said = capsys.readouterr().out
    assert said.startswith("Nothing fits mine for embed: `qwen-pack fit")
    tool, *command = shlex.split(said.split("`")[1])
    assert tool == "qwen-pack" and main(command) == ExitCode.NOTHING_FITS
    assert "memory: needs" in capsys.readouterr().out


def test_what_gpus_leave_to_the_systems_memory_has_to_fit_there_as_well() -> None:
    parts: Any = [[One(5, beside=6), One(4, beside=1)], [One(5, beside=6), One(3, beside=1)]]
    assert [one.load for one in together(parts, 20) or ()] == [5, 5]
    assert sum(one.beside for one in together(parts, 20, 7) or ()) == 7
    assert together(parts, 20, 1) is None


def test_of_several_gpus_each_holds_a_part_of_every_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["fit", "--with", "chat,code", "--prefer", "quality", "--target"]
    assert main([*words, "rtx-3090", "--json"]) == ExitCode.DONE
    one = json.loads(capsys.readouterr().out)
    assert main([*words, "rtx-3090-x2", "--json"]) == ExitCode.DONE
    two = json.loads(capsys.readouterr().out)
    peaks = [
        sum(row["chosen"]["footprint"]["peak"] for row in plan["together"]) for plan in (one, two)
    ]
    assert one["total_bytes"] == peaks[0] <= one["room_bytes"]
    # Two models that one of the GPUs could not hold, and both can.
    assert two["total_bytes"] <= two["room_bytes"] < peaks[1] <= 2 * two["room_bytes"]
    assert main([*words, "rtx-3090-x2"]) == ExitCode.DONE
    assert " of 24.7 GB on the fullest of 2 GPUs, each in" in capsys.readouterr().out
    # A limit on the memory is shared by the GPUs.
    limited = [*words, "rtx-3090-x2", "--max-memory-mb", "30000", "--json"]
    assert main(limited) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["room_bytes"] == 15_000_000_000
