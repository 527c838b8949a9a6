"""`probe --on`: another machine as a device, its rates those of its agent's kernels, its energy what
it counts itself."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.cli.reach import identify
from packager.errors import ExitCode, PackError
from packager.lab.agent import Agent
from packager.lab.gauges import Device, Reach
from packager.lab.session import Session
from packager.lab.snapshot import take
from packager.measure.gauges import energy
from packager.measure.trials import answer
from packager.records.measurement import Through
from targets.devices.device_file import parse_target
from targets.devices.device_write import device_text
from targets.machine import elsewhere
from targets.machine.probe import as_target
from tests.support import gguf_checkpoints
from tests.support.lab import Played, one_agent, ssh_host
from tests.support.machine_tree import lay
from tests.support.probed import QUIET, RUNTIMES
from tests.support.trained_package import TRAINED
from tests.test_lab_bench import ANDROID, LINUX, PHONE, PI5

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return one_agent(tmp_path_factory)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of little meaning in seconds, long enough that a busy machine gives no rate below those
    that a device file may have."""
    monkeypatch.setattr(elsewhere, "RATE_S", 0.1)
    monkeypatch.setattr(elsewhere, "THREADS_S", 0.01)
    monkeypatch.setattr("targets.machine.measure.THREADS_S", 0.01)
    monkeypatch.setattr(elsewhere, "ROWS", 512)
    monkeypatch.setattr(elsewhere, "weight_bytes", lambda snapshot: 16 << 20)


