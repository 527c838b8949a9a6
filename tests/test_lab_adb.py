"""`--on adb:SERIAL` with the real adb client. Its other end is a stand-in for a phone's daemon that
runs commands on this machine: the way is shown, and no phone."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.cli import main
from packager.cli.reach import Way, measure_on
from packager.cores import cores
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.json_values import JsonObject
from packager.lab.agent import Agent
from packager.lab.gauges import Device, Reach
from packager.lab.push import Sent, push
from packager.lab.session import Session
from packager.lab.snapshot import take
from packager.lab.transport import android_devices, parse, run
from packager.package import manifest
from packager.records.measurement import Through
from tests.support import gguf_checkpoints
from tests.support.adb_device import Plugged, android_device
from tests.support.lab import finished, one_agent
from tests.support.trained_package import TRAINED, write_trained

PROMPT = [5, 300, 17, 411, 42, 256, 8, 77]
CUTS = "QWEN_PACK_CUTS"
"""How often a measurement is cut at a random point; 20 takes minutes."""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugged]:
    with android_device(tmp_path, monkeypatch) as plugged:
        yield plugged


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return one_agent(tmp_path_factory)


def test_a_command_passes_adb_with_its_bytes_and_its_exit_code_and_the_phone_is_listed(
    phone: Plugged, tmp_path: Path
) -> None:
    done = run(parse(phone.device.address), r"printf 'a\000b\r\n'; echo why >&2; exit 3")
    assert (done.code, done.out, done.said) == (3, b"a\0b\r\n", "why")
    # What looks like words of adb's own, and is the command's, is no failure of adb.
    assert run(parse(phone.device.address), "echo 'error: mine' >&2").code == 0
    assert android_devices() == [phone.device.address]
    (tmp_path / "seen").mkdir()
    seen = take(parse(phone.device.address), tmp_path / "seen")
    assert seen.phone
    assert seen.names()[0] == "qwen-pack Stand-in"


def test_a_push_by_adb_is_cut_and_resumed_and_an_unplugged_phone_is_a_sentence(
    phone: Plugged, tmp_path: Path
) -> None:
    data = np.random.default_rng(1).bytes(6_000_000)
    (tmp_path / "model").write_bytes(data)
    sent = Sent(tmp_path / "model", "model", len(data), sha256(tmp_path / "model"))
    device = parse(f"{phone.device.address}{tmp_path}/there")
    work = push(device, [sent])
    next(step for step in work if step[0] > 3_000_000)
    phone.device.unplug()
    with pytest.raises(PackError) as caught:
        list(work)
    assert caught.value.exit_code == ExitCode.SOURCE
    assert not list((tmp_path / "there").glob("*/*/model"))
    phone.connect()
    steps: list[tuple[int, int]] = []
    folder = finished(push(device, [sent]), steps)
    assert (Path(folder) / "model").read_bytes() == data
    assert [path.name for path in Path(folder).iterdir()] == ["model"]


@pytest.mark.engine
def test_through_adb_the_model_says_and_computes_what_it_does_here(
    phone: Plugged, agent: Agent, tmp_path: Path
) -> None:
    from targets.llama_cpp.session import Session as Here

    model = gguf_checkpoints.build(TRAINED, tmp_path / "model.gguf", "Q8_0")
    asked: JsonObject = {"context": 256, "kv": "f16", "threads": 1}
    argv = parse(phone.device.address).argv(f"exec {agent.path}")
    reach = Reach(tuple(argv), str(model), cores(), {}, Through())
    here = Here(str(model), asked)
    there = Session("", {**asked, "lab": reach.to_json()})
    try:
        said = [
            session.generate(PROMPT, 24, lambda _: None, stop=False) for session in (here, there)
        ]
        assert said[0] == said[1]
        mine, theirs = (
            np.concatenate([block.copy() for block in session.logits(PROMPT * 8)])
            for session in (here, there)
        )
        assert np.array_equal(mine, theirs)
        phone.device.unplug()
        with pytest.raises(PackError, match="connection to the agent ended") as caught:
            there.generate(PROMPT, 100, lambda _: None, stop=False)
        assert caught.value.exit_code == ExitCode.SOURCE
    finally:
        here.close()
        Device.leave()


@pytest.mark.engine
@pytest.mark.thorough(
    "test_a_run_that_is_cut_anywhere_leaves_nothing_and_the_next_one_says_the_same"
)
def test_a_measurement_that_is_cut_anywhere_changes_nothing_and_the_next_one_names_the_phone(
    phone: Plugged,
    agent: Agent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "1")
    package = write_trained(tmp_path / "p")
    address = f"{phone.device.address}{tmp_path}/there"
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    chance = random.Random(7)
    for _ in range(int(os.environ.get(CUTS, "1"))):
        work = measure_on(package, "llama.cpp", address, Way(str(agent.path)))
        events = list(itertools.islice(work, chance.randrange(1, 40)))
        assert events
        phone.device.unplug()
        try:
            list(work)
        except PackError as error:
            assert error.exit_code == ExitCode.SOURCE, error
        assert {path: path.read_bytes() for path in before} == before
        assert no_process_names(f"{tmp_path}/there")
        phone.connect()
    words = ["bench", str(package), "--on", address, "--agent", str(agent.path), "--save", "--json"]
    assert main([*words, "--quality", str(TRAINED)]) == ExitCode.DONE
    now: dict[str, Any] = json.loads(capsys.readouterr().out)["measured"]
    assert now["decode_tps"] > 0 and now["deterministic"] is True
    assert now["through"]["transport"] == "adb"
    assert "qwen-pack Stand-in" in now["machine"]["processor"]
    lost = now["quality"]
    assert lost["parity"]["findings"] == [] and lost["passed"] is True
    assert 0 <= lost["kl_mean"] < 0.05 and lost["top1"] > 0.9
    kept = manifest.read(package)
    assert [row.through.transport for row in kept.contents.measurements if row.through] == ["adb"]
    for name in ("127.0.0.1", str(phone.device.port), str(tmp_path)):
        assert name not in json.dumps(kept.data["measurements"])


def no_process_names(path: str) -> bool:
    """Whether every program from that folder ends soon."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(process.read_bytes().split(b"\0")[0])
        if not any(path.encode() in line for line in lines):
            return True
        time.sleep(0.1)
    return False
