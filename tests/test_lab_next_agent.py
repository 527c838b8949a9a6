"""An agent that a device does not run: what ended it is told, and the next simpler one is taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.lab.agent import Agent, first_that_runs
from packager.lab.transport import parse
from targets.llama_cpp.agent import build
from tests.support.lab import here, one_agent, ssh_host

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return one_agent(tmp_path_factory)


def run(transport: Any, agents: list[Agent]) -> tuple[Agent, Path]:
    def made(one: Agent) -> Any:
        yield from ()
        return one

    work = first_that_runs(transport, [made(one) for one in agents])
    while True:
        try:
            next(work)
        except StopIteration as stop:
            started = stop.value.argv[-1].removesuffix("; exit $?")
            return stop.value.agent, Path(started.split()[-1])


@pytest.mark.thorough("test_a_device_that_does_not_know_an_instruction_gets_the_next_agent")
def test_over_ssh_too_what_ended_the_agent_is_told_and_the_next_one_taken(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {}
    for signal in ("ILL", "KILL"):
        program = tmp_path / signal
        program.write_text(f"#!/bin/sh\nkill -{signal} $$\n")
        program.chmod(0o755)
        ended[signal] = build.from_file(program)
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        device = parse(f"{host.address}{tmp_path}/d")
        assert run(device, [ended["ILL"], agent])[0] == agent
        with pytest.raises(PackError, match="killed on the device") as caught:
            run(device, [ended["KILL"], agent])
    assert caught.value.exit_code == ExitCode.RESOURCE


def test_a_device_that_does_not_know_an_instruction_gets_the_next_agent(
    agent: Agent, tmp_path: Path
) -> None:
    program = tmp_path / "too-new"
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    program.chmod(0o755)
    newer = build.from_file(program)
    # One that answers, and whose kernels take what the device lacks.
    answers = tmp_path / "answers"
    answers.write_text("#!/bin/sh\nread x\necho '{\"protocol\": 2}'\nread x\nkill -ILL $$\n")
    answers.chmod(0o755)
    found, there = run(here(tmp_path / "d"), [newer, build.from_file(answers), agent])
    assert found == agent
    assert build.from_file(there).sha256 == agent.sha256
    with pytest.raises(PackError, match="does not know an instruction"):
        run(here(tmp_path / "d"), [newer])
    with pytest.raises(PackError, match="no agent for the device"):
        run(here(tmp_path / "d"), [])
    # A folder that is mounted noexec answers as a file without the right to be run.
    program.chmod(0o644)
    with pytest.raises(PackError, match=r"does not run the agent: .*ermission denied") as caught:
        run(here(tmp_path / "e"), [build.from_file(program)])
    assert "noexec" in caught.value.hint
