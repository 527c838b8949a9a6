"""A small part of the campaign of tests/attack, under one seed: what is refused is refused with a
sentence, and what is accepted is right."""

from __future__ import annotations

import ast
import json
import random
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from packager.errors import PackError
from tests.attack import fuzz, mutants
from tests.attack.commands import Command, Ground, ended, environment, listening, start
from tests.attack.inputs import KINDS, Kind
from tests.attack.kills import leftovers
from tests.attack.packages import AGREED, OLD, finish, tree, write_files
from tests.attack.servers import SERVERS, response
from tests.attack.soak import Soak
from tests.attack.tabs import Tabs
from tests.conftest import REPOSITORY
from tests.support.tiers import thorough

pytestmark = pytest.mark.slow

MUTANTS, ANSWERS, SEED = 900, 20, 7


def test_every_kind_of_input_is_read_as_long_as_nobody_changes_it(tmp_path: Path) -> None:
    assert len(KINDS) >= 18
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        kind.read(folder, kind.seed(folder))


@pytest.mark.parametrize(
    ("mutants_made", "answers"), [(MUTANTS // 8, ANSWERS // 2), thorough(MUTANTS, ANSWERS)]
)
def test_no_mutant_gets_a_traceback_hangs_takes_memory_or_is_taken_for_the_genuine(
    mutants_made: int, answers: int
) -> None:
    for total, kinds in ((mutants_made, KINDS), (answers, SERVERS)):
        tally = mutants.attack(total, SEED, kinds=kinds)
        assert set(tally.counts) <= {"accepted", "refused"}, tally.cases
        assert set(tally.kinds) == {kind.name for kind in kinds}
        assert tally.counts["refused"] > total / 4


def test_a_hub_that_says_anything_but_a_listing_is_refused_with_a_sentence() -> None:
    row = {"rfilename": "model.safetensors", "size": 1, "blobId": "0" * 40}
    genuine = {"id": "tests/tiny", "modelId": "tests/tiny", "sha": "0" * 40, "siblings": [row]}
    for change in (
        {"siblings": [{**row, "rfilename": 3}]},
        {"siblings": [{**row, "rfilename": ["x"]}]},
        {"siblings": [{**row, "size": "large"}]},
        {"siblings": [{**row, "size": 1 << 40}, {**row, "rfilename": "LICENSE", "size": 5 << 30}]},
        {"sha": 3},
        {"sha": ["0"]},
    ):
        answer = response(json.dumps({**genuine, **change}).encode())
        kind = replace(SERVERS[0], mutant=lambda random_, data, answer=answer: answer)
        tally = mutants.attack(3, SEED, kinds=[kind])
        assert dict(tally.counts) == {"refused": 3}, (change, tally.cases)


def test_tags_and_cards_of_a_hub_that_are_none_are_passed_over() -> None:
    row = {"rfilename": "model.safetensors", "size": 1, "blobId": "0" * 40}
    genuine = {"id": "tests/tiny", "modelId": "tests/tiny", "sha": "0" * 40, "siblings": [row]}
    for change in (
        {"tags": [5, None, "license:mit"]},
        {"tags": 5},
        {"cardData": "x"},
        {"cardData": [1]},
        {"cardData": {"base_model": [5], "license": ["mit"]}},
    ):
        answer = response(json.dumps({**genuine, **change}).encode())
        kind = replace(SERVERS[0], mutant=lambda random_, data, answer=answer: answer)
        tally = mutants.attack(3, SEED, kinds=[kind])
        assert dict(tally.counts) == {"accepted": 3}, (change, tally.cases)


def test_the_campaign_sees_what_it_looks_for() -> None:
    """Readers that do all that none may: each is counted under its name."""

    def leave(folder: Path, data: bytes) -> None:
        (folder / "in").mkdir()
        (folder / "in" / ".left").touch()

    def write_outside(folder: Path, data: bytes) -> None:
        (folder.parent / str(random.random())).touch()

    def crash(folder: Path, data: bytes) -> None:
        raise KeyError("x")

    def take(folder: Path, data: bytes) -> None:
        bytearray(3 << 30)

    def refuse(folder: Path, data: bytes) -> None:
        raise PackError("no")

    for read, outcome in (
        (leave, "leftovers"),
        (write_outside, "files outside"),
        (crash, "tracebacks"),
        (take, "over memory"),
        (refuse, "refused"),
    ):
        kind = Kind(read.__name__, lambda folder: b"x", lambda random_, data: data, read)
        assert dict(mutants.attack(3, SEED, kinds=[kind]).counts) == {outcome: 3}


def test_the_same_seed_makes_the_same_mutants(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        seed = kind.seed(folder)
        first, second = (kind.mutant(random.Random("1"), seed) for _ in range(2))
        assert first == second, kind.name


@pytest.mark.parametrize("short", ["disk", "files"])
def test_a_command_that_runs_short_leaves_nothing_and_says_so(tmp_path: Path, short: str) -> None:
    ground = Ground(tmp_path, "")
    write_files(tmp_path / "old", OLD)
    (tmp_path / "rooms").mkdir()
    room = tmp_path / "rooms" / "room"
    room.mkdir()
    flags = ["--format", "zip", *("--allow-dummy", "--accept-license", "unstated")]
    command = Command(
        "export",
        lambda ground, room: ["export", str(tmp_path / "old"), "--out", str(room / "out"), *flags],
    )
    limit = {resource.RLIMIT_FSIZE: 100_000} if short == "disk" else {resource.RLIMIT_NOFILE: 40}
    code, errors = ended(start(command, ground, room, limit))
    assert "Traceback" not in errors
    assert code in (0, 7), errors
    assert [path.name for path in room.iterdir()] == ([] if code else ["out"])
    assert short != "disk" or "The disk is full" in errors


def test_a_command_that_is_interrupted_says_so_and_the_next_run_ends_well(tmp_path: Path) -> None:
    from packager.shipping.export import export

    large = {**OLD, "model/model.gguf": OLD["model/model.gguf"] * 200}
    write_files(tmp_path / "old", large)
    finish(export(tmp_path / "old", "zip", tmp_path / "old.zip", **AGREED))
    ground = Ground(tmp_path, "")
    room = tmp_path / "rooms" / "room"
    room.mkdir(parents=True)
    command = Command(
        "unpack",
        lambda ground, room: ["unpack", str(tmp_path / "old.zip"), "--out", str(room / "out")],
    )
    child = start(command, ground, room)
    listening(child)
    time.sleep(0.05)
    child.terminate()
    code, errors = ended(child)
    assert code in (0, 130)
    assert "Traceback" not in errors
    assert [path.name for path in room.iterdir()] == ([] if code else ["out"])
    if code:
        assert ended(start(command, ground, room))[0] == 0
    assert tree(room / "out") == tree(tmp_path / "old")


def test_the_campaign_sees_what_a_command_leaves_wherever_it_lies_and_what_still_runs(
    tmp_path: Path,
) -> None:
    room, temporary = tmp_path / "rooms" / "room", ".qwen-pack-tmp-0123456789abcdef"
    cache = room.parent / "room-cache"
    known = {"room"}
    for place in (room, room.parent, cache / "work", cache / "digests", room / "out" / "model"):
        place.mkdir(parents=True, exist_ok=True)
        assert leftovers(room, known) == [], place
        (place / temporary).touch()
        assert leftovers(room, known) == [temporary], place
        (place / temporary).unlink()
    (room.parent / "of-a-library").touch()
    assert leftovers(room, known) == ["of-a-library"]
    (room.parent / "of-a-library").unlink()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment(room)) as child:
        assert leftovers(room, known, patience_s=0)[0].startswith(f"process {child.pid} ")


@pytest.mark.parametrize("kind", [Soak, Tabs])
def test_a_soak_fails_on_whatever_grows(kind: type[Soak] | type[Tabs]) -> None:
    assert not kind(100, 1 << 20, 0, 0, 0).grew
    assert kind(100, 1 << 30, 0, 0, 0).grew
    for growth in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert kind(100, 0, *growth).grew


def test_every_parser_that_is_fuzzed_is_a_kind_of_the_campaign() -> None:
    assert set(fuzz.KINDS) <= {kind.name for kind in KINDS}
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_fuzzer_finds_what_is_no_refusal(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs atheris: make fuzz")
    row = fuzz._apart("manifest of a registry", 2, SEED, tmp_path)
    assert row["passed"] and row["inputs"] > 100 and row["covered"] > 10


def test_the_tests_that_keep_what_was_found_are_there() -> None:
    """The page names them; none may go, or get another name, unseen."""
    page = (REPOSITORY / "docs" / "measurements" / "attack.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 60
    for file, name in named:
        tree = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{file}::{name}"
