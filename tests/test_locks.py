"""Locks: what several programs add to one file at once is all there afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from packager import locks
from packager.behaviour import trial
from packager.lab import machines
from packager.package import manifest, shelf
from packager.pipeline import bench
from packager.records import Measurement
from tests.support.make_package import write_package

pytestmark = pytest.mark.skipif(not locks.AVAILABLE, reason="this system locks no files")
MANY = 8


def at_once(step: Callable[[int], Any]) -> None:
    """The step of every number, each in a thread of its own."""
    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(step, range(MANY)))


@pytest.fixture
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading takes long enough for everybody to have read before anybody writes."""

    def slowed(read: Callable[..., Any]) -> Callable[..., Any]:
        def told(*given: Any) -> Any:
            found = read(*given)
            time.sleep(0.05)
            return found

        return told

    monkeypatch.setattr(machines, "machines", slowed(machines.machines))
    monkeypatch.setattr(manifest, "read", slowed(manifest.read))
    monkeypatch.setattr(shelf, "remembered", slowed(shelf.remembered))


@pytest.mark.usefixtures("slow_reading")
def test_names_of_machines_that_are_given_at_once_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machines.FILE, str(tmp_path / "new" / "lab.toml"))
    at_once(lambda number: machines.add(f"m{number}", f"ssh://a@h{number}"))
    assert set(machines.machines()) == {f"m{number}" for number in range(MANY)}


@pytest.mark.usefixtures("slow_reading")
def test_figures_that_are_saved_at_once_are_all_in_the_manifest(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")

    def save(number: int) -> None:
        if number:
            bench.save(package, Measurement(repeats=number))
        else:
            trial.save(package, {"set": "x", "tasks": []})

    at_once(save)
    contents = manifest.read(package).contents
    assert {one.repeats for one in contents.measurements} == set(range(1, MANY))
    assert contents.behaviour is not None


@pytest.mark.usefixtures("slow_reading")
def test_packages_that_are_built_at_once_are_all_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    folders = [tmp_path / f"p{number}" for number in range(MANY)]
    for folder in folders:
        folder.mkdir()
    at_once(lambda number: shelf.remember(folders[number]))
    assert {*shelf.remembered()} == {*folders}


def test_a_folder_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    with locks.alone_in(tmp_path / "nowhere"):
        assert not (tmp_path / "nowhere").exists()