def test_a_host_is_measured_there_and_its_device_file_is_a_target_with_sources(
    agent: Agent,
    brief: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        words = ["probe", "--on", f"{host.address}{tmp_path}/d", "--agent", str(agent.path)]
        assert main([*words, "--save", "mine", "--json"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["saved"] == str(tmp_path / "mine.toml")
    rates = {row["weights"]: row for row in told["measurement"]["kernels"]}
    assert set(rates) == {"q4_k", "q4_0", "q8_0"}
    for row in rates.values():
        # Far below and far above any processor: the unit would be wrong.
        assert 1e6 < row["bandwidth"] < 1e15 and 1e6 < row["compute"] < 1e17
    assert 1e6 < told["read_bytes_per_s"] < 1e15
    assert 0 < told["measurement"]["operation_s"] < 1
    assert sum(row["cores"] for row in told["clusters"]) == told["machine"]["physical_cores"]
    assert told["through"]["transport"] == "ssh"
    for name in ("127.0.0.1", str(host.port)):
        assert name not in (tmp_path / "mine.toml").read_text()
    assert main(["targets", "check", "mine.toml"]) == ExitCode.DONE
    assert main(["fit", "--target", "mine.toml", "--json"]) in (
        ExitCode.DONE,
        ExitCode.NOTHING_FITS,
    )
    source = parse_target((tmp_path / "mine.toml").read_text(), "", RUNTIMES).device.sources
    assert "on the device" in source["bandwidth"] and "q4_k weights" in source["compute"]


@pytest.mark.parametrize(
    ("files", "said", "kind", "known_by"),
    [
        (PI5, LINUX, "single-board", ("Raspberry Pi 5 Model B Rev 1.0",)),
        (PHONE, ANDROID, "phone", ("samsung SM-S928B", "QTI SM8650")),
    ],
)
def test_a_board_and_a_phone_become_devices_that_know_them_again(
    files: dict[str, str],
    said: dict[str, str],
    kind: str,
    known_by: tuple[str, ...],
    tmp_path: Path,
) -> None:
    (tmp_path / "seen").mkdir()
    snapshot = take(Played(lay(tmp_path / "there", files), said), tmp_path / "seen")
    here = identify(snapshot)
    machine = elsewhere.facts(snapshot, here, 10**10)
    one = as_target(machine, QUIET, "mine", elsewhere.identity(here))
    assert (one.kind, one.device.known_by) == (kind, known_by)
    assert one.device.memory_bytes == here.memory_bytes
    assert parse_target(device_text(one), "", RUNTIMES) == one
    rows = elsewhere.clusters(snapshot)
    assert sum(row["cores"] or 0 for row in rows) == machine.physical_cores
    assert rows[0]["strength"] == 1 and (rows[0]["mhz"] or 0) > 2000


def test_an_emulator_is_no_device_and_a_taken_name_is_refused_before_the_way_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["probe", "--on", "local:env A=b", "--agent", "aarch64"]
    assert main([*words, "--save", "mine"]) == ExitCode.USAGE
    assert "figures of no device" in capsys.readouterr().err
    (tmp_path / "mine.toml").write_text("")
    assert main(["probe", "--on", "ssh://nowhere.invalid", "--save", "mine"]) == ExitCode.USAGE
    assert main(["probe", "--agent", "aarch64"]) == ExitCode.USAGE
    assert "only with --on" in capsys.readouterr().err
    for agent in ("python", "python:/opt/bin/python"):
        assert main(["probe", "--on", "local:", "--agent", agent]) == ExitCode.USAGE
        assert "--agent python has none" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def device(agent: Agent) -> Iterator[Device]:
    from packager.cores import cores

    one = Device(Reach((str(agent.path),), "", cores(), {}, Through()))
    yield one
    one.link.close()


def test_what_is_no_product_is_a_sentence_and_the_agent_goes_on(device: Device) -> None:
    for command, words in (
        ("product 1 1 10", "no weights are laid"),
        ("weights f32 100 256 256", "no such kind of weights: f32"),
        ("weights q4_0 100 256 100", "no such matrices"),
        ("weights q4_0 100 100 64", "no such matrices"),
        ("product 1 1 70000", "out of range"),
        ("read 1 1 1", "out of range"),
    ):
        with pytest.raises(PackError, match=f"On the device: .*{words}"):
            device.link.ask(command)
    device.link.ask("weights q4_0 100 256 256")
    told: dict[str, Any] = dict(device.link.ask("product 3 1 0"))
    assert told["operations"] == 2 * 256 * 256 * told["matrices"] * 3
    assert len(told["ns"]) >= 3


def supply(root: Path, name: str, **files: str | int) -> Path:
    folder = root / "power_supply" / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")
    return folder


def rapl(root: Path, name: str, kind: str, micro: int) -> Path:
    zone = root / "powercap" / name
    zone.mkdir(parents=True)
    for file, text in (("name", kind), ("energy_uj", micro), ("max_energy_range_uj", 10**9)):
        (zone / file).write_text(f"{text}\n")
    return zone / "energy_uj"


DRAINED = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("supplies", "source"),
    [
        ([{**DRAINED, "current_now": -900_000, "voltage_now": 4_000_000}], "battery, whole device"),
        ([{**DRAINED, "power_now": 3_600_000}], "battery, whole device"),
        # At a charger nobody knows what the device takes, full or not.
        ([{**DRAINED, "status": "Charging", "power_now": 3_600_000}], None),
        ([{**DRAINED, "status": "Full", "power_now": 3_600_000}], None),
        ([{**DRAINED, "status": "Not charging", "power_now": 3_600_000}], None),
        ([{"type": "USB", "online": 1}, {**DRAINED, "power_now": 3_600_000}], None),
        ([{"type": "USB", "online": 0}, {**DRAINED, "power_now": 3_600_000}], "battery"),
        # Milliamperes where the kernel says microamperes, as some phones give them.
        ([{**DRAINED, "current_now": -900, "voltage_now": 4_000_000}], None),
        ([{**DRAINED, "current_now": "much", "voltage_now": 4_000_000}], None),
        ([], None),
    ],
)
def test_a_battery_counts_only_while_nothing_charges_it(
    device: Device, tmp_path: Path, supplies: list[dict[str, str | int]], source: str | None
) -> None:
    for number, files in enumerate(supplies):
        supply(tmp_path, f"s{number}", **files)
    device.counters = str(tmp_path)
    meter = device.meter(gpu=False)
    assert (meter is None) == (source is None)
    assert meter is None or meter.source.startswith(source or "")


@pytest.fixture
def answering(
    agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Session, Device]]:
    from packager.cores import cores

    model = gguf_checkpoints.build(TRAINED, tmp_path_factory.mktemp("m") / "m.gguf", "Q8_0")
    reach = Reach((str(agent.path),), str(model), cores(), {}, Through())
    how = {"context": 256, "kv": "f16", "threads": 1, "lab": reach.to_json()}
    session = Session("", how)
    yield session, Device.of(how)
    Device.leave()


def test_joules_are_those_of_answers_and_a_charger_in_between_leaves_no_figure(
    answering: tuple[Session, Device], tmp_path: Path
) -> None:
    session, device = answering
    battery = supply(tmp_path, "b", **DRAINED, current_now=-1_000_000, voltage_now=5_000_000)
    device.counters = str(tmp_path)
    meter = device.meter(gpu=False)
    assert meter is not None
    trial = answer(session, [5, 300, 17], 200, meter)
    took = trial.ttft_s + sum(trial.gaps_s)
    spent = trial.prompt_j + trial.decode_j
    # 5 W for as long as it answered; more than the stamps say is the work of telling them.
    assert 5 * took <= spent * 1.01 and trial.prompt_j >= 5 * trial.ttft_s * 0.99
    before = meter.joules()
    time.sleep(0.6)
    assert meter.joules() == before, "what passes between answers was counted"
    known = energy.spent(meter, 200, 1, trial.decode_j, trial.prompt_j)
    assert known is not None and known.source == "battery, whole device"
    (battery / "status").write_text("Charging\n")
    later = answer(session, [5, 300, 17], 8, meter)
    assert math.isnan(later.decode_j)
    assert energy.spent(meter, 8, 1, trial.decode_j + later.decode_j, 0.0) is None


def test_processor_packages_count_on_after_their_range_and_come_before_the_battery(
    answering: tuple[Session, Device], tmp_path: Path
) -> None:
    session, device = answering
    counter = rapl(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 5)
    rapl(tmp_path, "intel-rapl:1", "psys", 5)
    supply(tmp_path, "b", **DRAINED, power_now=9_000_000)
    device.counters = str(tmp_path)
    meter = device.meter(gpu=False)
    assert meter is not None and meter.source == "RAPL, processor package"
    # In the middle of an answer the counter passes its end.
    later = tmp_path / "later"
    later.write_text("2000000\n")
    turn = threading.Timer(0.2, lambda: later.replace(counter))

    def on_token(_token: int) -> None:
        if not turn.is_alive() and not turn.finished.is_set():
            turn.start()

    while not turn.finished.is_set():
        session.generate([5, 300, 17], 240, on_token, stop=False)
    turn.join()
    session.generate([5, 300, 17], 2, lambda token: None, stop=False)
    assert meter.joules() == pytest.approx(3.0)
