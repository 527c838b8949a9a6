"""An engine that dies costs one stage: its ladder in the check and in every stage, by a runtime
that dies as it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packager import liveness
from packager.cli import main
from packager.deaths import Death, Died
from packager.engine_check import store
from packager.errors import ExitCode, PackError
from packager.package.manifest import read
from packager.package.verify import verify
from packager.pipeline import climb
from targets import registry
from tests.support.dying_runtime import ASSERTION, MOST_CARE, Dying
from tests.support.make_checkpoint import write_tiny
from tests.support.plain_runtime import PLAIN
from tests.support.tiers import thorough

pytestmark = pytest.mark.slow

ALL = "SIGILL,SIGFPE,SIGSEGV,SIGBUS,assert"
"""One death for each degree of care but the last."""
WORDS = {
    "SIGILL": "an instruction that this processor does not know or refuses",
    "SIGFPE": "an arithmetic error",
    "SIGSEGV": "an access to memory that is not its own",
    "SIGBUS": "a part of memory or of a file that is not there",
    "SIGABRT": ASSERTION,
}
Tell = Callable[[str], None]


class _Entry:
    """What importlib.metadata gives for the plug-in's entry point."""

    value, dist = "tests.support.dying_runtime:Dying", None

    def load(self) -> type[Dying]:
        return Dying


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every test shares: a checkpoint, a device that this runtime serves, and what the check
    found."""
    home = tmp_path_factory.mktemp("dying")
    write_tiny(home / "tiny", layers=1, context=64)
    text = (registry.DEVICES / "laptop-cpu.toml").read_text()
    text = re.sub(r"^(runtimes|recipes) = .*$", r"\1 = []", text, flags=re.MULTILINE).replace(
        "runtimes = []", 'runtimes = ["dying"]'
    )
    (home / "device.toml").write_text(text.replace('"laptop-cpu"', '"device"'))
    (home / "tasks.jsonl").write_text(
        json.dumps({"id": "one", "prompt": "Hi", "max_tokens": 2, "checks": [{"kind": "stops"}]})
        + "\n"
    )
    return home


@pytest.fixture(autouse=True)
def plugged_in(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.runtime.cache_clear()
    monkeypatch.setattr(registry, "_entry_points", lambda: {"dying": _Entry()})
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "asked"))
    monkeypatch.setenv(store.FOLDER, str(home / "engines"))
    monkeypatch.delenv("DYING", raising=False)
    forget_deaths(home)
    yield
    registry.runtime.cache_clear()


def forget_deaths(home: Path) -> None:
    """What stages died of; what the check found stays."""
    for file in (home / "engines").glob("*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "deaths": {}}))


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Tell:
    return lambda words: monkeypatch.setenv("DYING", words)


@pytest.fixture
def own_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the check finds in one test alone."""
    monkeypatch.setenv(store.FOLDER, str(tmp_path / "engines"))


def build(home: Path, out: Path, *more: str) -> int:
    line = [
        "build",
        "--target",
        str(home / "device.toml"),
        "--recipe",
        "dying:b16",
        "--context",
        "64",
        "--prompt",
        "16",
    ]
    return main([*line, "--weights", str(home / "tiny"), "--out", str(out), *more])


def asked(tmp_path: Path, stage: str) -> list[str]:
    """What the engine was asked in that stage: care and word of each time."""
    lines = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
    return [line.removeprefix(f"{stage} ") for line in lines if line.startswith(f"{stage} ")]


def climbed() -> tuple[Any, list[str]]:
    notes, work = [], climb.climb(Dying())
    while True:
        try:
            notes.append(next(work).text)
        except StopIteration as stop:
            return stop.value, notes


@pytest.mark.usefixtures("own_outcomes")
def test_a_reference_that_dies_is_not_taken_for_a_fault_of_the_engine(tell: Tell) -> None:
    # The first way dies after its reference, which is then no part of it.
    tell("check=closes,breaks-numpy")
    with pytest.raises(PackError) as caught:
        climbed()
    assert caught.value.exit_code is ExitCode.RESOURCE
    assert (
        f"numpy, which computes the numbers that it is compared with, died of SIGILL, {WORDS['SIGILL']}"
        in str(caught.value)
    )
    assert "OPENBLAS_CORETYPE" in caught.value.hint
    results = [(row.rung, row.result, row.signal) for row in climb.checked(Dying())]
    expected = [("default", "died", "SIGSEGV")]
    assert results == expected, "of the way whose reference died nothing is kept"


