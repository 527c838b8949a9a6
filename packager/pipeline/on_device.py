"""Measure a finished package on another machine: push what is missing, run the whole benchmark
there, bring the figures back with the identity of that machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from packager.device.identity import Here, Place
from packager.errors import NotHere, bad_input, usage
from packager.events import Event, StageFinished, StageNote, StageProgress, StageStarted
from packager.json_values import at, at_or_none
from packager.lab.agent import FILE, Makers, Running, first_that_runs
from packager.lab.gauges import Reach
from packager.lab.heat import celsius, with_heat
from packager.lab.push import Sent, push
from packager.lab.session import SESSION
from packager.lab.snapshot import Snapshot, take
from packager.lab.transport import Transport
from packager.measure.session_settings import settings_of
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.pipeline.bench import of_package
from packager.pipeline.cache import BuildCache
from packager.pipeline.cooling import cool, temperature
from packager.pipeline.intact import intact
from packager.pipeline.run import run_alone
from packager.pipeline.stages import benchmark
from packager.records import Measurement
from packager.records.measurement import OnDevice, Through
from packager.scratch import temporary_folder
from packager.units import human_bytes

_PUSH = "push"
_EMULATED = Place(False, "the model ran through another program, such as an emulator")

Identify = Callable[[Snapshot], Here]
"""Who a machine is, of what it tells."""
Choose = Callable[[Here], Makers]
"""Agents for a machine, the best first."""


def run(
    package: Path,
    transport: Transport,
    identify: Identify,
    choose: Choose,
    claimed: bool = False,
    sustained_s: float = 0,
    cool_c: float | None = None,
    log: str = "bench",
    checkpoint: Path | None = None,
) -> Generator[Event, None, Measurement]:
    """Yield the events of the measurement and return its figures with their place; the package is
    not changed.

    `claimed` says that the machine is the device, whatever it calls itself. With `cool_c` it waits
    until the processor there has no more degrees Celsius. `log` names the output that is kept, one
    for each measurement that runs at a time. With `checkpoint`, the unquantized folder, the figures
    have what the package lost as that machine computes it.

    Raises PackError: exit code 2 for a package whose task the agent does not have, or a checkpoint
    of other weights, 5 where the machine cannot be reached or goes away, 6 where the package is not
    whole, 7 where its disk, memory or instruction set does not suffice.
    """
    packaged = intact(package)
    settings = settings_of(packaged)
    if checkpoint is not None:
        # Late: numpy and the tokenizer come with it.
        from packager.pipeline.device_quality import check, compared

        check(packaged, checkpoint)
    refuse_task(packaged.contents.task)
    files = model_files(package, packaged)
    with temporary_folder() as held:
        snapshot = take(transport, held)
        if cool_c is not None:
            temperature(lambda: celsius(transport))
        here = identify(snapshot)
        running, folder = yield from _sent(transport, choose(here), files)
        reach = Reach(
            argv=running.argv,
            model=f"{folder}/{files[0].name}",
            cores=snapshot.cores(),
            machine=_machine(here, snapshot),
            through=through(transport, running, snapshot),
        )
    if cool_c is not None:
        yield from cool(lambda: celsius(transport), cool_c)
    before = celsius(transport)
    workload = packaged.contents.workload
    prompt = (workload.prompt if workload else None) or at(settings, "context", int) // 2
    there = {**settings, "gpu_layers": 0, "lab": reach.to_json()}
    job = benchmark(SESSION, package / MODEL, there, prompt, sustained_s)
    result = yield from run_alone(job, BuildCache().log(log))
    if "not_measured" in result.value:
        raise NotHere(
            at(result.value, "not_measured", str), at_or_none(result.value, "hint", str) or ""
        )
    taken = Measurement.from_json(result.value)
    place = (
        _EMULATED if transport.prefix else of_package(packaged.data, here, claimed, taken.runs_on)
    )
    taken = taken.but(
        place=OnDevice(on_device=place.on_device, why=place.why),
        through=with_heat(taken.through, before, transport),
    )
    if checkpoint is None:
        return taken
    log_path = BuildCache().log(f"{log}-quality")
    return taken.but(
        quality=(
            yield from compared(package / MODEL, packaged, checkpoint, SESSION, there, log_path)
        )
    )


def refuse_task(task: str) -> None:
    """Raise PackError (usage) for a task that the agent does not have."""
    if task != "generate":
        raise usage(
            "The agent measures models that answer in words, and this one makes "
            f"{'vectors' if task == 'embed' else 'scores'}.",
            "Where Python and the engine are on the device: --agent python.",
        )


def model_files(package: Path, found: Manifest) -> list[Sent]:
    """What a session opens of a package, the file that it is opened by first. Raises PackError (bad
    input) where there is none."""
    rows = sorted(
        (entry for entry in found.files if entry.path.startswith(f"{MODEL}/")),
        key=lambda entry: entry.path,
    )
    files = [
        Sent(package / entry.path, Path(entry.path).name, entry.size, entry.sha256)
        for entry in rows
        if entry.path.endswith(".gguf")
    ]
    if not files:
        raise bad_input("The package holds no GGUF file.", "Build the package again.")
    return files


def agent_there(transport: Transport, makers: Makers) -> Generator[Event, None, Running]:
    """An agent that answers there; what was pushed is the start of a stage that the caller ends.
    Raises PackError where none runs."""
    steps = first_that_runs(transport, makers)
    pushing = False
    try:
        while True:
            step = next(steps)
            if not isinstance(step, tuple):
                yield step
                continue
            if not pushing:
                yield StageStarted(_PUSH, "Send to the device", 1, 1)
            pushing = True
            yield StageProgress(_PUSH, *step)
    except StopIteration as stop:
        running: Running = stop.value
    finally:
        steps.close()
    which = "that was named"
    if running.agent.built_for != FILE:
        which = f"for {running.agent.built_for}"
    yield StageNote(_PUSH, f"the agent {which} runs there")
    return running


def _sent(
    transport: Transport, makers: Makers, files: Sequence[Sent]
) -> Generator[Event, None, tuple[Running, str]]:
    """An agent that answers there, and the folder of the model there."""
    started = time.monotonic()
    running = yield from agent_there(transport, makers)
    sending = push(transport, files)
    try:
        while True:
            yield StageProgress(_PUSH, *next(sending))
    except StopIteration as stop:
        folder: str = stop.value
    finally:
        sending.close()
    size = human_bytes(sum(sent.size for sent in files))
    yield StageFinished(_PUSH, time.monotonic() - started, False, size)
    return running, folder


def through(transport: Transport, running: Running, snapshot: Snapshot) -> Through:
    """The way to a device, and the state that it was in."""
    return Through(
        transport=transport.kind,
        agent_sha256=running.agent.sha256,
        agent_for=running.agent.built_for,
        governor=snapshot.governor(),
        battery=snapshot.battery(),
        screen=snapshot.screen(),
    )


def _machine(here: Here, snapshot: Snapshot) -> dict[str, str | int | None]:
    """See packager.device.this_machine.describe_machine."""
    return {
        "processor": " / ".join(here.names) or snapshot.architecture,
        "architecture": snapshot.architecture,
        "cores": here.cores,
        "memory_bytes": here.memory_bytes,
        "system": snapshot.system,
    }
