"""A run on a device that is cut anywhere: nothing stays behind there, nothing is wrong here, and the
next run says the same."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from packager.cores import cores
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.lab.agent import Agent, first_that_runs
from packager.lab.gauges import Device, Reach
from packager.lab.push import Sent, push
from packager.lab.session import Session
from packager.lab.transport import parse
from packager.records.measurement import Through
from tests.support import gguf_checkpoints
from tests.support.lab import finished, one_agent, ssh_host
from tests.support.tiers import thorough
from tests.support.trained_package import TRAINED

pytestmark = pytest.mark.engine

PROMPT = [5, 300, 17, 411, 42, 256, 8, 77]
CUTS = 20


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return one_agent(tmp_path_factory)


@pytest.mark.parametrize("cuts", [5, thorough(CUTS)])
def test_a_run_that_is_cut_anywhere_leaves_nothing_and_the_next_one_says_the_same(
    cuts: int, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gguf_checkpoints.build(TRAINED, tmp_path / "model.gguf", "Q8_0")

    def made() -> object:
        yield from ()
        return agent

    def run() -> tuple[list[int], float]:
        session = Session("", how)
        try:
            tokens = session.generate(PROMPT, 200, lambda _: None, stop=False)
            blocks = [np.array(block) for block in session.logits((PROMPT * 30)[:240])]
            return tokens, float(np.concatenate(blocks).sum())
        finally:
            with contextlib.suppress(PackError):
                session.close()
            Device.leave()

    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        there = parse(f"{host.address}{tmp_path}/there")
        sent = Sent(model, "model.gguf", model.stat().st_size, sha256(model))
        folder = finished(push(there, [sent]), [])
        running = finished(first_that_runs(there, [made()]), [])  # type: ignore[list-item]
        reach = Reach(running.argv, f"{folder}/model.gguf", cores(), {}, Through())
        how = {"context": 256, "kv": "f16", "threads": 1, "lab": reach.to_json()}
        began = time.monotonic()
        expected = run()
        whole_s = time.monotonic() - began
        before = set(psutil.Process().children())
        chance = random.Random(11)
        cut = 0
        for _ in range(cuts):
            timer = threading.Timer(chance.random() * whole_s, _cut, [before])
            timer.start()
            try:
                assert run() == expected
            except PackError as error:
                assert error.exit_code == ExitCode.SOURCE, error
                cut += 1
            finally:
                timer.cancel()
                timer.join()
                Device.leave()
        assert run() == expected
        assert cut, "no run was cut"
        assert _all_end(f"{tmp_path}/there"), "an agent stayed behind"
    assert sha256(Path(folder) / "model.gguf") == sent.sha256


def _cut(before: set[psutil.Process]) -> None:
    """The connections of this process end, as when a cable is pulled."""
    for child in set(psutil.Process().children()) - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()


def _all_end(folder: str) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = [process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"])]
        if not any(line[0].startswith(folder) for line in lines):
            return True
        time.sleep(0.1)
    return False


def test_an_agent_that_is_asked_nothing_leaves_after_its_deadline(agent: Agent) -> None:
    child = subprocess.Popen(
        [agent.path, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"hello\n")
    child.stdin.flush()
    assert b"protocol" in child.stdout.readline()
    # The cable is in, and nobody asks.
    assert child.wait(30) == 0
    child.stdin.close()
    child.stdout.close()