@pytest.mark.usefixtures("own_outcomes")
def test_a_reference_that_hangs_is_not_taken_for_a_hang_of_the_engine(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climb, "SILENCE_S", 8.0)
    tell("check=stops-numpy")
    with pytest.raises(PackError) as caught:
        climbed()
    assert caught.value.exit_code is ExitCode.RESOURCE
    assert (
        "numpy, which computes the numbers that it is compared with, hung: it printed nothing "
        in (str(caught.value))
    )
    assert "nothing else keeps the processors" in caught.value.hint
    assert climb.checked(Dying()) == [], "nothing of it is kept"


@pytest.mark.usefixtures("own_outcomes")
def test_the_check_finds_every_death_and_wrong_numbers_and_the_first_way_that_is_right(
    tell: Tell, tmp_path: Path
) -> None:
    tell("check=SIGILL,wrong,SIGSEGV,SIGBUS,assert")
    start, notes = climbed()
    assert start.rung.name == f"care-{MOST_CARE}"
    results = [(one.result, one.signal) for one in start.before]
    assert results == [
        ("died", "SIGILL"),
        ("wrong", None),
        ("died", "SIGSEGV"),
        ("died", "SIGBUS"),
        ("died", "SIGABRT"),
    ]
    said = notes[-1]
    assert all(words in said for name, words in WORDS.items() if name != "SIGFPE"), said
    assert "agree with the reference by" in said and "while converting b16, wide" in said
    before = asked(tmp_path, "check")
    assert [line.split()[0] for line in dict.fromkeys(before)] == ["0", "1", "2", "3", "4", "5"]
    assert climbed()[0] == start, "the next time"
    assert asked(tmp_path, "check") == before, "no rung is asked again"
    assert climb.known(Dying()) == start


@pytest.mark.usefixtures("own_outcomes")
def test_an_engine_that_hangs_is_ended_and_started_in_the_next_way(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climb, "SILENCE_S", 8.0)
    tell("check=hang,SIGFPE")
    start, notes = climbed()
    assert [one.result for one in start.before] == ["hung", "died"]
    assert start.before[1].signal == "SIGFPE" and WORDS["SIGFPE"] in notes[-1]
    assert "it printed nothing for 8 seconds" in notes[-1]


@pytest.mark.usefixtures("own_outcomes")
def test_an_engine_that_refused_with_an_error_of_its_own_is_asked_again_the_next_time(
    tell: Tell, tmp_path: Path
) -> None:
    tell("check=refuses")
    start, _ = climbed()
    assert [(one.result, one.said) for one in start.before] == [
        ("failed", "This engine does not want to.")
    ]
    assert climb.known(Dying()).default, "nothing is known that holds for the next time"
    tell("")
    assert climbed()[0].default
    asked_before = asked(tmp_path, "check")
    assert climbed()[0].default and asked(tmp_path, "check") == asked_before


