"""What the machine tells of itself is read rightly, and its silence is no zero."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from packager.measure.gauges import clock, energy, pages
from packager.measure.gauges.load import Mark
from packager.measure.gauges.memory import proportional_bytes
from packager.process import resident_bytes
from packager.records.measurement import Energy


def rapl(
    root: Path, name: str, micro: int, kind: str = "package-0", largest: int = 10_000_000
) -> Path:
    zone = root / "powercap" / name
    zone.mkdir(parents=True)
    for file, text in (
        ("name", kind),
        ("energy_uj", str(micro)),
        ("max_energy_range_uj", str(largest)),
    ):
        (zone / file).write_text(f"{text}\n")
    return zone


def battery(root: Path, **files: str | int) -> Path:
    folder = root / "power_supply" / "BAT0"
    folder.mkdir(parents=True)
    for name, text in {"type": "Battery", **files}.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_rapl_counts_every_processor_package_and_goes_on_behind_its_range(tmp_path: Path) -> None:
    zones = [
        rapl(tmp_path, "intel-rapl:0", 9_000_000),
        rapl(tmp_path, "intel-rapl:1", 0, "package-1"),
    ]
    rapl(tmp_path, "intel-rapl:0:0", 0, "core")
    rapl(tmp_path, "intel-rapl:2", 0, "psys")
    meter = energy.meter(root=tmp_path)
    assert meter is not None
    assert meter.source == "RAPL, processor package"
    (zones[0] / "energy_uj").write_text("2000000")
    (zones[1] / "energy_uj").write_text("500000")
    assert meter.joules() == 3.5
    assert meter.joules() == 3.5


def test_a_counter_that_may_not_be_read_leaves_the_battery_and_a_charging_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    (rapl(tmp_path, "intel-rapl:0", 0) / "energy_uj").unlink()
    folder = battery(tmp_path, status="Discharging", current_now=-2_000_000, voltage_now=12_000_000)
    assert energy.watts(folder) == 24
    started = time.monotonic()
    meter = energy.meter(root=tmp_path)
    assert meter is not None
    time.sleep(0.05)
    counted = meter.joules()
    assert 24 * 0.05 <= counted <= 24 * (time.monotonic() - started)
    (folder / "status").write_text("Charging")
    # A charger in between leaves no figure.
    assert energy.spent(meter, 1, 1, meter.joules(), 0.0) is None
    meter.close()
    assert energy.meter(root=tmp_path) is None


def test_a_machine_without_meters_tells_no_energy(tmp_path: Path) -> None:
    assert energy.meter(root=tmp_path) is None
    assert energy.spent(None, 10, 1, 5.0, 5.0) is None


@pytest.mark.engine
def test_energy_is_given_per_token_of_answers_and_per_prompt_with_its_source(
    tmp_path: Path,
) -> None:
    rapl(tmp_path, "intel-rapl:0", 0)
    meter = energy.meter(root=tmp_path)
    spent = energy.spent(meter, tokens=10, prompts=2, decode_j=5.0, prompt_j=8.0)
    assert spent == Energy(
        source="RAPL, processor package", joules_per_token=0.5, joules_per_prompt=4.0
    )
    assert energy.spent(meter, tokens=10, prompts=2, decode_j=0.0, prompt_j=0.0) is None


def test_heat_is_the_processors_own(tmp_path: Path) -> None:
    assert clock.hottest({"coretemp": [50.0, 61.0], "nvme": [80.0], "k10temp": [None]}) == 61
    assert clock.hottest({"nvme": [80.0]}) is None
    assert clock.hottest({"coretemp": [-273.0, 255.0]}) is None


def test_shared_memory_counts_once_over_all_processes_and_nobody_told_is_none(
    tmp_path: Path,
) -> None:
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text(
        "5580-7fff ---p 00:00 0 [rollup]\nRss:    900 kB\nPss:    300 kB\nPss_Anon:  1 kB\n"
    )
    assert proportional_bytes(rollup) == 300 * 1024
    assert proportional_bytes(tmp_path / "absent") is None


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no proportional set size"
)
def test_the_proportional_size_of_this_process_is_at_most_its_resident_size() -> None:
    """Linux counts both in steps, and other threads take and give back between two questions."""
    pairs = [(proportional_bytes() or 0, resident_bytes()) for _ in range(20)]
    assert any(0 < proportional <= resident * 1.05 for proportional, resident in pairs)


@pytest.mark.skipif(
    not hasattr(os, "posix_fadvise") or not Path("/proc/self/maps").exists(),
    reason="no page cache of Linux",
)
def test_a_forgotten_file_is_held_again_once_it_was_read(tmp_path: Path) -> None:
    file, empty = tmp_path / "model", tmp_path / "empty"
    file.write_bytes(os.urandom(1 << 20))
    empty.write_bytes(b"")
    assert pages.held_share([file, empty]) == 1
    dropped = pages.forget([file, empty])
    if dropped:
        pytest.skip("this file system keeps its files in memory")
    assert pages.held_share([file]) == 0
    file.read_bytes()
    assert pages.held_share([file]) == 1


def test_others_are_those_who_work_while_we_wait() -> None:
    if (others := Mark.now().others) is None:
        pytest.skip("this system tells no load")
    assert others >= 0
    started = Mark(10.0, 100.0, read=lambda: Mark(12.0, 103.0))
    assert started.cores_since() == 1.5
    # The system counts in ticks: we may have worked for more of them than everybody together.
    assert Mark(10.0, 100.0, read=lambda: Mark(12.0, 99.9)).cores_since() == 0
    # One step of the counters in a moment is no load.
    assert Mark(10.0, 100.0, read=lambda: Mark(10.001, 100.01)).cores_since() is None
    assert Mark(10.0, None, read=lambda: Mark(12.0, 99.9)).cores_since() is None
