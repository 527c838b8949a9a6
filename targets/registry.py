"""The runtimes and targets that there are, in three grains: names, one, all.

Runtimes are plug-ins behind entry points, the built-in ones as well as those of other
distributions; targets are data. Asking for names imports no plug-in and reads no device file.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from packager.device.target import Target
from packager.errors import ExitCode, PackError, usage
from packager.names import did_you_mean
from packager.runtime import Runtime
from targets.devices.device_file import read_target
from targets.devices.tuned import tuned

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "qwen_pack.runtimes"
PLUG_INS = "QWEN_PACK_PLUGINS"
"""The variable that leaves the runtimes of other distributions out when it is `0`."""
BUILT_IN = ("llama.cpp", "onnxruntime", "openvino")
"""Names a device file may always use, also in a checkout that was installed before an adapter was
added."""
DEVICES = Path(__file__).parent / "devices"
HERE = "this-machine"
"""The name under which the kept result of `qwen-pack probe` is a target."""


@cache
def _entry_points() -> dict[str, EntryPoint]:
    """Entry points by name, each once: an editable installation can be found by two ways."""
    # It brings importlib.metadata, which takes 10 ms that commands without a runtime do not pay.
    from packager.engines import plug_ins_by_name

    own_only = os.environ.get(PLUG_INS) == "0"

    def counts(point: EntryPoint) -> bool:
        ours = point.name in BUILT_IN and point.value.startswith("targets.")
        return ours or not own_only

    return plug_ins_by_name(GROUP, counts, refuse_broken=not own_only)


def runtime_names() -> tuple[str, ...]:
    """Names of all installed runtimes in alphabetical order; none is imported."""
    return tuple(sorted(_entry_points()))


@cache
def runtime(name: str) -> Runtime:
    """The adapter of that name. Raises PackError (usage) for an unknown name, or for a plug-in that
    does not load."""
    point = _entry_points().get(name)
    if point is None:
        raise usage(
            f"There is no runtime {name!r}.{did_you_mean(name, runtime_names())}",
            f"Known: {', '.join(runtime_names())}.",
        )
    try:
        adapter = point.load()()
    except Exception as error:  # foreign code: whatever it raises, the sentence names whose it is
        raise PackError(
            f"The runtime {name!r} ({point.value}) does not load: {type(error).__name__}: {error}.",
            f"Install {point.dist.name if point.dist else 'the distribution that brings it'} "
            f"again, remove it, or set {PLUG_INS}=0 to use the built-in runtimes alone.",
            ExitCode.USAGE,
        ) from error
    if not isinstance(adapter, Runtime):
        # For a plug-in of another version alone.
        from packager.parts import missing

        raise usage(
            f"The runtime {name!r} ({point.value}) does not follow the contract in "
            f"packager/runtime.py: it lacks {', '.join(missing(adapter, Runtime))}.",
            "Update or remove it.",
        )
    if point.value.startswith("targets."):
        return adapter
    # For a plug-in of another distribution alone.
    from targets.guarded import guarded

    return guarded(adapter, f"the runtime {name!r} ({point.value})")


def nameable_runtimes() -> tuple[str, ...]:
    """Names a device file may give, installed or not, in alphabetical order."""
    return tuple(sorted({*BUILT_IN, *runtime_names()}))


def runtimes() -> tuple[Runtime, ...]:
    """Every adapter, in the order of the names."""
    return tuple(runtime(name) for name in runtime_names())


def target_names() -> tuple[str, ...]:
    """Names of the built-in targets in alphabetical order; no file is read."""
    return tuple(sorted(path.stem for path in DEVICES.glob("*.toml")))


def target(name_or_path: str) -> Target:
    """A built-in target by name, the one in a file whose name ends in `.toml`, or this machine as
    it was measured.

    Raises PackError (usage) for an unknown name, a file with problems, and a machine that was not
    measured yet.
    """
    if name_or_path.endswith(".toml"):
        return tuned(read_target(Path(name_or_path), nameable_runtimes()))
    if name_or_path in target_names():
        return _built_in(name_or_path)
    if name_or_path == HERE:
        return tuned(_this_machine())
    also = next((target for target in targets() if name_or_path in target.aliases), None)
    if also is not None:
        return also
    raise usage(
        "There is no target "
        f"{name_or_path!r}.{did_you_mean(name_or_path, (*target_names(), HERE))}",
        "`qwen-pack targets` lists all; your own device file ends in .toml.",
    )


def _built_in(name: str) -> Target:
    return tuned(read_target(DEVICES / f"{name}.toml", nameable_runtimes()))


def _this_machine() -> Target:
    # The probe is needed for this one name only.
    from targets.machine.probe import as_target, kept, look

    machine = look()
    measurement = kept(machine)
    if measurement is None:
        raise usage(
            "This machine has not been measured yet.",
            "Run `qwen-pack probe` first: it takes under ten seconds.",
        )
    return as_target(machine, measurement, HERE)


def targets() -> tuple[Target, ...]:
    """Every built-in target, in the order of the names."""
    return tuple(map(_built_in, target_names()))


def environment_of(engines: list[str]) -> dict[str, str]:
    """Variables that start these engines as they were found to work on this machine, as far as that
    is known; names of no runtime (numpy) have none."""
    # Late: a list of names needs nothing of builds.
    from packager.pipeline import climb

    adapters = [runtime(name) for name in engines if name in runtime_names()]
    return {
        name: value
        for adapter in adapters
        for name, value in climb.known(adapter).environment.items()
    }
