"""`--on` and `--agent`: another machine, and what runs the model there."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import usage

if TYPE_CHECKING:
    from packager.device.identity import Here
    from packager.events import Event
    from packager.lab.agent import Agent, Makers
    from packager.lab.snapshot import Snapshot
    from packager.lab.transport import Transport
    from packager.pipeline.on_device import Choose
    from packager.records import Measurement


PYTHON = "python"
"""The agent that is our own code, for a device with Python; `python:PATH` names the interpreter."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a machine is measured: the agent that was named, whether the machine is said to be the
    device, seconds of sustained decoding, the degrees Celsius that are waited for, and the
    unquantized checkpoint that the answers there are compared with."""

    agent: str | None = None
    claimed: bool = False
    sustained_s: float = 0
    cool_c: float | None = None
    checkpoint: Path | None = None


def measure_on(
    package: Path, runtime: str, machine: str, way: Way, log: str = "bench"
) -> Generator[Event, None, Measurement]:
    """The measurement of a package on a machine, an address or a name of the user's. Raises
    PackError (usage) where it is neither, there is no such agent, or the package is not made for
    one. `log` names the output that is kept."""
    from packager.pipeline import on_device

    refuse_runtime(runtime, way.agent)
    if is_python(way.agent):
        return _by_python(package, machine, way)
    transport, choose = way_to(machine, way.agent)
    return on_device.run(
        package,
        transport,
        identify,
        choose,
        way.claimed,
        way.sustained_s,
        way.cool_c,
        log,
        way.checkpoint,
    )


def is_python(agent: str | None) -> bool:
    """Whether an agent that was named is our own code."""
    return agent == PYTHON or (agent or "").startswith(f"{PYTHON}:")


def refuse_runtime(runtime: str, agent: str | None, task: str = "generate") -> None:
    """Raise PackError (usage) for a runtime, or a task, whose packages that agent does not run."""
    from packager.pipeline.on_device import refuse_task

    if is_python(agent):
        return
    refuse_task(task)
    if runtime != "llama.cpp":
        raise usage(
            f"The agent runs GGUF packages, and this one is made for {runtime}.",
            "Where Python and that engine are on the device: --agent python.",
        )


def _by_python(package: Path, machine: str, way: Way) -> Generator[Event, None, Measurement]:
    """The same by our own code there."""
    from packager.lab.machines import address_of
    from packager.lab.transport import parse
    from packager.pipeline import on_device_python

    if way.checkpoint is not None:
        raise usage("--quality works only with an agent.", "Leave --agent or --quality out.")
    python = (way.agent or "").partition(":")[2] or "python3"
    transport = parse(address_of(machine))
    return on_device_python.run(
        package, transport, python, way.claimed, way.sustained_s, way.cool_c
    )


def way_to(address: str, agent: str | None) -> tuple[Transport, Choose]:
    """A machine, an address or a name of the user's, and the agents to try there. Raises PackError
    (usage) where there is none."""
    from packager.lab.machines import address_of
    from packager.lab.transport import parse

    transport = parse(address_of(address))
    return transport, _chosen(transport, agent)


def refuse_way(machine: str, agent: str | None) -> None:
    """Raise PackError (usage) for a machine that has no address, and an agent that there is not:
    nothing is reached."""
    from packager.lab.machines import address_of
    from packager.lab.transport import parse

    if is_python(agent):
        parse(address_of(machine))
    else:
        way_to(machine, agent)


def look(machine: str, cool_c: float | None) -> None:
    """Reach a machine before work is done for it. Raises PackError where it does not answer (exit
    code 5), or is to be waited for until it is cool and tells no temperature (7)."""
    from packager.lab.heat import celsius
    from packager.lab.machines import address_of
    from packager.lab.transport import parse, run
    from packager.pipeline.cooling import temperature

    transport = parse(address_of(machine))
    run(transport, ":")
    if cool_c is not None:
        temperature(lambda: celsius(transport))


def identify(snapshot: Snapshot) -> Here:
    """Who a machine is, of its own files."""
    from targets.machine.here import elsewhere

    return elsewhere(
        snapshot.root,
        snapshot.architecture,
        snapshot.cores().at_once,
        snapshot.names(),
        snapshot.phone,
    )


def _chosen(transport: Transport, agent: str | None) -> Choose:
    """Which agents are tried: the one that was named, else what the machine can run."""
    from packager.names import did_you_mean
    from packager.pipeline.cache import BuildCache
    from targets.llama_cpp.agent import build
    from targets.llama_cpp.agent.variants import agents, fitting, is_name

    cache = BuildCache()
    if agent is not None and agent in agents().variants:
        return lambda _here: [build.build(agent, cache)]
    if agent is not None:
        path = Path(agent)
        if is_name(agent) and not path.exists():
            raise usage(
                f"There is no agent {agent!r}.{did_you_mean(agent, [*agents().variants, PYTHON])}",
                f"Name a file, or one of {', '.join(agents().variants)}.",
            )
        made = build.from_file(path)
        return lambda _here: [_done(made)]
    if transport.kind == "local":
        if transport.prefix:
            raise usage(
                "The processor that local: runs on is not known.",
                f"Name the agent: --agent with a file, or one of {', '.join(agents().variants)}.",
            )
        return lambda _here: [build.for_this_machine(cache)]

    def fit(here: Here) -> Makers:
        return [build.build(name, cache) for name in fitting(here.isa)]

    return fit


def _done(agent: Agent) -> Generator[Event, None, Agent]:
    """An agent that needs no making."""
    yield from ()
    return agent
