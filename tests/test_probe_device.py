"""What was measured of this machine is kept for it alone, and becomes a device whose numbers have
sources."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from packager import catalog
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.select import candidates
from targets.devices.device_file import parse_target
from targets.devices.device_write import device_text
from targets.machine.limits import Memory
from targets.machine.probe import (
    Machine,
    Measurement,
    as_target,
    installed_engines,
    keep,
    kept,
    look,
    measure,
)
from targets.registry import runtimes, target
from tests.support.probed import MACHINE, NOISY, QUIET, RUNTIMES


def test_a_measurement_is_kept_for_this_machine_and_no_other() -> None:
    assert kept(MACHINE) is None
    assert keep(MACHINE, QUIET) is not None
    assert kept(MACHINE) == QUIET
    assert kept(replace(MACHINE, usable_cores=2)) is None


def test_a_noisy_measurement_does_not_replace_a_quiet_one() -> None:
    keep(MACHINE, NOISY)
    assert kept(MACHINE) == NOISY
    keep(MACHINE, QUIET)
    assert keep(MACHINE, NOISY) is None
    assert kept(MACHINE) == QUIET


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"machine": 1}', '{"measurement": {"kernels": [{}]}, "machine": {}}']
)
def test_a_damaged_file_in_the_cache_counts_as_none(text: str, own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "probe.json").write_text(text)
    assert kept(MACHINE) is None


def test_this_machine_becomes_a_device_with_a_source_for_every_number() -> None:
    one = as_target(MACHINE, QUIET, "mine")
    assert one.device.available_bytes == 12 * 10**9
    assert one.device.confidence == "measured"
    assert (
        "measured on this machine, 2026-11-21, by qwen-pack probe"
        in one.device.sources["bandwidth"]
    )
    assert parse_target(device_text(one), "", RUNTIMES) == one


def test_this_machine_is_a_target_once_it_was_measured() -> None:
    with pytest.raises(PackError, match="not been measured yet") as failure:
        target("this-machine")
    assert "qwen-pack probe" in failure.value.hint
    keep(look(), QUIET)
    assert target("this-machine").device.bandwidth == QUIET.bandwidth


def test_a_noisy_machine_is_not_called_measured_and_says_so_at_its_numbers() -> None:
    one = as_target(MACHINE, NOISY, "mine")
    assert one.device.confidence == "same-class"
    assert "60%" in one.device.sources["bandwidth"]


def test_a_machine_without_any_free_memory_is_still_a_valid_device() -> None:
    one = as_target(replace(MACHINE, memory=Memory(10**9, 0, "cgroup")), QUIET, "mine")
    assert one.device.available_bytes <= 1
    assert parse_target(device_text(one), "", RUNTIMES) == one


@pytest.mark.engine
def test_the_command_measures_keeps_and_writes_a_device_that_is_accepted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    # As on a machine with next to no free memory.
    monkeypatch.setattr("targets.machine.probe.stack_bytes", lambda available: 16 << 20)
    assert main(["probe", "--save", "mine", "--json"]) == ExitCode.DONE
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "qwen-pack/probe/1"
    assert shown["noisy"] == shown["measurement"]["noisy"]
    assert shown["device"]["bandwidth"] == shown["measurement"]["bandwidth"] > 0
    assert {kernel["engine"] for kernel in shown["measurement"]["kernels"]} <= set(
        installed_engines()
    )
    assert json.loads((own_cache / "probe.json").read_text())["measurement"] == shown["measurement"]
    assert main(["targets", "check", "mine.toml"]) == ExitCode.DONE


def test_a_name_that_is_taken_is_refused_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("precious")
    assert main(["probe", "--save", "mine"]) == ExitCode.USAGE
    assert "mine.toml already exists" in capsys.readouterr().err
    assert (tmp_path / "mine.toml").read_text() == "precious"
    assert not own_cache.exists()


@pytest.mark.engine
def test_a_runtime_that_cannot_run_on_this_processor_is_rejected_with_the_reason() -> None:
    found = as_target(
        MACHINE,
        replace(QUIET, died={"llama.cpp": "the installed build is of another processor"}),
        "here",
    )
    rows = candidates(found, found.workload, [catalog.find("Qwen3-0.6B")], runtimes(), every=True)
    assert {row.runtime for row in rows if row.passes} <= {"openvino", "onnxruntime"}
    why = {
        reason.has
        for row in rows
        if row.runtime == "llama.cpp"
        for reason in row.reasons
        if reason.rule == "processor"
    }
    assert why == {"the installed build is of another processor"}
    assert "llama.cpp" not in parse_target(device_text(found), "here.toml", RUNTIMES).runtimes
    old = as_target(replace(MACHINE, isa=("x86_64",)), QUIET, "old")
    assert (
        set(old.device.cannot_run) == set(RUNTIMES)
        and "SSE4.2" in old.device.cannot_run["openvino"]
    )


def test_an_engine_that_ends_with_an_illegal_instruction_is_kept_as_one_that_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dying(
        machine: Machine, engines: list[str], environment: object
    ) -> Generator[object, None, Measurement]:
        yield from ()
        if engines[0] == "llama.cpp":
            raise PackError(
                "The process targets.machine.measure:measure_job ended with signal SIGILL.",
                "",
                ExitCode.BUG,
            )
        return replace(QUIET, engine=engines[0])

    monkeypatch.setattr("targets.machine.probe._measure_with", dying)
    monkeypatch.setattr("targets.machine.probe.installed_engines", lambda: ["llama.cpp", "numpy"])
    result = measure(MACHINE, lambda engines: {})
    while True:
        try:
            next(result)
        except StopIteration as end:
            assert list(end.value.died) == ["llama.cpp"] and end.value.engine == "numpy"
            return