@pytest.mark.usefixtures("own_outcomes")
def test_an_engine_that_works_in_no_way_ends_with_the_sentence_and_exit_code_7_and_no_package(
    home: Path, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(f"check={','.join(['SIGILL'] * (MOST_CARE + 1))}")
    for _ in range(2):
        assert build(home, tmp_path / "out") == ExitCode.RESOURCE
        error = capsys.readouterr().err
        assert (
            "dying (numpy" in error
            and "does not work on this machine: died of SIGILL" in error
            and WORDS["SIGILL"] in error
        )
        assert "compiled for another processor" in error and "pip install dying" in error
        assert not (tmp_path / "out").exists()
    assert len(asked(tmp_path, "check")) == MOST_CARE + 1
    assert main(["doctor", "--engines", "--json"]) == ExitCode.RESOURCE
    (row,) = json.loads(capsys.readouterr().out)["engines"]
    assert (row["works"], row["rung"], row["error"]["exit_code"]) == (False, None, 7)
    assert [one["signal"] for one in row["outcomes"]] == ["SIGILL"] * (MOST_CARE + 1)
    tell("")
    assert main(["doctor", "--engines", "--again", "--json"]) == ExitCode.DONE
    (row,) = json.loads(capsys.readouterr().out)["engines"]
    assert (row["works"], row["rung"], row["settings"], row["known_before"]) == (
        True,
        "default",
        None,
        False,
    )


@pytest.mark.thorough(
    "test_an_engine_that_hangs_is_ended_and_started_in_the_next_way",
    "test_a_death_in_a_stage_costs_that_stage_and_not_the_build",
)
def test_a_stage_in_which_the_engine_hangs_is_ended_and_runs_again_in_the_next_way(
    home: Path,
    tell: Tell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A machine that runs other tests beside this one lets a process wait for seconds.
    monkeypatch.setattr(liveness, "IDLE_S", 6.0)
    monkeypatch.setattr(liveness, "_SAMPLE_S", 0.5)
    tell("convert=hang;measure=hang,hang;quality=hang,hang,hang")
    assert build(home, tmp_path / "out") == ExitCode.DONE
    narration = capsys.readouterr().err
    for stage in ("Convert", "Smoke", "Quality"):
        assert re.search(rf"no answer in the stage '{stage}.*: it computed, read", narration)
    settings = read(tmp_path / "out").data["runtime"]["settings"]
    assert settings["rung"] == "care-3"
    assert [outcome["result"] for outcome in settings["before"]] == ["hung"] * 3


@pytest.mark.parametrize("stage", [thorough("convert"), "measure", thorough("quality")])
def test_a_death_in_a_stage_costs_that_stage_and_not_the_build(
    stage: str, home: Path, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(f"{stage}={ALL}")
    assert build(home, tmp_path / "out") == ExitCode.DONE
    narration = capsys.readouterr().err
    assert all(
        f"died of {signal}, " in narration and words in narration for signal, words in WORDS.items()
    ), narration
    manifest = read(tmp_path / "out").data
    settings = manifest["runtime"]["settings"]
    assert settings["rung"] == f"care-{MOST_CARE}" and settings["environment"] == {
        "DYING_CARE": str(MOST_CARE)
    }
    assert [one["signal"] for one in settings["before"]] == list(WORDS)
    assert all(one["part"].startswith("in the stage ") for one in settings["before"])
    assert (
        settings["reason"] in " ".join(narration.split())
        and settings["reason"] in (tmp_path / "out" / "README.md").read_text()
    )
    assert manifest["measured"]["rung"] == settings["rung"], (
        "the figures are of the way that the package names"
    )
    assert verify(tmp_path / "out") == []
    assert [line.split()[0] for line in dict.fromkeys(asked(tmp_path, stage))] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
    ]
    (tmp_path / "asked").unlink()
    assert main(["cache", "--clear"]) == ExitCode.DONE
    assert build(home, tmp_path / "again") == ExitCode.DONE
    assert {line.split()[0] for line in asked(tmp_path, stage)} == {str(MOST_CARE)}, (
        "no dead rung is asked again"
    )
    assert read(tmp_path / "again").data["content_sha256"] == manifest["content_sha256"]


COMMANDS = {
    "run": ["run", "PACKAGE", "Hi", "--max-tokens", "2"],
    "measure": ["bench", "PACKAGE", "--json"],
    "behave": ["behave", "PACKAGE", "--prompts", "TASKS", "--json", "--no-save"],
}
"""By the name of what the engine is asked for."""


@pytest.mark.parametrize("stage", ["run", thorough("measure"), thorough("behave")])
def test_run_bench_and_behave_go_on_in_the_next_way_and_remember_it(
    stage: str, home: Path, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    assert build(home, package) == ExitCode.DONE
    contents = read(package).data
    assert contents["runtime"]["settings"] is None and contents["measured"]["rung"] is None
    places = {"PACKAGE": str(package), "TASKS": str(home / "tasks.jsonl")}
    line = [places.get(word, word) for word in COMMANDS[stage]]
    tell(f"{stage}={ALL}")
    (tmp_path / "asked").unlink(missing_ok=True)
    capsys.readouterr()
    assert main(line) == ExitCode.DONE
    said = capsys.readouterr()
    assert all(words in said.err for words in WORDS.values()), said.err
    if "--json" in line:
        found = json.loads(said.out)
        rung = (found["measured"] if stage == "measure" else found)["rung"]
        assert rung == f"care-{MOST_CARE}"
    (tmp_path / "asked").unlink()
    assert main(line) == ExitCode.DONE
    assert {row.split()[0] for row in asked(tmp_path, stage)} == {str(MOST_CARE)}


def test_a_death_by_lack_of_memory_is_no_fault_of_the_engine(
    home: Path, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell("convert=SIGKILL")
    assert build(home, tmp_path / "out") == ExitCode.RESOURCE
    error = capsys.readouterr().err
    assert re.search(
        r"killed from outside after using \d+\.\d GB, most likely because memory ran out", error
    )
    assert asked(tmp_path, "convert") == ["0 SIGKILL"] and not (tmp_path / "out").exists()


def test_a_runtime_without_a_ladder_dies_with_the_same_sentence(tmp_path: Path) -> None:
    start = climb.known(PLAIN)
    assert start.default and climb.checked(PLAIN) == [] and list(climb.climb(PLAIN)) == []
    death = Died(Death("SIGFPE", "", 0, tmp_path / "log"), "", "")
    with pytest.raises(
        PackError, match="plain does not work on this machine: died of SIGFPE, an arithmetic error"
    ) as caught:
        list(climb.after_death(PLAIN, start, death, "in a stage", "work"))
    assert caught.value.exit_code == ExitCode.RESOURCE
